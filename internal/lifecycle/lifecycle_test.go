package lifecycle

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// picture is of living nodes, all heard at the moment, at t0.
func picture(names ...model.NodeID) view.Snapshot {
	s := view.Snapshot{At: t0, Self: names[0], Nodes: map[model.NodeID]view.Node{}}
	for _, id := range names {
		s.Nodes[id] = view.Node{Alive: true, Received: t0, State: model.NodeState{
			Node: id, Phase: model.Normal, Load: model.Load{At: t0}, Routes: map[model.NodeID]model.RouteTime{},
		}}
	}
	return s
}

// lost takes a node out of the members that long ago, when it was also heard last.
func lost(s view.Snapshot, id model.NodeID, ago time.Duration) {
	n := s.Nodes[id]
	n.Alive, n.Missing, n.Received = false, t0.Add(-ago), t0.Add(-ago)
	s.Nodes[id] = n
}

func silent(s view.Snapshot, of model.NodeID, by ...model.NodeID) {
	for _, w := range by {
		n := s.Nodes[w]
		n.State.Silent = append(n.State.Silent, of)
		s.Nodes[w] = n
	}
}

func answered(s view.Snapshot, of, by model.NodeID, ago time.Duration) {
	s.Nodes[by].State.Routes[of] = model.RouteTime{RTT: time.Millisecond, Samples: 9, At: t0.Add(-ago)}
}

func judge(s view.Snapshot, id model.NodeID) Verdict {
	e := Weigh(s, t0)
	return e.Judge(id)
}

func TestOwnWord(t *testing.T) {
	for said, want := range map[model.Phase]model.Phase{
		"": model.Normal, model.Joining: model.Joining, model.Normal: model.Normal, model.Leaving: model.Leaving,
		// What a node cannot say of itself.
		model.Dead: model.Joining, model.Left: model.Joining, model.Suspected: model.Joining, "king": model.Joining,
	} {
		s := picture("a", "b")
		n := s.Nodes["b"]
		n.State.Phase = said
		s.Nodes["b"] = n
		if v := judge(s, "b"); v.Phase != want {
			t.Errorf("a node that says %q is %s, want %s", said, v.Phase, want)
		}
	}
	s := picture("a")
	s.Nodes["b"] = view.Node{Alive: true}
	if v := judge(s, "b"); v.Phase != model.Joining {
		t.Errorf("a member of which nothing was heard is %s, want joining", v.Phase)
	}
}

func TestDeadTakesEvidence(t *testing.T) {
	for name, c := range map[string]struct {
		with func(view.Snapshot)
		want model.Phase
		why  string
	}{
		"nobody has anything to say": {func(s view.Snapshot) {}, model.Suspected, "no node says that its kernel is silent"},
		"one finds it silent":        {func(s view.Snapshot) { silent(s, "x", "a") }, model.Suspected, "only a says"},
		"two find it silent":         {func(s view.Snapshot) { silent(s, "x", "a", "b") }, model.Dead, "answers nobody"},
		"two, and a third has an answer": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			answered(s, "x", "c", 2*time.Second)
		}, model.Suspected, "its kernel answers c"},
		"two, and a third had an answer before": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			answered(s, "x", "c", 31*time.Second)
		}, model.Dead, "answers nobody"},
		"two, and both had an answer after it was lost": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			answered(s, "x", "a", 8*time.Second)
			answered(s, "x", "b", 8*time.Second)
		}, model.Dead, "answers nobody"},
		"lost a moment ago": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			lost(s, "x", Quiet-1)
			n := s.Nodes["x"]
			n.Received = t0.Add(-Unheard)
			s.Nodes["x"] = n
		}, model.Suspected, "not for long"},
		"its records still arrive": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			n := s.Nodes["x"]
			n.Received = t0.Add(1 - Unheard)
			s.Nodes["x"] = n
		}, model.Suspected, "still heard"},
		"one of the two is lost itself": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			lost(s, "b", time.Second)
		}, model.Suspected, "only a says"},
		"one of the two was not heard for long": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			n := s.Nodes["b"]
			n.Received = t0.Add(-Fresh - 1)
			s.Nodes["b"] = n
		}, model.Suspected, "only a says"},
		"it finds itself silent": {func(s view.Snapshot) { silent(s, "x", "a", "x") }, model.Suspected, "only a says"},
		"most others are lost, too": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			lost(s, "c", 30*time.Second)
			lost(s, "d", 30*time.Second)
		}, model.Suspected, "only 2 of 5 nodes are heard"},
		"most others are lost, but one was dead before": {func(s view.Snapshot) {
			silent(s, "x", "a", "b")
			lost(s, "c", 30*time.Second)
			lost(s, "d", 30*time.Second)
			n := s.Nodes["d"]
			n.Phase = model.Dead
			s.Nodes["d"] = n
		}, model.Dead, "answers nobody"},
		"it had said that it leaves": {func(s view.Snapshot) { leaving(s) }, model.Leaving, "its agent has ended; no node says"},
		"it had said that it leaves, and is silent": {func(s view.Snapshot) {
			leaving(s)
			silent(s, "x", "a", "b")
		}, model.Left, "answers nobody"},
	} {
		s := picture("a", "b", "c", "d", "x")
		lost(s, "x", 30*time.Second)
		c.with(s)
		if v := judge(s, "x"); v.Phase != c.want || !strings.Contains(v.Why, c.why) {
			t.Errorf("%s: %s (%s), want %s (…%s…)", name, v.Phase, v.Why, c.want, c.why)
		}
	}
}

