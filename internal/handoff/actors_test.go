package handoff

import (
	"fmt"
	"time"
)

// step does one thing: a task that waits, somebody's turn, or a fault.
func (w *world) step() {
	// Between commit and acknowledgement little time passes and much can go wrong.
	if r := w.api.recs[w.last().id]; r.Decision == Committed && !r.Target.Resumed && (w.slip(0.02) || w.opt.keepMark && w.slip(0.1)) {
		w.fault(w.nodes[w.rng.Intn(2)])
	}
	if r := w.api.recs[w.last().id]; r.Needed() && r.Target.Resumed && w.slip(0.05) {
		w.fault(w.nodes[w.rng.Intn(2)])
	}
	w.pages()
	w.meddle()
	w.endLease()
	if len(w.tasks) > 0 && w.rng.Float64() < 0.75 {
		i := w.rng.Intn(len(w.tasks))
		t := w.tasks[i]
		last := len(w.tasks) - 1
		w.tasks[i] = w.tasks[last]
		w.tasks = w.tasks[:last]
		t.run()
	} else {
		w.actor()
	}
	w.inspect()
}

// meddle is somebody (an update of limits, a person) who thaws a passed copy that is starting.
// Before that nothing could make good what it does. What is being ended is not thawed: that
// somebody may be faster than a look and an end cannot be helped.
func (w *world) meddle() {
	m := w.last()
	r, n := w.api.recs[m.id], w.nodes[m.dst]
	if !r.Target.Starting || r.Target.Resumed || r.Target.Failed || !w.slip(0.03) {
		return
	}
	if t := n.agent.targets[m.id]; t == nil || t.doing.Op == OpKill || t.doing.Op == OpLook {
		return
	}
	for _, p := range n.all(m.to) {
		if p.passed && p.frozen {
			w.logf("somebody thaws %s", p.id)
			p.frozen = false
			return
		}
	}
}

// endLease ends a lease for whose sake the source is kept.
func (w *world) endLease() {
	m := w.last()
	r := w.api.recs[m.id]
	if !r.Source.Keep || !r.Target.Waiting || !w.lease || !w.slip(0.01) {
		return
	}
	r.Source.Keep, r.Version = false, w.nextVersion()
	w.logf("the lease of %s has ended", m.id)
	w.watch(m)
}

func (w *world) actor() {
	n := w.nodes[w.rng.Intn(2)]
	switch k := w.rng.Intn(20); {
	case k < 5:
		w.kubelet(n)
	case k < 8:
		w.tick(n)
	case k < 12:
		w.controller()
	case k < 14:
		w.mend(n)
	case w.chance(0.35):
		w.fault(n)
	}
}

// tick lets time pass, for everybody, and tells the agents of one node.
func (w *world) tick(n *node) {
	w.now = w.now.Add(time.Duration(w.rng.Intn(4000)/w.size) * time.Millisecond)
	if w.slip(0.02) {
		w.now = w.now.Add(90 * time.Second)
	}
	if !n.agent.up {
		return
	}
	for _, m := range w.moves {
		if m.src == n.id && n.agent.sources[m.id] != nil {
			n.feedSource(m.id, Event{Kind: Tick})
		}
		if m.dst == n.id && n.agent.targets[m.id] != nil {
			n.feedTarget(m.id, Event{Kind: Tick})
		}
	}
	for _, x := range append([]*waiter(nil), n.waiters...) {
		if n.clock().After(x.deadline) {
			w.vanish(n, x)
		}
	}
}

// kubelet starts what is not running and ends what is deleted, on one node.
func (w *world) kubelet(n *node) {
	if !n.up || n.lost {
		return
	}
	for _, m := range w.moves {
		if m.dst == n.id {
			w.kubeletPod(n, w.api.pods[m.to])
		}
		if m.src == n.id && m == w.moves[0] {
			w.kubeletPod(n, w.api.pods[m.from])
		}
	}
	// kubelet reports the boot that it runs in, some time after it began.
	if w.api.up && !n.cut && w.api.nodeBoot[n.id] != n.bootID() && w.rng.Intn(4) == 0 {
		w.api.nodeBoot[n.id] = n.bootID()
		w.logf("node %d: Node object shows %s", n.id, n.bootID())
	}
}

