package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/movable"
)

// cluster is an API server and two nodes, as far as a move sees them.
type cluster struct {
	t     *testing.T
	mu    sync.Mutex
	pm    *v1alpha1.PodMigration
	count int
	nodes map[string]*node
	// away: the API server does not answer. lose: the answer to this change is lost, once;
	// drop: the change never arrives, once.
	away bool
	gone bool // the record is
	// deaf: the watch tells nothing any more, from this change on.
	deaf       handoff.Verb
	mute       bool
	lose, drop handoff.Verb
	unwanted   string
	// forbid: this change is refused until then, as by a policy; refused counts it.
	forbid  handoff.Verb
	until   time.Time
	refused int
	// leaves and comes are the guard's findings.
	leaves, comes []movable.Finding
	boot          map[string]string // of Node objects; absent: gone
	ends          []Report
	calls         []string // of what was done, in order
	// at is called before a change is stored, without the lock.
	at func(verb string)
	// adopts is how long drover-controller takes to have a source ended that is kept until then; 0: it does not.
	adopts time.Duration
}

// node is a container runtime with CRIU.
type node struct {
	c          *cluster
	name, boot string
	discards   func() // is called when a move's images are, without the lock
	mu         sync.Mutex
	driver     *Driver
	stop       func()
	cut        func() // stop, without waiting

	source     handoff.SourceFacts
	dumpErr    error
	sendErr    error
	restoreErr error
	slowSend   time.Duration
	blockDump  bool
	dumpCut    bool // a dump that was blocked has ended
	blockPass  bool
	// blockRestore: a restore goes on until it is broken off, and is at work some time longer.
	blockRestore, atWork bool
	images               bool
	// loading is closed when the copy has all of its memory; nil: it has.
	loading chan struct{}
	copy    Copy
	answers map[string]string
	fences  map[string]fence.Fence
	begun   bool
	// net is what the sandbox of the pod is: parting, held, forwards, arrived, open; kept: it was dumped so.
	net string
	// sendsOn is for how long what comes for the old address was to be sent on.
	sendsOn                                                            time.Duration
	kept                                                               bool
	findErr, answerErr, probeErr, partErr, holdErr, arriveErr, openErr error
	forwardErrs                                                        int // so many times it fails
	arrivals                                                           map[string]bool
}

const (
	sourcePod = "5f0c0000-0000-0000-0000-000000000001"
	targetPod = "5f0c0000-0000-0000-0000-000000000002"
)

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, boot: map[string]string{"a": "boot-a", "b": "boot-b"}, nodes: map[string]*node{}}
	pm := &v1alpha1.PodMigration{}
	pm.Namespace, pm.Name, pm.UID, pm.ResourceVersion = "default", "move", "uid-1", "1"
	pm.Status.Epoch = 2
	pm.Status.Source = v1alpha1.SourceStatus{Node: "a", PodName: "web", PodUID: sourcePod, Containers: []v1alpha1.MovingContainer{{Name: "web", ID: "c-source"}}}
	pm.Status.Target = v1alpha1.TargetStatus{Node: "b", PodName: "web-dm2", PodUID: targetPod}
	c.pm, c.count, c.adopts = pm, 1, 3*time.Second
	for _, name := range []string{"a", "b"} {
		c.nodes[name] = &node{c: c, name: name, boot: "boot-" + name, answers: map[string]string{},
			fences: map[string]fence.Fence{}, arrivals: map[string]bool{}}
	}
	c.nodes["a"].source.Alive = true
	return c
}

// called notes what was done.
func (c *cluster) called(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, what)
}

// start starts a node's agent, and shows it what there is.
func (n *node) start() {
	d := New(Config{Node: n.name, BootID: n.boot, Ended: func(r Report) {
		n.c.mu.Lock()
		defer n.c.mu.Unlock()
		n.c.ends = append(n.c.ends, r)
	}}, Ports{
		Records: n.c, Cluster: n.c, Checkpointer: Holding{(*checkpointer)(n), (*addresses)(n)}, Addresses: (*addresses)(n), Sender: (*sender)(n), Images: (*images)(n),
		Runtime: (*copies)(n), Fences: (*fences)(n), Arrivals: (*arrivals)(n), Marks: (*marks)(n),
		Guard: (*guard)(n), Log: slog.New(slog.NewTextHandler(n.c.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", n.name),
	})
	if err := d.Register(prometheus.NewRegistry()); err != nil {
		n.c.t.Error(err)
	}
	n.mu.Lock()
	n.driver = d
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	n.cut = cancel
	n.stop = func() {
		cancel()
		<-done
	}
	n.c.mu.Lock()
	pm := n.c.pm.DeepCopy()
	n.c.mu.Unlock()
	d.Observe(pm)
	n.mu.Lock()
	creates := slices.Clone(n.copy.Creates)
	held, id := n.copy.Held, n.copy.ID
	n.mu.Unlock()
	for _, x := range creates {
		d.CreateWaits(x)
	}
	if held {
		d.RestoreHeld(targetPod, id)
	}
}

// create is a kubelet that asks for the container.
func (n *node) create(id string) { n.createOf("web", id) }

func (n *node) createOf(name, id string) {
	x := Create{Namespace: "default", Pod: "web-dm2", PodUID: targetPod, Migration: "move", ID: id, Name: name, Deadline: time.Now().Add(100 * time.Second)}
	n.mu.Lock()
	n.copy.Creates = append(n.copy.Creates, x)
	n.mu.Unlock()
	n.driver.CreateWaits(x)
}

func (n *node) endCreate(id string) {
	n.mu.Lock()
	n.copy.Creates = slices.DeleteFunc(n.copy.Creates, func(c Create) bool { return c.ID == id })
	d := n.driver
	n.mu.Unlock()
	d.CreateEnded(targetPod, id)
}

// Get implements Records.
func (c *cluster) Get(context.Context, string, string) (*v1alpha1.PodMigration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, errors.New("the API server is away")
	}
	if c.gone {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "podmigrations"}, c.pm.Name)
	}
	return c.pm.DeepCopy(), nil
}

