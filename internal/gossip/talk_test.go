package gossip

import (
	"fmt"
	"math/rand"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
)

func shop(name string) model.Workload {
	return model.WorkloadOf("shop", "Deployment", name)
}

func end(name, address string, more ...string) model.End {
	e := model.End{Workload: shop(name), Addresses: []netip.Addr{netip.MustParseAddr(address)}}
	for _, a := range more {
		e.Addresses = append(e.Addresses, netip.MustParseAddr(a))
	}
	return e
}

// talkative is a node with two pods that talk.
var talkative = model.NodeState{
	Ends:  []model.End{end("web", "10.1.0.5", "fd00::5"), end("web", "10.1.0.6")},
	Edges: []model.Edge{{Local: shop("web"), Remote: shop("db"), Volume: 5000}, {Local: shop("web"), Remote: shop("cache"), Volume: 70}},
}

var sameAddress = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func talkOfSome(rng *rand.Rand) map[string]talking {
	var s model.NodeState
	for i := range rng.Intn(12) {
		s.Ends = append(s.Ends, end(fmt.Sprint("w", rng.Intn(3)), fmt.Sprint("10.1.0.", i)))
		s.Edges = append(s.Edges, model.Edge{Local: shop("web"), Remote: shop(fmt.Sprint("w", i)), Volume: model.Bytes(1 + rng.Intn(1e6))})
	}
	return talkingOf(&s)
}

func TestTalkIsSaidBeyondItsBand(t *testing.T) {
	s := newSpeaker(t)
	state := calm()
	_, raws := s.publish(state)
	s.listener.hear(raws)
	for _, raw := range raws {
		if !isLoad(raw) && kind(raw[1]) == kindTalk {
			t.Error("a node without talk says some")
		}
	}
	none, once := map[kind]int{}, map[kind]int{kindTalk: 1}
	heard := func(what string, ends []model.End, edges []model.Edge) {
		t.Helper()
		got := s.heard().State
		if diff := cmp.Diff(ends, got.Ends, sameAddress); diff != "" {
			t.Errorf("%s: ends (-want +heard):\n%s", what, diff)
		}
		if diff := cmp.Diff(edges, got.Edges); diff != "" {
			t.Errorf("%s: edges (-want +heard):\n%s", what, diff)
		}
	}
	change := func(what string, want map[kind]int, ends []model.End, edges []model.Edge) {
		t.Helper()
		s.wait(time.Second)
		state.Ends, state.Edges = ends, edges
		s.tells(what, state, want)
	}
	before := talkative.Edges
	more := []model.Edge{before[0], {Local: shop("web"), Remote: shop("cache"), Volume: 105}}
	beyond := []model.Edge{before[0], {Local: shop("web"), Remote: shop("cache"), Volume: 106}}
	change("talk begins", once, talkative.Ends, before)
	heard("talk begins", talkative.Ends, before)
	change("half as much again", none, talkative.Ends, more)
	heard("half as much again", talkative.Ends, before)
	change("and a byte", once, talkative.Ends, beyond)
	heard("and a byte", talkative.Ends, beyond)
	change("a pod went", once, talkative.Ends[1:], beyond)
	heard("a pod went", talkative.Ends[1:], beyond)
	// What is no name is not said: others would refuse what is said with it.
	odd := model.Edge{Local: model.WorkloadOf("shop", "Odd", "a/b"), Remote: shop("web"), Volume: 9}
	change("what is no name", none, append([]model.End{{Workload: shop("x")}}, talkative.Ends[1:]...), append(beyond[:2:2], odd))
	s.wait(3 * time.Second) // the load is due to be repeated
	state.Ends, state.Edges = nil, nil
	_, raws = s.publish(state)
	s.listener.hear(raws)
	heard("all is silent", nil, nil)
}

// noisy gives a name of so many more letters that compress badly.
func noisy(rng *rand.Rand, name string, more int) string {
	b := []byte(name)
	for range more {
		b = append(b, "abcdefghijklmnopqrstuvwxyz0123456789"[rng.Intn(36)])
	}
	return string(b)
}

// As many as a node may tell of, with names of usual and of great length.
func TestMuchTalkFitsIntoPackets(t *testing.T) {
	for _, pad := range []int{0, 100} {
		s, rng := newSpeaker(t), rand.New(rand.NewSource(1))
		var state model.NodeState
		for i := range edges.MostEnds {
			state.Ends = append(state.Ends, end(noisy(rng, fmt.Sprint("service-", i), pad), fmt.Sprint("10.128.33.", 100+i)))
		}
		for i := range edges.Most {
			state.Edges = append(state.Edges, model.Edge{Local: shop(noisy(rng, fmt.Sprint("service-", i), pad)),
				Remote: shop(noisy(rng, fmt.Sprint("backend-", i), pad)), Volume: model.Bytes(1e9 / (1 + i))})
		}
		_, raws := s.publish(state)
		s.listener.hear(raws)
		records, bytes := 0, 0
		for _, raw := range raws {
			if len(raw) > packetRecord {
				t.Errorf("a record of %d bytes", len(raw))
			}
			if !isLoad(raw) && kind(raw[1]) == kindTalk {
				records, bytes = records+1, bytes+len(raw)
			}
		}
		t.Logf("%d ends and %d edges in %d records, %d bytes", len(state.Ends), len(state.Edges), records, bytes)
		if got := s.heard().State; len(got.Ends) != edges.MostEnds || len(got.Edges) != edges.Most {
			t.Errorf("%d ends and %d edges are heard", len(got.Ends), len(got.Edges))
		}
	}
}