func leaving(s view.Snapshot) {
	n := s.Nodes["x"]
	n.State.Phase = model.Leaving
	s.Nodes["x"] = n
}

// In a cluster of two there is one observer, and its two kinds of evidence.
func TestTwoNodes(t *testing.T) {
	s := picture("a", "x")
	lost(s, "x", 30*time.Second)
	if v := judge(s, "x"); v.Phase != model.Suspected {
		t.Errorf("lost: %s, want suspected", v.Phase)
	}
	silent(s, "x", "a")
	if v := judge(s, "x"); v.Phase != model.Dead {
		t.Errorf("lost and silent: %s, want dead", v.Phase)
	}
}

// Whatever one node does to the picture (its own state, and the loss of any others, which whoever
// has the gossip's key can cause): it never makes a node dead that another node hears or reaches.
func TestOneLiarKillsNobody(t *testing.T) {
	names := []model.NodeID{"a", "b", "c", "d", "liar", "x"}
	for seed := range int64(5000) {
		rng := rand.New(rand.NewSource(seed))
		s := picture(names...)
		lost(s, "x", time.Duration(rng.Intn(120))*time.Second)
		for _, id := range names[:4] {
			if rng.Intn(3) == 0 {
				lost(s, id, time.Duration(rng.Intn(120))*time.Second)
			}
		}
		silent(s, "x", "liar")
		if rng.Intn(2) == 0 {
			answered(s, "x", "liar", time.Duration(rng.Intn(60))*time.Second)
		}
		if v := judge(s, "x"); v.Phase != model.Suspected {
			t.Fatalf("seed %d: %s (%s) by the word of one", seed, v.Phase, v.Why)
		}
	}
}

// Whoever has the gossip's key can make members that say nothing: they are no half of anything.
func TestMembersThatSayNothingAreNoHalf(t *testing.T) {
	s := picture("a", "b", "c", "d", "e", "x")
	for _, id := range []model.NodeID{"c", "d", "e", "x"} {
		lost(s, id, 30*time.Second)
	}
	silent(s, "x", "a", "b")
	for i := range 6 {
		s.Nodes[model.NodeID(fmt.Sprintf("fake%d", i))] = view.Node{Alive: true}
	}
	if v := judge(s, "x"); v.Phase == model.Dead {
		t.Errorf("held for dead (%s) by who hears 2 of 6 nodes", v.Why)
	}
}

// BenchmarkHalves is a look at all that are missing in a cluster that was cut in two.
func BenchmarkHalves(b *testing.B) {
	const peers = 64
	for _, n := range []int{1000, 5000} {
		names := make([]model.NodeID, n)
		for i := range names {
			names[i] = model.NodeID(fmt.Sprintf("node-%05d", i))
		}
		s := picture(names...)
		for i, id := range names {
			for k := range peers {
				answered(s, names[(i+1+k*7)%n], id, time.Second)
			}
			if i%2 == 1 {
				lost(s, id, 30*time.Second)
			}
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				e := Weigh(s, t0)
				for id := range s.Nodes {
					e.Judge(id)
				}
			}
		})
	}
}

// Who finds that a node has left forgets it, and does not say any more that it is silent: for the
// others, who found the same, that speaks for nothing. Signs of life do.
func TestLeftStays(t *testing.T) {
	left := func() view.Snapshot {
		s := picture("a", "b", "c", "x")
		n := s.Nodes["x"]
		n.State.Phase, n.Phase = model.Leaving, model.Left
		s.Nodes["x"] = n
		lost(s, "x", Unheard)
		return s
	}
	s := left()
	if v := judge(s, "x"); v.Phase != model.Left {
		t.Errorf("a node that had left is %s (%s) since the others have forgotten it", v.Phase, v.Why)
	}
	silent(s, "x", "a")
	if v := judge(s, "x"); v.Phase != model.Left {
		t.Errorf("a node that had left is %s (%s) since all but one have forgotten it", v.Phase, v.Why)
	}
	answered(s, "x", "c", time.Second)
	if v := judge(s, "x"); v.Phase != model.Leaving || !strings.Contains(v.Why, "its kernel answers c") {
		t.Errorf("a node that had left, and answers, is %s (%s)", v.Phase, v.Why)
	}
	s = left()
	lost(s, "b", time.Second)
	lost(s, "c", time.Second)
	if v := judge(s, "x"); v.Phase != model.Leaving {
		t.Errorf("to who hears less than half, a node that had left is %s (%s)", v.Phase, v.Why)
	}
	s = left()
	n := s.Nodes["x"]
	n.State.Phase = model.Normal // a later word of its own
	s.Nodes["x"] = n
	if v := judge(s, "x"); v.Phase != model.Suspected {
		t.Errorf("a node that says that it is normal is %s (%s) because it had left before", v.Phase, v.Why)
	}
}