func (w *world) kubeletPod(n *node, p *pod) {
	if p.gone {
		return
	}
	if p.deleted {
		for _, q := range n.procs {
			if q.uid == p.uid && !q.dead {
				if w.asked(q) && !p.deletedByUser {
					w.fail("the source's pod was deleted while a copy lacked its memory")
				}
				n.kill(q)
				w.crashIfOwner(p.uid)
			}
		}
		for _, x := range n.waiters {
			if x.uid == p.uid {
				return
			}
		}
		p.gone = true
		w.logf("pod %s is gone", p.uid)
		return
	}
	known := map[int]bool{}
	for _, q := range n.all(p.uid) {
		known[q.name] = known[q.name] || q.known
	}
	if w.rng.Intn(3) > 0 {
		return
	}
	for _, x := range n.waiters {
		if x.uid == p.uid {
			return
		}
	}
	// One after another, in the order of the spec.
	for name := range w.size {
		if !known[name] {
			w.create(n, p, name)
			return
		}
	}
}

// create is drover-runc: the fence, the mark of an arrived pod, then the agent.
func (w *world) create(n *node, p *pod, name int) {
	if n.fences[p.uid] > 0 && !w.opt.ignoreFence {
		w.logf("node %d: start of %s refused", n.id, p.uid)
		return
	}
	id := w.name("c")
	if w.isReplacement(p.uid) && !n.arrived[p.uid] {
		x := &waiter{uid: p.uid, id: id, name: name, deadline: n.clock().Add(createWait)}
		n.waiters = append(n.waiters, x)
		w.logf("node %d: create %s of %s waits", n.id, id, p.uid)
		for told := true; told; told = w.slip(0.2) {
			n.toTargets(p.uid, Event{Kind: WaiterCame, ID: id, Name: fmt.Sprint(name), Deadline: x.deadline})
		}
		return
	}
	w.logf("node %d: %s starts anew", n.id, p.uid)
	n.procs = append(n.procs, &proc{uid: p.uid, id: id, name: name, known: true})
}

func (w *world) isReplacement(uid string) bool {
	for _, m := range w.moves {
		if m.to == uid {
			return true
		}
	}
	return false
}

// crashIfOwner notes that a container that ran was ended from outside the moves.
func (w *world) crashIfOwner(string) { w.crashed = true }

// vanish is a create that kubelet or containerd gives up.
func (w *world) vanish(n *node, x *waiter) {
	w.logf("node %d: create %s vanishes", n.id, x.id)
	if n.begun[x.uid] {
		w.crashed = true // between the mark and the thaw: the copy runs, and kubelet lost it
	}
	n.dropWaiter(x.id)
	p := n.byID(x.id)
	switch {
	case p == nil:
	case p.criu != "restoring" && !p.frozen && !p.known:
		// containerd has runc delete what it has lost.
		n.kill(p)
	case w.rng.Intn(2) == 0:
	case p.criu == "restoring":
		n.kill(p)
	case p.criu == "held":
		p.criu = ""
		n.toTargets(p.uid, Event{Kind: HookGone, ID: p.id})
	}
}

