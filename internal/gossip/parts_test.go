package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// parts seals what the things of one kind say together, split so often.
func parts[V any](b *bench, id *identity.Identity, k kind, version uint64, n int, items map[string]V) map[int][]byte {
	b.t.Helper()
	split := map[int]map[string]V{}
	for i := range n {
		split[i] = map[string]V{}
	}
	for name, v := range items {
		split[partOf(name, n)][name] = v
	}
	raws := map[int][]byte{}
	for i, items := range split {
		raws[i] = b.seal(id, k, version, partBody[V]{i, n, items})
	}
	return raws
}

func (b *bench) heard(raws map[int][]byte) {
	b.t.Helper()
	for _, raw := range raws {
		if r := b.ingest(raw); r != accepted {
			b.t.Fatal(r)
		}
	}
}

func podsOf(ids ...int) map[string]podName {
	all := map[string]podName{}
	for _, i := range ids {
		all[fmt.Sprint("uid-", i)] = podName{"ns", fmt.Sprint("pod-", i)}
	}
	return all
}

func TestPartsOfSeveralAges(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("n")
	v := b.version()
	if r := b.ingest(b.registration(id, v)); r != accepted {
		t.Fatal(r)
	}
	says := func(want map[string]podName) {
		t.Helper()
		if diff := cmp.Diff(want, together(b.store.nodes["n"].pods)); diff != "" {
			t.Errorf("pods (-want +got):\n%s", diff)
		}
	}
	// In two parts, by their hashes: 1 3 4 6 8 | 2 5 7.
	b.heard(parts(b, id, kindPods, v+1, 2, podsOf(1, 2, 3, 4, 5, 6, 7, 8)))
	says(podsOf(1, 2, 3, 4, 5, 6, 7, 8))
	// 3 and 5 have gone, 9 and 10 have come. In four: 1 | 2 7 10 | 4 6 8 | 9, the second is lost.
	next := parts(b, id, kindPods, v+2, 4, podsOf(1, 2, 4, 6, 7, 8, 9, 10))
	late := map[int][]byte{1: next[1]}
	delete(next, 1)
	b.heard(next)
	says(podsOf(1, 2, 4, 6, 7, 8, 9)) // 2 and 7 still by the old second of two, but not 5, which the fourth leaves out
	b.heard(late)
	says(podsOf(1, 2, 4, 6, 7, 8, 9, 10))
	// Back to one: what the others of four said before does not count.
	b.heard(parts(b, id, kindPods, v+3, 1, podsOf(1, 11)))
	says(podsOf(1, 11))
	state, ok := b.store.nodes["n"].whole()
	if want := []model.PodID{{Namespace: "ns", Name: "pod-1", UID: "uid-1"}, {Namespace: "ns", Name: "pod-11", UID: "uid-11"}}; !ok || !cmp.Equal(want, state.Pods) {
		t.Errorf("pods %v, want %v", state.Pods, want)
	}
}

// Both ways to a node are in one record: the newest that names it says all of them.
func TestWaysOfSeveralAges(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("n")
	v := b.version()
	b.ingest(b.registration(id, v))
	took := func(ms int, behind time.Duration) *way {
		return &way{RTT: time.Duration(ms) * time.Millisecond, Behind: behind}
	}
	b.heard(parts(b, id, kindRoutes, v+1, 1, map[string]waysTo{"a": {took(1, 0), took(10, 0)}, "b": {Pod: took(20, 0)}}))
	b.heard(parts(b, id, kindRoutes, v+2, 1, map[string]waysTo{"a": {Node: took(3, time.Second)}, "c": {Pod: took(40, 0)}}))
	got, _ := b.store.nodes["n"].whole()
	at := time.Unix(0, int64(v+2)).UTC()
	if diff := cmp.Diff(map[model.NodeID]model.RouteTime{"a": {RTT: 3 * time.Millisecond, At: at.Add(-time.Second)}}, got.Routes); diff != "" {
		t.Errorf("node path (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[model.NodeID]model.RouteTime{"c": {RTT: 40 * time.Millisecond, At: at}}, got.PodRoutes); diff != "" {
		t.Errorf("pod path (-want +got):\n%s", diff)
	}
}

// What an earlier life of the agent said does not count in the next, in whatever order it comes.
func TestANewLifeForgetsTheLast(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("n")
	v := b.version()
	l := typicalLoad()
	old := [][]byte{
		b.registration(id, v), b.load(id, v+uint64(loadUnit), l), b.seal(id, kindSuffering, v+2, []model.Contention{{Container: "c"}}),
		parts(b, id, kindRoutes, v+3, 1, map[string]waysTo{"a": {Node: &way{RTT: 1}}})[0], parts(b, id, kindPods, v+4, 1, podsOf(1))[0],
	}
	next := v + uint64(time.Second)
	again := b.seal(id, kindRegistration, next, registrationBody{model.NodeState{Node: "n", BootID: "again", Version: next}, next})
	for order, raws := range map[string][][]byte{"before": append(old, again), "after": append([][]byte{again}, old...)} {
		b.store.clear(b.store.nodes["n"])
		b.ingest(b.certificate(id))
		for _, raw := range raws {
			b.ingest(raw)
		}
		e := b.store.nodes["n"]
		state, _ := e.whole()
		if want := (model.NodeState{Node: "n", BootID: "again", Version: next}); !cmp.Equal(want, state) || !e.received().IsZero() {
			t.Errorf("old life %s the new: (-want +got)\n%s", order, cmp.Diff(want, state))
		}
		if n := len(b.store.records); n != 2 {
			t.Errorf("old life %s the new: %d records are held, want the certificate and the registration", order, n)
		}
	}
}

// Split anew, every part that others hold is said again, one with nothing left in it too.
func TestAnotherSplitIsSaidWhole(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("n")
	b.ingest(b.registration(id, b.version()))
	p, now := newPartition(kindPods, func(a, b podName) bool { return a != b }), b.now
	say := func(items map[string]podName) {
		due, _ := p.due(items, now, 0)
		for i, next := range due {
			if r := b.ingest(b.seal(id, kindPods, b.version(), partBody[podName]{i, p.parts, next})); r != accepted {
				t.Fatal(r)
			}
			p.said[i], p.at[i] = next, now
			delete(p.owed, i)
		}
		b.now = b.now.Add(time.Second)
		if diff := cmp.Diff(items, together(b.store.nodes["n"].pods)); diff != "" {
			t.Errorf("pods (-said +heard):\n%s", diff)
		}
	}
	say(podsOf(1, 3, 2))
	p.split(2) // 1 and 3 are gone, and were all that is in the first of two
	say(podsOf(2, 5))
}
