package gossip

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/location"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

// speaker is a member that does not run: what it says goes to a listener, by hand.
type speaker struct {
	*Gossip
	t        *testing.T
	ca       *identitytest.Authority
	id       *identity.Identity
	now      time.Time
	offset   time.Duration // of its clock
	said     map[slotID]uint64
	listener *Gossip
}

func newSpeaker(t *testing.T) *speaker {
	s := &speaker{t: t, ca: identitytest.NewAuthority(t), now: time.Now(), said: map[slotID]uint64{}}
	s.id = s.ca.Node(t, "a")
	var err error
	if s.Gossip, err = New(Config{Self: s.id.Subject, Identity: func() *identity.Identity { return s.id }, Roots: s.ca.Pool(),
		SecretKey: testKey, Now: func() time.Time { return s.now.Add(s.offset) }}); err != nil {
		t.Fatal(err)
	}
	if s.listener, err = New(Config{Self: identity.Subject{Observer: "o"}, Roots: s.ca.Pool(), SecretKey: testKey,
		Now: func() time.Time { return s.now }}); err != nil {
		t.Fatal(err)
	}
	return s
}

// news are the records that were said since it was asked last.
func (s *speaker) news() (kinds map[kind]int, raws [][]byte) {
	kinds = map[kind]int{}
	for _, certs := range []bool{true, false} {
		for id, version := range s.store.versions() {
			k := s.store.records[id]
			if known, was := s.said[id]; (!was || known != version) && (k.slot.kind == kindCertificate) == certs {
				kinds[k.slot.kind]++
				raws = append(raws, k.raw)
				s.said[id] = version
			}
		}
	}
	return kinds, raws
}

// publish publishes a state that is measured now and gives what was said of it.
func (s *speaker) publish(state model.NodeState) (kinds map[kind]int, raws [][]byte) {
	s.t.Helper()
	state.Load.At = s.now.Add(s.offset)
	if err := s.Publish(state); err != nil {
		s.t.Fatal(err)
	}
	return s.news()
}

func (s *speaker) among(members int) {
	for i := range members {
		s.members[fmt.Sprint(i)] = Member{Alive: true}
	}
}

func (s *speaker) wait(d time.Duration) { s.now = s.now.Add(d) }

// tells holds what is said of a state against how many records of each kind it should be.
func (s *speaker) tells(what string, state model.NodeState, want map[kind]int) {
	s.t.Helper()
	kinds, raws := s.publish(state)
	s.listener.hear(raws)
	if diff := cmp.Diff(want, kinds); diff != "" {
		s.t.Errorf("%s: records said, by kind (-want +got):\n%s", what, diff)
	}
	for _, raw := range raws {
		if len(raw) > packetRecord {
			s.t.Errorf("%s: a record of %d bytes", what, len(raw))
		}
	}
}

func (s *speaker) heard() view.Node {
	s.listener.mu.Lock()
	s.listener.own = true // drawn now, whenever the last was
	s.listener.unlock()
	return s.listener.Snapshot().Nodes["a"]
}