func (w *world) controller() {
	if !w.api.up || w.slip(0.1) {
		return
	}
	m := w.last()
	r, from, to := w.api.recs[m.id], w.api.pods[m.from], w.api.pods[m.to]
	seen := *r
	if w.opt.mutant.handUnloaded {
		seen.Target.Loaded = true
	}
	boot := w.api.nodeBoot[m.dst]
	if w.opt.reboots {
		boot = ""
	}
	v := Oversee(seen, Cluster{
		SourceDeleted: from.deleted, SourceUnwanted: from.deletedByUser && !from.gone, Cancelled: m.cancelled, ReplacementGone: to.deleted,
		ReplacementReady: w.ready(m), HandOverBegun: to.begun, Late: w.now.Sub(m.started) > 150*time.Second,
		SourceNodeGone: w.api.nodeGone[m.src], TargetNodeGone: w.api.nodeGone[m.dst], TargetBootID: boot,
	})
	// Each of these may come late, or never: the controller crashes too.
	do := func(name string, f func()) {
		if !w.slip(0.1) {
			w.later("controller: "+name, func() {
				if w.api.up {
					f()
				}
			})
		}
	}
	switch {
	case v.Abort != nil:
		do("abort", func() { w.store(m.id, *v.Abort, seen.Version) })
	case v.Adopt != nil:
		do("adopted", func() { w.store(m.id, *v.Adopt, seen.Version) })
	case v.Forfeit != nil:
		do("forfeit", func() { w.store(m.id, *v.Forfeit, seen.Version) })
	case v.HandOver && !to.begun:
		do("hand over", func() { to.begun = true })
	case v.HandOver && !from.deleted:
		do("delete source", func() { w.deletePod(from) })
	case v.HandOver:
		do("handed over", func() { w.store(m.id, Change{Verb: HandOver}, seen.Version) })
	case v.Discard || v.CleanUp:
		if !to.deleted {
			do("delete replacement", func() { w.deletePod(to) })
		}
	}
	if v.Bury && !from.deleted {
		do("delete source", func() { w.deletePod(from) })
	}
	if v.Settled {
		m.settled = true
		w.nextMove(m)
	}
}

func (w *world) ready(m *move) bool {
	return w.nodes[m.dst].whole(m.to) && !w.nodes[m.dst].lost
}

// nextMove begins another one, of the pod wherever it is now.
func (w *world) nextMove(m *move) {
	if len(w.moves) >= w.opt.maxMoves || m != w.last() || w.api.recs[m.id].Lost {
		return
	}
	p := w.api.pods[m.owner(w.api.recs[m.id])]
	known := 0
	for _, q := range w.nodes[p.node].all(p.uid) {
		if q.known {
			known++
		}
	}
	if p.deleted || known < w.size || w.api.nodeGone[0] || w.api.nodeGone[1] {
		return
	}
	w.startMove(p)
}

// owner is the pod that the record says runs.
func (m *move) owner(r *Record) string {
	if r.Decision == Committed && !r.Returned {
		return m.to
	}
	return m.from
}

func (w *world) deletePod(p *pod) {
	if !p.deleted {
		p.deleted = true
		w.logf("pod %s is being deleted", p.uid)
	}
	for _, n := range w.nodes {
		if n.id == p.node && n.lost {
			p.gone = true
		}
	}
}

// mend brings back what is down: an agent, a node, a network, the API server.
func (w *world) mend(n *node) {
	if n.up && n.agent.up && !w.opt.noFreeze {
		for _, p := range n.procs {
			if p.dead || p.criu != "held" || w.rng.Intn(4) > 0 {
				continue
			}
			// CRIU's script calls again.
			if !p.frozen {
				n.answerHook(p.id)
			} else if p.passed {
				n.answerPassed(p)
			}
		}
	}
	switch {
	case n.lost:
		if !w.api.nodeGone[n.id] && w.api.up {
			w.api.nodeGone[n.id] = true
			w.logf("node %d is gone from the cluster", n.id)
			for _, p := range w.api.pods {
				if p.node == n.id {
					p.deleted, p.gone = true, true // the pod garbage collector
				}
			}
		}
	case !n.up:
		n.up = true
		w.logf("node %d boots: %s", n.id, n.bootID())
	case !n.agent.up:
		n.agent.up = true
		w.logf("node %d: agent starts", n.id)
	case n.cut && w.rng.Intn(3) == 0:
		n.cut = false
	case !w.api.up && w.rng.Intn(3) == 0:
		w.api.up = true
	default:
		// The agent's own list of records, again and again.
		for _, m := range w.moves {
			if m.src == n.id && n.agent.sources[m.id] == nil || m.dst == n.id && n.agent.targets[m.id] == nil {
				n.adopt(m.id)
			} else if w.rng.Intn(4) == 0 && w.api.up && !n.cut {
				n.know(*w.api.recs[m.id])
			}
		}
	}
}