// Names that a tenant has chosen so that all edges go into one part, however many parts there are:
// the load is said, and of the edges the heaviest.
func TestNamesDoNotSilenceANode(t *testing.T) {
	s, rng := newSpeaker(t), rand.New(rand.NewSource(1))
	state := calm()
	state.Ends = talkative.Ends
	for len(state.Edges) < edges.Most {
		local, remote := shop(noisy(rng, "", 100)), shop(noisy(rng, "", 100))
		if partOf(edgeName(local, remote), maxParts) == 0 {
			state.Edges = append(state.Edges, model.Edge{Local: local, Remote: remote, Volume: model.Bytes(1000 - len(state.Edges))})
		}
	}
	kinds, raws := s.publish(state)
	s.listener.hear(raws)
	got := s.heard().State
	if kinds[kindLoad] != 1 || got.Load.Used != state.Load.Used || len(got.Ends) != len(state.Ends) {
		t.Errorf("%d loads are said, %v used and %d ends heard", kinds[kindLoad], got.Load.Used, len(got.Ends))
	}
	if n := len(got.Edges); n < 2 || n == edges.Most || cmp.Diff(state.Edges[:n], got.Edges) != "" {
		t.Errorf("%d edges are heard: %v", n, got.Edges)
	}
	s.wait(time.Second)
	s.tells("the same again", state, map[kind]int{})
}

// Pods may have names that no packet is for.
func TestTheLongestNamesAreNotTold(t *testing.T) {
	s := newSpeaker(t)
	long := noisy(rand.New(rand.NewSource(1)), "", 253)
	state := calm()
	state.Ends = append(talkative.Ends[:2:2], end(long, "10.1.0.7"))
	state.Edges = append(talkative.Edges[:2:2], model.Edge{Local: shop(long), Remote: shop(long), Volume: 9e6})
	_, raws := s.publish(state)
	s.listener.hear(raws)
	if got := s.heard().State; cmp.Diff(talkative.Edges, got.Edges) != "" || len(got.Ends) != 3 {
		t.Errorf("heard of %v and %v", got.Ends, got.Edges)
	}
}

func TestTalkThatMakesNoSenseIsRefused(t *testing.T) {
	web, db := shop("web"), shop("db")
	name, odd := edgeName(web, db), model.WorkloadOf("shop", "Deployment", "\x1b[2J")
	long := model.WorkloadOf("shop", "Deployment", strings.Repeat("x", 254))
	addr := netip.MustParseAddr
	for what, test := range map[string]struct {
		name string
		said talking
		want result
	}{
		"an edge":                         {name, talking{Of: web, With: db, Volume: 1}, accepted},
		"an end":                          {"10.1.0.5", talking{Of: web, Also: []netip.Addr{addr("fd00::5")}}, accepted},
		"an edge of the greatest volume":  {name, talking{Of: web, With: db, Volume: edges.MaxVolume}, accepted},
		"an edge of more":                 {name, talking{Of: web, With: db, Volume: edges.MaxVolume + 1}, malformed},
		"an edge of nothing":              {name, talking{Of: web, With: db}, malformed},
		"an edge of less":                 {name, talking{Of: web, With: db, Volume: -1}, malformed},
		"an edge under another's name":    {edgeName(db, web), talking{Of: web, With: db, Volume: 1}, malformed},
		"an edge with addresses":          {name, talking{Of: web, With: db, Volume: 1, Also: []netip.Addr{addr("10.1.0.5")}}, malformed},
		"an edge of nobody":               {edgeName("", db), talking{With: db, Volume: 1}, malformed},
		"an edge to what is no name":      {edgeName(web, odd), talking{Of: web, With: odd, Volume: 1}, malformed},
		"an edge to what has a long name": {edgeName(web, long), talking{Of: web, With: long, Volume: 1}, malformed},
		"an end of nobody":                {"10.1.0.5", talking{}, malformed},
		"an end without address":          {"web", talking{Of: web}, malformed},
		"an address in another form":      {"010.1.0.5", talking{Of: web}, malformed},
		"one that is mapped":              {"::ffff:10.1.0.5", talking{Of: web}, malformed},
		"one with a zone":                 {"fe80::1%eth0", talking{Of: web}, malformed},
		"one of every host":               {"127.0.0.1", talking{Of: web}, malformed},
		"one of many":                     {"ff05::2", talking{Of: web}, malformed},
		"no host's":                       {"0.0.0.0", talking{Of: web}, malformed},
		"a link's beside":                 {"10.1.0.5", talking{Of: web, Also: []netip.Addr{addr("169.254.0.1")}}, malformed},
		"an end with volume":              {"10.1.0.5", talking{Of: web, Volume: 1}, malformed},
		"an end with many addresses":      {"10.1.0.5", talking{Of: web, Also: make([]netip.Addr, maxAddresses)}, malformed},
		"an end with no address beside":   {"10.1.0.5", talking{Of: web, Also: make([]netip.Addr, 1)}, malformed},
	} {
		b := newBench(t, nil)
		id := b.known("n")
		raw := b.seal(id, kindTalk, b.version(), partBody[talking]{Parts: 1, Items: map[string]talking{test.name: test.said}})
		if got := b.ingest(raw); got != test.want {
			t.Errorf("%s: %s, want %s", what, got, test.want)
		}
	}
}

