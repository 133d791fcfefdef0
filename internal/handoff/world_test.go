package handoff

import (
	"fmt"
	"math/rand"
	"strings"
	"time"
)

// world is a model of all that the machines live in: an API server, two nodes with
// kubelets, container runtimes, CRIU and agents, a controller and a user. Everything that
// happens is a task; tasks are picked at random, so what is sent twice, late or out of
// order arrives that way. After every step the invariants are looked at.
type world struct {
	rng   *rand.Rand
	opt   options
	now   time.Time
	tasks []task
	api   server
	nodes [2]*node
	// faulty: faults still happen.
	faulty bool
	budget int
	serial int
	moves  []*move
	// crashed: something happened by which a container may lawfully lose its memory.
	crashed bool
	// keep: the pod's owner would take the end of its processes for a failure, or its Services have it still.
	// lease: it is for those, and may be over before.
	keep, lease bool
	// size is how many containers the pod has.
	size int
	// heard is the last tick that whoever had the memory of a container has sent.
	heard  [3]int
	owners map[int64]string
	trace  *strings.Builder
	broken string
	// on and loseAnswer are for transcripts: what to do once a line is written, and the call whose
	// next answer is lost.
	on         map[string]func()
	loseAnswer string
}

// options break the platform or the machines on purpose.
type options struct {
	mutant      mutant
	ignoreFence bool // drover-runc starts what is fenced
	blindFresh  bool // OpFresh does not look whether the create still waits
	freshAll    bool // OpFresh ends the other containers, too
	passThaws   bool // OpPass lets the copy run
	keepMark    bool // OpKill leaves the mark of a copy that never ran
	noFreeze    bool // the hook does not freeze: a CRIU that dies lets its processes run
	epochStep   int64
	// home: both sides of a move are on one node.
	home bool
	// calm: no faults at all.
	calm     bool
	maxMoves int
	// containers of the pod, 1 to 3; 0 counts as 1.
	containers int
	// postCopy: copies run before their memory has come.
	postCopy bool
	// reboots: nearly all faults are reboots, and the controller does not notice them.
	reboots bool
}

type task struct {
	name string
	run  func()
}

// server is the API server: records, pods, nodes.
type server struct {
	up       bool
	version  int
	recs     map[string]*Record
	pods     map[string]*pod
	nodeBoot [2]string
	nodeGone [2]bool
	epoch    int64 // annotation on the pod's lineage
}

type pod struct {
	uid              string
	node             int
	deleted, gone    bool
	replacement      bool
	begun            bool // hand-over begun
	deletedByUser    bool
	confirmedVersion string
}

// move is what the test knows of one record.
type move struct {
	id, from, to string   // record and pods
	containers   []string // that move
	src, dst     int
	started      time.Time
	confirmed    string // version of the last confirming read
	cancelled    bool
	decision     Decision
	marked       bool // the copy was about to run
	copyRan      bool
	committer    int // the boot of the target that committed
	settled      bool
}

type node struct {
	w        *world
	id       int
	up, lost bool
	cut      bool
	ahead    time.Duration // its clock, of the world's
	boot     int
	fences   map[string]int64 // by pod: epoch
	begun    map[string]bool  // tmpfs
	arrived  map[string]bool
	images   map[string]bool
	procs    []*proc
	waiters  []*waiter
	agent    agent
	// awaits are the OpLoads that wait, by move.
	awaits map[string]func()
	// hung ends an OpPass that hangs; cancelled: it was told to.
	hung      func()
	cancelled bool
}

type agent struct {
	up      bool
	life    int
	sources map[string]*Source
	targets map[string]*Target
}

// proc is the processes of one container.
type proc struct {
	uid, id string
	name    int // of the container in the pod
	frozen  bool
	criu    string // "", "dumping", "dumped", "restoring", "held"
	passed  bool   // its create was let return
	dead    bool
	memory  bool // the memory it had from the beginning
	tick    int  // in that memory: the last that it sent
	known   bool // to kubelet
	lacks   bool // memory that is the source's
}

type waiter struct {
	uid, id  string
	name     int
	deadline time.Time
	ordered  bool
}

// runs: user code of it can run now, or could at any moment without anybody's leave.
func (p *proc) runs() bool { return !p.dead && !p.frozen && p.criu != "restoring" }

func newWorld(seed int64, opt options) *world {
	w := &world{
		rng: rand.New(rand.NewSource(seed)), opt: opt, now: time.Unix(1_700_000_000, 0), faulty: !opt.calm,
		owners: map[int64]string{},
		api:    server{up: true, recs: map[string]*Record{}, pods: map[string]*pod{}},
	}
	if w.opt.epochStep == 0 {
		w.opt.epochStep = NextEpoch(0)
	}
	w.budget = w.rng.Intn(8)
	w.keep, w.lease = seed%2 == 0, seed%4 == 0
	for i := range w.nodes {
		w.nodes[i] = &node{w: w, id: i, up: true, boot: 1, fences: map[string]int64{}, arrived: map[string]bool{}, begun: map[string]bool{}, images: map[string]bool{}, awaits: map[string]func(){}}
		if w.faulty {
			// Up to an hour off the controller's.
			w.nodes[i].ahead = time.Duration((seed*7919+int64(i)*3571)%7200-3600) * time.Second
		}
		w.nodes[i].agent = agent{up: true, sources: map[string]*Source{}, targets: map[string]*Target{}}
		w.api.nodeBoot[i] = w.nodes[i].bootID()
	}
	w.size = max(1, opt.containers)
	p := w.newPod(0)
	for name := range w.size {
		w.nodes[0].procs = append(w.nodes[0].procs, &proc{uid: p.uid, id: w.name("c"), name: name, memory: true, known: true})
	}
	w.owners[0] = p.uid
	w.startMove(p)
	return w
}