// UpdateStatus implements Records.
func (c *cluster) UpdateStatus(_ context.Context, pm *v1alpha1.PodMigration) (*v1alpha1.PodMigration, handoff.Outcome, error) {
	verb := verbOf(c.record(), RecordOf(pm))
	if c.at != nil {
		c.at(string(verb))
	}
	c.mu.Lock()
	if c.away || c.drop == verb {
		c.drop = ""
		c.mu.Unlock()
		return nil, handoff.Unknown, errors.New("timed out")
	}
	if pm.ResourceVersion != c.pm.ResourceVersion {
		c.mu.Unlock()
		return nil, handoff.Conflict, apierrors.NewConflict(schema.GroupResource{}, pm.Name, errors.New("it has changed"))
	}
	if c.forbid == verb && time.Now().Before(c.until) {
		c.refused++
		c.mu.Unlock()
		return nil, handoff.Conflict, apierrors.NewForbidden(schema.GroupResource{}, pm.Name, errors.New("a policy"))
	}
	c.count++
	c.pm = pm.DeepCopy()
	c.pm.ResourceVersion = fmt.Sprint(c.count)
	stored, lost := c.pm.DeepCopy(), c.lose == verb
	c.mute = c.mute || c.deaf == verb
	if lost {
		c.lose = ""
	}
	if verb == handoff.Resume && v1alpha1.SourceKept(&c.pm.Status) && c.adopts > 0 {
		time.AfterFunc(c.adopts, func() { c.change(func(s *v1alpha1.PodMigrationStatus) { s.Adopted = true }) })
	}
	c.mu.Unlock()
	c.show()
	if lost {
		return nil, handoff.Unknown, errors.New("timed out")
	}
	return stored, handoff.OK, nil
}

// show is the watch.
func (c *cluster) show() {
	c.mu.Lock()
	pm := c.pm.DeepCopy()
	away := c.away || c.mute
	c.mu.Unlock()
	var drivers []*Driver
	for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
		n := c.nodes[name]
		n.mu.Lock()
		if n.driver != nil && !away {
			drivers = append(drivers, n.driver)
		}
		n.mu.Unlock()
	}
	for _, d := range drivers {
		d.Observe(pm)
	}
}

func (c *cluster) record() handoff.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return RecordOf(c.pm)
}

// abort is the controller's.
func (c *cluster) abort() {
	c.change(func(s *v1alpha1.PodMigrationStatus) { s.Decision = v1alpha1.Abort })
}

// change is the controller's, or another node's.
func (c *cluster) change(f func(*v1alpha1.PodMigrationStatus)) {
	c.mu.Lock()
	c.count++
	c.pm = c.pm.DeepCopy()
	c.pm.ResourceVersion = fmt.Sprint(c.count)
	f(&c.pm.Status)
	c.mu.Unlock()
	c.show()
}

// verbOf guesses what a write changes.
func verbOf(old, now handoff.Record) handoff.Verb {
	switch {
	case now.Decision != old.Decision && now.Decision == handoff.Committed:
		return handoff.Commit
	case now.Decision != old.Decision:
		return handoff.Abort
	case now.Returned != old.Returned:
		return handoff.Return
	case now.Lost != old.Lost:
		return handoff.Lose
	case now.Target.Starting != old.Target.Starting:
		return handoff.Start
	case now.Target.Resumed != old.Target.Resumed:
		return handoff.Resume
	case now.Source.Offered != old.Source.Offered:
		return handoff.Offer
	case now.Target.Failed != old.Target.Failed:
		return handoff.Fail
	case now.Source.Ended != old.Source.Ended:
		return handoff.End
	case now.Target.Loaded != old.Target.Loaded:
		return handoff.Load
	case now.Source.Forfeited != old.Source.Forfeited:
		return handoff.Forfeit
	case now.Source.Released != old.Source.Released:
		return handoff.Release
	case now.Target.Cleaned != old.Target.Cleaned:
		return handoff.Clean
	}
	return handoff.Wait
}

// Unwanted and BootID implement Cluster.
func (c *cluster) Unwanted(context.Context, Move) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unwanted, nil
}

func (c *cluster) BootID(_ context.Context, name string) (string, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return "", false, errors.New("the API server is away")
	}
	id, there := c.boot[name]
	return id, !there, nil
}