// A part tells of no more than its node may.
func TestPartsOfTooMuchTalkAreRefused(t *testing.T) {
	for n, want := range map[int]result{edges.MostEnds + edges.Most: accepted, edges.MostEnds + edges.Most + 1: malformed} {
		b := newBench(t, nil)
		var state model.NodeState
		for i := range n {
			state.Ends = append(state.Ends, end("web", fmt.Sprint("10.1.0.", i)))
		}
		raw := parts(b, b.known("n"), kindTalk, b.version(), 1, talkingOf(&state))[0]
		if got := b.ingest(raw); got != want {
			t.Errorf("a part of %d: %s, want %s", n, got, want)
		}
	}
}

// Others sum up of one node no more than it may tell; nor does it matter what it says beyond that.
func TestOneNodeTellsOfSoMany(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("n")
	if r := b.ingest(b.registration(id, b.version())); r != accepted {
		t.Fatal(r)
	}
	var state model.NodeState
	for i := range 250 {
		state.Ends = append(state.Ends, end("web", fmt.Sprint("10.1.0.", i)))
		state.Edges = append(state.Edges, model.Edge{Local: shop("web"), Remote: shop(fmt.Sprint("w", i)), Volume: model.Bytes(1 + i)})
	}
	b.heard(parts(b, id, kindTalk, b.version()+1, 64, talkingOf(&state)))
	got, _ := b.store.nodes["n"].whole()
	if len(got.Ends) != edges.MostEnds || len(got.Edges) != edges.Most || got.Edges[0].Volume != 250 {
		t.Errorf("%d ends, %d edges, the first %v", len(got.Ends), len(got.Edges), got.Edges[:1])
	}
}

// The picture knows who talks to whom over all nodes, also when it is drawn node by node, and
// forgets what is forgotten.
func TestThePictureKnowsWhoTalksToWhom(t *testing.T) {
	a := newAudience(t, 3)
	peers := func() []edges.Peer { return a.Snapshot().Talk.Peers(shop("web")) }
	hear := func(of int, s model.NodeState) {
		a.wait(time.Second)
		a.hear([][]byte{parts(a.bench, a.ids[of], kindTalk, a.version(), 1, talkingOf(&s))[0]})
		a.index() // what keepIndex does
	}
	if got := peers(); got != nil {
		t.Fatalf("before anybody said anything %v", got)
	}
	hear(0, talkative)
	hear(1, model.NodeState{Ends: []model.End{end("web", "10.2.0.7")}, Edges: []model.Edge{{Local: shop("web"), Remote: shop("db"), Volume: 4930}}})
	want := []edges.Peer{{Workload: shop("db"), Share: 9930.0 / 10000}, {Workload: shop("cache"), Share: 70.0 / 10000}}
	if diff := cmp.Diff(want, peers()); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]edges.Host{{Node: "n0", Pods: 2}, {Node: "n1", Pods: 1}}, a.Snapshot().Talk.Hosts(shop("web"))); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	before := a.Snapshot().Talk
	a.wait(time.Second)
	a.hearLoad(2)
	a.index()
	if a.Snapshot().Talk != before {
		t.Error("made anew, though nothing was said of it")
	}
	a.mu.Lock()
	a.forget("n0", a.now)
	a.anew = true
	a.draw()
	a.mu.Unlock()
	a.index()
	if diff := cmp.Diff([]edges.Peer{{Workload: shop("db"), Share: 1}}, peers()); diff != "" {
		t.Errorf("peers after a node is forgotten (-want +got):\n%s", diff)
	}
}

// Among many nodes it waits a while, and is not lost.
func TestWhoTalksToWhomIsPutTogetherNowAndThen(t *testing.T) {
	const nodes = 40
	a := newAudience(t, nodes)
	hear := func(of int) {
		a.hear([][]byte{parts(a.bench, a.ids[of], kindTalk, a.version(), 1, talkingOf(&talkative))[0]})
		a.index()
	}
	hosts := func() int { return len(a.Snapshot().Talk.Hosts(shop("web"))) }
	a.wait(time.Second)
	hear(0)
	if hosts() != 1 {
		t.Fatalf("%d nodes are known of one that told", hosts())
	}
	a.wait(nodes * drawSpace)
	hear(1)
	if hosts() != 1 {
		t.Errorf("%d nodes are known at once", hosts())
	}
	a.wait(nodes * indexSpace)
	a.index()
	if hosts() != 2 {
		t.Errorf("%d nodes are known after a while, want 2", hosts())
	}
}