func (w *world) name(prefix string) string {
	w.serial++
	return fmt.Sprintf("%s%d", prefix, w.serial)
}

func (w *world) newPod(n int) *pod {
	p := &pod{uid: w.name("pod"), node: n}
	w.api.pods[p.uid] = p
	return p
}

func (w *world) startMove(from *pod) {
	target := 1 - from.node
	if w.opt.home {
		target = from.node
	}
	to := w.newPod(target)
	to.replacement = true
	w.api.epoch += w.opt.epochStep
	m := &move{id: w.name("move"), from: from.uid, to: to.uid, src: from.node, dst: to.node, started: w.now}
	for _, p := range w.nodes[from.node].all(from.uid) {
		m.containers = append(m.containers, p.id)
	}
	w.moves = append(w.moves, m)
	w.api.recs[m.id] = &Record{ID: m.id, Version: w.nextVersion(), Epoch: w.api.epoch, Containers: w.size, PostCopy: w.opt.postCopy,
		Source: SourceRecord{Node: fmt.Sprint(m.src), PodUID: m.from, Keep: w.keep}, Target: TargetRecord{Node: fmt.Sprint(m.dst), PodUID: m.to}}
	w.logf("move %s of %s to %s, epoch %d", m.id, m.from, m.to, w.api.epoch)
	w.watch(m)
}

func (w *world) nextVersion() string {
	w.api.version++
	return fmt.Sprint(w.api.version)
}

func (w *world) move(id string) *move {
	for _, m := range w.moves {
		if m.id == id {
			return m
		}
	}
	return nil
}

func (w *world) last() *move { return w.moves[len(w.moves)-1] }

func (w *world) logf(format string, args ...any) {
	if w.trace == nil {
		return
	}
	line := fmt.Sprintf(format, args...)
	fmt.Fprintln(w.trace, line)
	for part, f := range w.on {
		if strings.Contains(line, part) {
			delete(w.on, part)
			w.later("scripted", f)
		}
	}
}

func (w *world) fail(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
		w.logf("BROKEN: %s", w.broken)
	}
}

// later makes a task; it is run some time.
func (w *world) later(name string, run func()) { w.tasks = append(w.tasks, task{name, run}) }

// sent is a message: like a task, but some take very long.
func (w *world) sent(name string, run func()) {
	turns := 0
	if w.slip(0.05) {
		turns = w.rng.Intn(40)
	}
	var wait func()
	wait = func() {
		if turns--; turns < 0 || !w.faulty {
			run()
			return
		}
		w.later(name, wait)
	}
	w.later(name, wait)
}

// chance is true with probability p while faults happen, and then spends one of them.
func (w *world) chance(p float64) bool {
	if !w.faulty || w.budget <= 0 || w.rng.Float64() >= p {
		return false
	}
	w.budget--
	return true
}

// slip is like chance but spends nothing: for the small, common mishaps of a network.
func (w *world) slip(p float64) bool { return w.faulty && w.rng.Float64() < p }

// watch tells the agents of a record as it is now.
func (w *world) watch(m *move) {
	r := *w.api.recs[m.id]
	for _, n := range []*node{w.nodes[m.src], w.nodes[m.dst]} {
		for copies := 1; copies > 0; copies-- {
			if n.lost || w.slip(0.2) {
				continue
			}
			if w.slip(0.1) {
				copies++
			}
			life := n.agent.life
			w.sent("watch", func() {
				if n.agent.up && n.agent.life == life && !n.cut {
					n.know(r)
				}
			})
		}
	}
}

// call is a call from an agent to the API server. apply runs there, at most once; deliver
// gets what came of it, or Unknown.
func (n *node) call(name string, apply func() Event, deliver func(Event), lost Event) {
	w, life := n.w, n.agent.life
	answer := func(e Event) {
		w.sent(name+" answer", func() {
			if n.agent.up && n.agent.life == life {
				deliver(e)
			}
		})
	}
	early := w.slip(0.05) // the caller gives up before the request arrives, which it may yet
	if early {
		answer(lost)
	}
	w.sent(name, func() {
		if !w.api.up || n.cut || n.lost || w.slip(0.05) {
			if !early {
				answer(lost)
			}
			return
		}
		e := apply()
		if early {
			return
		}
		if w.slip(0.07) || w.loseAnswer == name {
			e, w.loseAnswer = lost, ""
		}
		answer(e)
	})
}

// store is the compare-and-swap in the API server.
func (w *world) store(id string, c Change, version string) Event {
	m, r := w.move(id), w.api.recs[id]
	if r.Version != version && !c.blind {
		return Event{Kind: Wrote, Outcome: Conflict}
	}
	next := *r
	if c.blind {
		c.set(&next)
	} else {
		var err error
		if next, err = c.Apply(*r); err != nil {
			return Event{Kind: Wrote, Outcome: Conflict}
		}
	}
	next.Version = w.nextVersion()
	w.logf("  record %s v%s: %s (epoch %d) %s", id, next.Version, c.Verb, next.Epoch, c.Reason)
	*r = next
	w.inspectWrite(m, c, version)
	w.watch(m)
	return Event{Kind: Wrote, Outcome: OK, Record: next}
}