// calm is a state of a node with 63 peers and 100 pods.
func calm() model.NodeState {
	s := model.NodeState{
		Address: "10.0.0.1", BootID: "boot",
		Load: model.Load{
			Allocatable: model.Resources{CPU: 16, Memory: 64 * model.GiB}, Requested: model.Resources{CPU: 4, Memory: model.GiB},
			Used: model.Resources{CPU: 8, Memory: 32 * model.GiB}, Pressure: .1, Pressures: map[model.Resource]float64{model.OnCPU: .1},
		},
		Bandwidth: &model.Bandwidth{Sent: 1e8, Received: 1e8, Capacity: 1e9},
		Routes:    map[model.NodeID]model.RouteTime{}, PodRoutes: map[model.NodeID]model.RouteTime{},
	}
	rng := rand.New(rand.NewSource(1))
	route := func() model.RouteTime {
		return model.RouteTime{RTT: time.Duration(100_000 + rng.Intn(5_000_000)), Spread: time.Duration(rng.Intn(50_000)), Samples: 50, Stamp: model.StampKernel}
	}
	for i := range 63 {
		id := model.NodeID(fmt.Sprintf("node-%03d.example.internal", i))
		s.Routes[id] = route()
		s.PodRoutes[id] = route()
	}
	for i := range 100 {
		s.Pods = append(s.Pods, model.PodID{Namespace: "ns", Name: fmt.Sprintf("web-%08x-%d", rng.Uint32(), i),
			UID: fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", rng.Uint32(), rng.Intn(1<<16), rng.Intn(1<<12), rng.Intn(1<<12), rng.Int63n(1<<48))})
	}
	return s
}

func TestOnlyWhatChangesIsSaid(t *testing.T) {
	s := newSpeaker(t)
	state := calm()
	first, raws := s.publish(state)
	s.listener.hear(raws)
	for k, n := range map[kind]int{kindCertificate: 1, kindRegistration: 1, kindLoad: 1} {
		if first[k] != n {
			t.Errorf("%d records of kind %d at first, want %d", first[k], k, n)
		}
	}
	if first[kindRoutes] < 2 || first[kindPods] < 2 || first[kindSuffering] != 0 {
		t.Fatalf("at first %v: want several parts, and no suffering", first)
	}
	none := map[kind]int{}
	rng := rand.New(rand.NewSource(2))
	for range 8 { // all swings within its band
		s.wait(time.Second)
		swing := calm()
		swing.Load.Used.CPU += model.Cores(.7 * (2*rng.Float64() - 1))
		swing.Load.Pressure += .04 * (2*rng.Float64() - 1)
		swing.Load.Pressures[model.OnCPU] = swing.Load.Pressure
		swing.Bandwidth.Sent *= model.Rate(.8 + .4*rng.Float64())
		for id, r := range swing.Routes {
			r.RTT += r.RTT * time.Duration(rng.Intn(24)-12) / 100
			r.Samples -= rng.Intn(20)
			swing.Routes[id] = r
		}
		s.tells("within the bands", swing, none)
	}
	state.Load.Used.CPU += 2
	s.tells("more CPU", state, map[kind]int{kindLoad: 1})
	state.Bandwidth = &model.Bandwidth{Sent: 3e8, Received: 1e8, Capacity: 1e9}
	s.wait(time.Second)
	s.tells("more bandwidth", state, map[kind]int{kindLoad: 1})
	s.wait(time.Second)
	s.tells("nothing", state, none)
	state.CannotRestore = "CRIU is gone"
	s.tells("cannot restore", state, map[kind]int{kindRegistration: 1})
	s.wait(4 * time.Second)
	state.Routes = maps.Clone(state.Routes)
	r := state.Routes["node-007.example.internal"]
	r.RTT *= 2
	state.Routes["node-007.example.internal"] = r
	s.tells("a longer way", state, map[kind]int{kindRoutes: 1})
	s.wait(time.Second)
	state.Pods = append(state.Pods[1:], model.PodID{Namespace: "ns", Name: "new", UID: state.Pods[0].UID[:35] + "x"})
	went := s.Gossip.said.pods
	parts := map[int]bool{partOf(state.Pods[99].UID, went.parts): true, partOf(calm().Pods[0].UID, went.parts): true}
	s.tells("a pod went, another came", state, map[kind]int{kindPods: len(parts)})
	got := s.heard()
	if len(got.State.Pods) != 100 || len(got.State.PodRoutes) != 63 || got.State.CannotRestore == "" || got.State.Routes["node-007.example.internal"].RTT != r.RTT {
		t.Errorf("heard of %d pods and %d routes, cannot restore: %q", len(got.State.Pods), len(got.State.PodRoutes), got.State.CannotRestore)
	}
	if b := got.State.Bandwidth; b == nil || b.Capacity != 1e9 || b.Sent < 2.9e8 || got.State.Load.Allocatable != state.Load.Allocatable {
		t.Errorf("heard of bandwidth %+v and %+v allocatable", b, got.State.Load.Allocatable)
	}
}

// A load that stays is repeated so often that two of three may be lost, among 1,000 members one
// of two, among more none; nothing else is repeated.
func TestALiveNodeIsNotStale(t *testing.T) {
	for _, test := range []struct {
		members, heard int // one of so many is heard
		every          time.Duration
	}{{3, 3, repeatLoad}, {600, 3, repeatLoad}, {1000, 2, 1000 * repeatSpacing}, {20_000, 1, longestRepeat}} {
		s := newSpeaker(t)
		s.offset = time.Hour // its clock matters to nobody
		s.among(test.members)
		state := calm()
		answered := func(ago time.Duration) {
			for id, r := range state.Routes {
				r.At = s.now.Add(s.offset - ago)
				state.Routes[id] = r
			}
		}
		answered(200 * time.Millisecond)
		_, raws := s.publish(state)
		s.listener.hear(raws)
		loads := 0
		for range 630 {
			s.wait(time.Second)
			answered(300 * time.Millisecond) // nobody is told, and it stands as it was
			kinds, raws := s.publish(state)
			if len(raws) != kinds[kindLoad] {
				t.Fatalf("said %v, want loads alone", kinds)
			}
			if loads += len(raws); loads%test.heard == 0 {
				s.listener.hear(raws)
			}
			n := s.heard()
			limit := placement.Defaults().StaleAfter
			if age, ok := n.Age(s.now); !ok || age >= limit {
				t.Fatalf("among %d members the node is %v old, known %v, want less than %v", test.members, age, ok, limit)
			}
			age, ok := n.RouteAge(model.PathNode, "node-007.example.internal", s.now)
			load, _ := n.Age(s.now)
			if !ok || age != load+200*time.Millisecond {
				t.Fatalf("a route is %v old, known %v, want the load's %v and 200 ms", age, ok, load)
			}
		}
		if want := int(630 * time.Second / test.every); loads != want {
			t.Errorf("among %d members %d loads in 630 s, want %d", test.members, loads, want)
		}
	}
}

func TestWhatIsGraveGoesAtOnce(t *testing.T) {
	s := newSpeaker(t)
	state := calm()
	s.publish(state)
	suffers := func(g model.Grade, uid string) []model.Contention {
		return []model.Contention{{Pod: model.PodID{UID: uid}, Grade: g, Wait: .6}}
	}
	const soon = 10 * time.Millisecond
	state.Suffering = suffers(model.Tight, "1")
	s.tells("tight, the first", state, map[kind]int{kindSuffering: 1})
	s.wait(soon)
	state.Suffering = suffers(model.Tight, "2")
	s.tells("another is tight a moment later", state, map[kind]int{})
	s.wait(soon)
	state.Suffering = suffers(model.Severe, "2")
	s.tells("it is severe", state, map[kind]int{kindSuffering: 1})
	s.wait(soon)
	state.Suffering = nil
	s.tells("it is over", state, map[kind]int{kindSuffering: 1})
	if n := s.heard(); len(n.State.Suffering) != 0 {
		t.Errorf("heard of %v", n.State.Suffering)
	}
}

func TestWhatIsPutOffIsSaid(t *testing.T) {
	s := newSpeaker(t)
	state := calm()
	s.publish(state)
	state.Load.Used.CPU, state.Routes = 1, nil
	s.wait(10 * time.Millisecond)
	s.tells("changed a moment later", state, map[kind]int{})
	s.wait(longestPart)
	s.Gossip.mu.Lock()
	s.sayOwed()
	s.Gossip.unlock()
	kinds, _ := s.news()
	if kinds[kindLoad] != 1 || kinds[kindRoutes] == 0 {
		t.Errorf("said %v later, want the load and the routes", kinds)
	}
	s.Gossip.mu.Lock()
	s.sayOwed()
	s.Gossip.unlock()
	if kinds, _ := s.news(); len(kinds) != 0 {
		t.Errorf("said %v again", kinds)
	}
}

// The more members, the longer what changes without end is put off.
func TestWhatChangesWithoutEnd(t *testing.T) {
	for members, want := range map[int]int{3: 60, 1000: 30, 20000: 60 / 4} {
		s := newSpeaker(t)
		s.among(members)
		state, loads := calm(), 0
		s.publish(state)
		for i := range 60 {
			s.wait(time.Second)
			state.Load.Used.CPU = model.Cores(i)
			kinds, _ := s.publish(state)
			loads += kinds[kindLoad]
		}
		if loads != want {
			t.Errorf("among %d members a load that changes for 60 s was said %d times, want %d", members, loads, want)
		}
	}
}

// With a new key all is said again: what the old one has signed counts no longer than its certificate.
func TestAnotherKeySaysAllAgain(t *testing.T) {
	s := newSpeaker(t)
	state := calm()
	state.Suffering = []model.Contention{{Grade: model.Tight}}
	state.Ends, state.Edges = talkative.Ends, talkative.Edges
	first, raws := s.publish(state)
	s.listener.hear(raws)
	s.wait(time.Millisecond)
	s.id = s.ca.Node(t, "a")
	s.tells("with another key", state, first)
	want, got := state, s.heard().State
	if len(got.Routes) != len(want.Routes) || len(got.Pods) != len(want.Pods) || len(got.Suffering) != 1 || len(got.Edges) != len(want.Edges) {
		t.Errorf("heard of %d routes, %d pods, %d suffering, %d edges", len(got.Routes), len(got.Pods), len(got.Suffering), len(got.Edges))
	}
	key := mustKey(s.id)
	for _, k := range s.store.records {
		if k.slot.kind != kindCertificate && k.slot.kind != kindLoad && keyID(k.raw[2:18]) != key {
			t.Errorf("record %v is signed with the old key", k.slot)
		}
	}
	s.wait(time.Millisecond)
	state.Suffering = nil
	s.id = s.ca.Node(t, "a")
	s.tells("with a third, and nobody suffers", state, first)
	if got := s.heard().State.Suffering; len(got) != 0 {
		t.Errorf("heard of %v suffering", got)
	}
}

// As pods come, the parts get more, each of one packet, and others know the same pods all the while.
func TestPodsThatComeAndGo(t *testing.T) {
	s := newSpeaker(t)
	rng := rand.New(rand.NewSource(3))
	state := model.NodeState{}
	var pods []model.PodID
	for i := range 600 {
		pods = append(pods, model.PodID{Namespace: fmt.Sprint("team-", rng.Intn(9)), Name: fmt.Sprintf("app-%x", rng.Uint64()), UID: fmt.Sprintf("%x-%d", rng.Uint64(), i)})
	}
	for _, n := range []int{0, 1, 5, 30, 100, 600, 100, 1, 0, 7} {
		s.wait(time.Minute)
		state.Pods = pods[:n:n]
		_, raws := s.publish(state)
		s.listener.hear(raws)
		got := s.heard().State.Pods
		want := append([]model.PodID(nil), state.Pods...)
		sortPods(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%d pods (-said +heard):\n%s", n, diff)
		}
		for _, raw := range raws {
			if len(raw) > packetRecord {
				t.Fatalf("a record of %d bytes", len(raw))
			}
		}
		for _, p := range state.Pods {
			byUID, byName := location.Find(s.listener.Snapshot(), p.Namespace, p.UID, nil), location.Find(s.listener.Snapshot(), p.Namespace, p.Name, nil)
			if len(byUID) != 1 || len(byName) != 1 || byUID[0].Node != "a" || byUID[0].Pod != p || byName[0].Pod != p {
				t.Fatalf("pod %v is at %+v by its UID, %+v by its name", p, byUID, byName)
			}
		}
	}
}

func sortPods(pods []model.PodID) { slices.SortFunc(pods, model.ComparePods) }

// A clock that goes back silences nobody, and makes nothing look old or new.
func TestAClockThatGoesBack(t *testing.T) {
	s := newSpeaker(t)
	state := calm()
	for id, r := range state.Routes {
		r.At = s.now.Add(-time.Second)
		state.Routes[id] = r
	}
	_, raws := s.publish(state)
	s.listener.hear(raws)
	s.offset = -2 * time.Hour
	for i := range 3 {
		s.wait(time.Second)
		state.Load.Used.CPU = model.Cores(i)
		s.tells("another load", state, map[kind]int{kindLoad: 1})
		n := s.heard()
		if n.State.Load.Used.CPU != model.Cores(i) || !n.State.Load.At.Equal(s.now.Add(s.offset).Truncate(loadUnit)) {
			t.Errorf("heard of %v cores measured at %v, want %d at %v", n.State.Load.Used.CPU, n.State.Load.At, i, s.now.Add(s.offset))
		}
		if age, ok := n.RouteAge(model.PathNode, "node-001.example.internal", s.now); !ok || age != time.Second {
			t.Errorf("a route is %v old, %v; want what it was", age, ok)
		}
	}
}

// Every record of an earlier life that comes back with a later version is outdone, whatever it is.
func TestOutdoesEveryRecordOfItsPast(t *testing.T) {
	for name, ghost := range map[string]func(*bench, *identity.Identity, uint64) []byte{
		"load": func(b *bench, id *identity.Identity, v uint64) []byte { return b.load(id, v, typicalLoad()) },
		"pods": func(b *bench, id *identity.Identity, v uint64) []byte {
			return parts(b, id, kindPods, v, 1, podsOf(77))[0]
		},
		"another part": func(b *bench, id *identity.Identity, v uint64) []byte {
			return parts(b, id, kindRoutes, v, 64, map[string]waysTo{"x": {Node: &way{}}})[partOf("x", 64)]
		},
		"talk": func(b *bench, id *identity.Identity, v uint64) []byte {
			return parts(b, id, kindTalk, v, 1, talkingOf(&talkative))[0]
		},
		"suffering": func(b *bench, id *identity.Identity, v uint64) []byte {
			return b.seal(id, kindSuffering, v, []model.Contention{{Grade: model.Severe}})
		},
	} {
		s := newSpeaker(t)
		state := calm()
		_, first := s.publish(state)
		past := s.ca.Node(t, "a")
		b := &bench{t: t, ca: s.ca, store: s.store, now: s.now}
		raws := [][]byte{b.certificate(past), ghost(b, past, uint64(s.now.Add(time.Hour).UnixNano()))}
		s.hear(raws)
		_, again := s.news()
		s.listener.hear(append(append(first, raws...), again...))
		got := s.heard().State
		if got.Load.Used != state.Load.Used || len(got.Pods) != 100 || len(got.Routes) != 63 || len(got.Suffering) != 0 || len(got.Edges) != 0 {
			t.Errorf("%s: heard of %v used, %d pods, %d routes, %v, %v", name, got.Load.Used, len(got.Pods), len(got.Routes), got.Suffering, got.Edges)
		}
	}
}

// What a node says is the sum of a few small records.
func TestSizes(t *testing.T) {
	s := newSpeaker(t)
	_, raws := s.publish(calm())
	of := map[kind][]int{}
	for _, raw := range raws {
		k := kind(raw[1])
		if isLoad(raw) {
			k = kindLoad
		}
		of[k] = append(of[k], len(raw))
	}
	t.Log("bytes of the records of a node with 63 peers and 100 pods, by kind:", of)
	if len(of[kindLoad]) != 1 || of[kindLoad][0] > 90 {
		t.Errorf("loads of %v bytes, want one of at most 90", of[kindLoad])
	}
}

// TestTheWorstIsSaid of more containers in contention than others take.
func TestTheWorstIsSaid(t *testing.T) {
	s := newSpeaker(t)
	state := calm()
	for i := range 2 * maxSuffering {
		state.Suffering = append(state.Suffering, model.Contention{Container: fmt.Sprint(i), Wait: float64(i) / (2 * maxSuffering)})
	}
	_, raws := s.publish(state)
	s.listener.hear(raws)
	got := s.heard().State.Suffering
	if len(got) != maxSuffering {
		t.Fatalf("%d are told, want %d", len(got), maxSuffering)
	}
	for _, c := range got {
		if c.Wait < 0.5 {
			t.Errorf("container %s is told, whose wait is %v", c.Container, c.Wait)
		}
	}
}

// TestAClockThatWasFarAhead: what was said by it was refused by all, so that nothing has to be outdone.
func TestAClockThatWasFarAhead(t *testing.T) {
	for name, first := range map[string]time.Duration{"since the start": 3 * maxAhead, "for a while": 0} {
		t.Run(name, func(t *testing.T) {
			s := newSpeaker(t)
			for i, offset := range []time.Duration{first, 3 * maxAhead, 0} {
				s.offset = offset
				s.wait(time.Minute)
				state := calm()
				state.BootID = fmt.Sprint(i)
				err := s.Publish(state)
				if refused := err != nil; refused != (offset > 0) {
					t.Fatalf("with a clock %v ahead: %v", offset, err)
				}
			}
			_, raws := s.news()
			s.listener.hear(raws)
			if got := s.heard(); got.State.BootID != "2" || got.Received.IsZero() {
				t.Errorf("others know %+v", got)
			}
		})
	}
}