func (w *world) crashAgent(n *node) {
	n.awaits = map[string]func(){}
	n.agent = agent{life: n.agent.life + 1, sources: map[string]*Source{}, targets: map[string]*Target{}}
	w.logf("node %d: agent crashes", n.id)
}

// fault is one of the bad things.
func (w *world) fault(n *node) {
	m := w.last()
	k := w.rng.Intn(100)
	switch {
	case w.opt.reboots && k < 80:
		k = 48
	case w.opt.keepMark:
		k = 0 // crashes of agents only
	}
	switch {
	case k < 30:
		w.crashAgent(n)
	case k < 40:
		n.cut = true
		w.logf("node %d is cut off", n.id)
	case k < 48:
		w.api.up = false
		w.logf("API server is away")
	case k < 58:
		w.reboot(n)
	case k < 61:
		w.lose(n)
	case k < 72:
		w.killCRIU(n)
	case k < 82:
		if len(n.waiters) > 0 {
			w.vanish(n, n.waiters[w.rng.Intn(len(n.waiters))])
		}
	case k < 88:
		// A liveness probe, an oom kill.
		var living []*proc
		for _, p := range n.procs {
			if !p.dead {
				living = append(living, p)
			}
		}
		if len(living) > 0 {
			p := living[w.rng.Intn(len(living))]
			w.logf("node %d: %s of %s is killed", n.id, p.id, p.uid)
			n.kill(p)
			w.crashed = true
		}
	case k < 92:
		w.userDeletes(w.api.pods[m.from])
	case k < 95:
		w.userDeletes(w.api.pods[m.to])
	default:
		m.cancelled = true
		w.logf("the move is deleted")
	}
}

func (w *world) userDeletes(p *pod) {
	w.logf("user deletes %s", p.uid)
	p.deletedByUser = p.deletedByUser || !p.deleted
	w.deletePod(p)
}

func (w *world) reboot(n *node) {
	w.crashed = true
	w.crashAgent(n)
	w.halt(n)
	n.boot++
	w.logf("node %d goes down", n.id)
}

func (w *world) halt(n *node) {
	n.up, n.waiters, n.begun = false, nil, map[string]bool{}
	for _, p := range n.procs {
		p.dead = true
	}
}

func (w *world) lose(n *node) {
	if w.nodes[1-n.id].lost {
		return
	}
	w.reboot(n)
	n.lost = true
	w.logf("node %d is lost for good", n.id)
}

// killCRIU ends CRIU and its hook: what is frozen stays frozen.
func (w *world) killCRIU(n *node) {
	for _, p := range n.procs {
		if p.dead || p.criu == "" {
			continue
		}
		w.logf("node %d: CRIU of %s dies in %s", n.id, p.uid, p.criu)
		switch p.criu {
		case "dumping":
			p.criu = ""
			for _, m := range w.moves {
				if m.from == p.uid {
					n.tell("dump failed", func() { n.feedSource(m.id, Event{Kind: Failed, Op: OpDump, Reason: "CRIU died"}) })
				}
			}
		case "restoring":
			n.dropWaiter(p.id)
			n.kill(p)
		case "held", "dumped":
			p.criu = ""
			n.toTargets(p.uid, Event{Kind: HookGone, ID: p.id})
		}
		return
	}
}

func (n *node) String() string { return fmt.Sprintf("node %d", n.id) }
