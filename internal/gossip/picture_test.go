package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/location"
	"github.com/drover-project/drover/internal/model"
)

// audience is an observer with a clock of the test's, and nodes that it knows.
type audience struct {
	*bench
	*Gossip
	ids []*identity.Identity
}

func newAudience(t testing.TB, nodes int) *audience {
	ca := identitytest.NewAuthority(t)
	a := &audience{bench: &bench{t: t, ca: ca, now: time.Now()}}
	g, err := New(Config{Self: identity.Subject{Observer: "o"}, Roots: ca.Pool(), SecretKey: testKey, Now: func() time.Time { return a.now }})
	if err != nil {
		t.Fatal(err)
	}
	a.Gossip, a.bench.store = g, g.store
	var raws [][]byte
	for i := range nodes {
		id := ca.Node(t, model.NodeID(fmt.Sprint("n", i)))
		a.ids = append(a.ids, id)
		raws = append(raws, a.certificate(id), a.registration(id, a.version()))
	}
	g.hear(raws)
	return a
}

func (a *audience) hearLoad(of int) {
	l := saidLoad{load: model.Load{At: a.now}}
	a.hear([][]byte{a.load(a.ids[of], uint64(a.now.UnixNano()), l)})
}

func (a *audience) loads() (n int) {
	for _, node := range a.Snapshot().Nodes {
		if !node.State.Load.At.IsZero() {
			n++
		}
	}
	return n
}

func TestReadingTakesNoLockAndNoMemory(t *testing.T) {
	a := newAudience(t, 3)
	a.mu.Lock() // somebody is taking in a great deal
	defer a.mu.Unlock()
	if n := testing.AllocsPerRun(100, func() {
		if s := a.Snapshot(); len(s.Nodes) != 3 || s.At != a.now {
			t.Fatalf("a picture of %d nodes", len(s.Nodes))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// However much is heard, pictures are drawn no more often than their size allows; none is lost.
func TestPicturesAreDrawnNowAndThen(t *testing.T) {
	const nodes = 20
	a := newAudience(t, nodes)
	changes, cancel := a.Subscribe()
	defer cancel()
	a.wait(time.Second)
	drawn := func() (n int) {
		select {
		case <-changes:
			n++
		default:
		}
		return n
	}
	a.hearLoad(0)
	if drawn() != 1 || a.loads() != 1 {
		t.Fatalf("%d loads are seen of one heard after a while", a.loads())
	}
	before := a.Snapshot()
	for i := 1; i < 10; i++ {
		a.wait(time.Microsecond)
		a.hearLoad(i)
	}
	if drawn() != 0 || a.loads() != 1 {
		t.Errorf("%d loads are seen at once", a.loads())
	}
	a.wait(nodes * drawSpace)
	a.mu.Lock()
	a.unlock() // what keep does
	if drawn() != 1 || a.loads() != 10 {
		t.Errorf("%d loads are seen after a while, want 10", a.loads())
	}
	if seen := len(before.Nodes); seen != nodes || !before.Nodes["n5"].State.Load.At.IsZero() {
		t.Error("a picture has changed that was handed out")
	}
	a.wait(time.Second)
	a.mu.Lock()
	a.unlock()
	if drawn() != 0 {
		t.Error("drawn, though nothing was heard")
	}
}

func (a *audience) wait(d time.Duration) { a.now = a.now.Add(d) }

// A picture that was drawn step by step is the one that is drawn at once.
func TestPicturesAddUp(t *testing.T) {
	a := newAudience(t, 5)
	for i, id := range a.ids {
		a.wait(time.Second)
		v := a.version()
		a.hear([][]byte{
			a.load(id, v, typicalLoad()),
			parts(a.bench, id, kindPods, v, 1, podsOf(i))[0],
			parts(a.bench, id, kindRoutes, v, 1, map[string]waysTo{"x": {Node: &way{RTT: time.Second}}})[0],
		})
	}
	stepwise := a.Snapshot()
	if p := location.Find(stepwise, "ns", "pod-3", nil); len(p) != 1 || p[0].Node != "n3" {
		t.Errorf("pod-3 is on %+v, want n3", p)
	}
	a.mu.Lock()
	a.anew = true
	a.draw()
	a.mu.Unlock()
	once := a.Snapshot()
	if diff := cmp.Diff(once.Nodes, stepwise.Nodes); diff != "" || len(once.Nodes) != 5 {
		t.Errorf("(-at once +step by step)\n%s", diff)
	}
	a.wait(time.Second)
	a.hearLoad(1)
	if at := a.Snapshot().Nodes["n1"].State.Load.At; at != a.now.Truncate(loadUnit).UTC() {
		t.Errorf("after a load of %v it is of %v", a.now, at)
	}
	if n := a.Snapshot().Nodes["n1"]; n.State.Version <= once.Nodes["n1"].State.Version || n.Received != a.now {
		t.Errorf("version %d received %v after a load, %d before", n.State.Version, n.Received, once.Nodes["n1"].State.Version)
	}
	a.wait(time.Second)
	a.hear([][]byte{parts(a.bench, a.ids[1], kindPods, a.version(), 1, podsOf(99))[0]})
	s := a.Snapshot()
	if p := location.Find(s, "ns", "pod-1", nil); len(p) != 0 {
		t.Errorf("a pod that went is on %+v", p)
	}
	if p := location.Find(s, "ns", "uid-99", nil); len(p) != 1 || p[0].Node != "n1" {
		t.Errorf("pod 99 is on %+v, want n1", p)
	}
}

func BenchmarkDraw(b *testing.B) {
	a := newAudience(b, 1000)
	for b.Loop() {
		a.mu.Lock()
		a.touch("n1")
		a.draw()
		a.mu.Unlock()
	}
}

// What a load costs that is new: to verify it, to decode it and to keep it.
func BenchmarkHearLoad(b *testing.B) {
	a := newAudience(b, 100)
	i := 0
	for b.Loop() {
		b.StopTimer()
		i++
		a.wait(10 * time.Millisecond)
		raw := a.load(a.ids[i%100], a.version(), typicalLoad())
		b.StartTimer()
		a.hear([][]byte{raw})
	}
}
