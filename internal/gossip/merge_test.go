package gossip

import (
	"fmt"
	"iter"
	"math/rand"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
)

// history is what some nodes say over two lives each, in the order in which they say it.
func history(b *bench, rng *rand.Rand) (certificates, said [][]byte) {
	for n := range 3 {
		id := b.ca.Node(b.t, model.NodeID(fmt.Sprint("n", n)))
		certificates = append(certificates, b.certificate(id))
		version := b.version() - uint64(time.Hour)
		for life := range 2 {
			said = append(said, live(b, rng, id, &version, life)...)
		}
	}
	return certificates, said
}

func live(b *bench, rng *rand.Rand, id *identity.Identity, version *uint64, life int) (said [][]byte) {
	next := func() uint64 {
		*version += uint64(1 + rng.Intn(int(time.Second)))
		return *version
	}
	since := next()
	register := func() {
		v := next()
		said = append(said, b.seal(id, kindRegistration, v, registrationBody{model.NodeState{Node: id.Subject.Node, BootID: fmt.Sprint(life, v), Version: v}, since}))
	}
	register()
	for range 12 {
		some := podsOf(rng.Perm(12)[:rng.Intn(12)]...)
		split := 1 << (life + rng.Intn(2))
		switch rng.Intn(7) {
		case 0:
			register()
		case 1:
			l := typicalLoad()
			l.load.Used.CPU = model.Cores(rng.Intn(100))
			*version = (*version/uint64(loadUnit) + 2) * uint64(loadUnit)
			said = append(said, b.load(id, *version, l))
		case 2:
			said = append(said, b.seal(id, kindSuffering, next(), []model.Contention{{Wait: rng.Float64()}}))
		case 3:
			for _, raw := range parts(b, id, kindPods, next(), split, some) {
				said = append(said, raw)
			}
		case 4:
			ways := map[string]waysTo{}
			for uid := range some {
				ways[uid] = waysTo{Node: &way{RTT: time.Duration(rng.Intn(1e6))}}
			}
			for _, raw := range parts(b, id, kindRoutes, next(), split, ways) {
				said = append(said, raw)
			}
		case 5:
			for _, raw := range parts(b, id, kindTalk, next(), split, talkOfSome(rng)) {
				said = append(said, raw)
			}
		case 6:
			if id.Subject.Node != "n2" {
				said = append(said, b.seal(id, kindLocation, next(), testLocation("lineage", "n0", "n1", uint64(1+rng.Intn(4)))))
			}
		}
	}
	return said
}

// heard is what a store says, but for when it heard it.
type heard struct {
	Nodes  map[model.NodeID]model.NodeState
	Places []model.Location
}

func picture(s *store) heard {
	all := heard{map[model.NodeID]model.NodeState{}, s.confirmedPlaces()}
	for id, e := range s.nodes {
		if state, ok := e.whole(); ok {
			all.Nodes[id] = state
		}
	}
	return all
}

func versions(s *store) map[slotID]uint64 {
	all := map[slotID]uint64{}
	for id, v := range s.versions() {
		all[id] = v
	}
	return all
}

func (b *bench) another() *bench {
	return &bench{t: b.t, ca: b.ca, now: b.now, store: newStore(b.ca.Pool(), b.store.codec, nil)}
}

// Of the same records every order makes the same picture, with some of them any number of times.
func TestMergeCommutes(t *testing.T) {
	for seed := range int64(20) {
		rng := rand.New(rand.NewSource(seed))
		b := newBench(t, nil)
		certificates, said := history(b, rng)
		for _, raw := range append(certificates, said...) {
			if r := b.ingest(raw); r != accepted {
				t.Fatalf("seed %d: in order: %s", seed, r)
			}
		}
		for range 10 {
			other := b.another()
			for _, raw := range certificates {
				other.ingest(raw)
			}
			order := append(rng.Perm(len(said)), rng.Perm(len(said))[:len(said)/2]...)
			rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, i := range order {
				other.ingest(said[i])
			}
			if diff := cmp.Diff(picture(b.store), picture(other.store), sameAddress); diff != "" {
				t.Fatalf("seed %d: (-in order +in another)\n%s", seed, diff)
			}
			if diff := cmp.Diff(versions(b.store), versions(other.store)); diff != "" {
				t.Fatalf("seed %d: records held (-in order +in another)\n%s", seed, diff)
			}
			other.consistent()
		}
	}
}

// Members that have lost different records compare what they hold, hand over what is newer,
// and agree: what nobody has lost everywhere is everywhere.
func TestMembersAgreeByTheirVersions(t *testing.T) {
	for seed := range int64(20) {
		rng := rand.New(rand.NewSource(seed))
		b := newBench(t, nil)
		certificates, said := history(b, rng)
		all := append(certificates, said...)
		members := []*bench{b.another(), b.another(), b.another()}
		for _, raw := range certificates {
			members[0].ingest(raw)
		}
		for _, raw := range all {
			b.ingest(raw)
			if rng.Intn(2) == 0 { // by whoever has the certificate
				members[rng.Intn(len(members))].ingest(raw)
			}
		}
		for id := range b.store.versions() { // what is newest somebody has heard
			raw, _ := b.store.get(id)
			members[0].ingest(raw)
		}
		for changed, rounds := true, 0; changed; rounds++ {
			if rounds > 10 {
				t.Fatalf("seed %d: still handing records over after %d rounds", seed, rounds)
			}
			changed = false
			for _, from := range members {
				for _, to := range members {
					changed = handOver(from, to) || changed
				}
			}
		}
		for i, m := range members {
			m.consistent()
			if diff := cmp.Diff(picture(b.store), picture(m.store), sameAddress); diff != "" {
				t.Fatalf("seed %d: (-who has heard all +member %d)\n%s", seed, i, diff)
			}
		}
	}
}

// handOver gives to one what it lacks of what another holds, certificates first.
func handOver(from, to *bench) (changed bool) {
	var later [][]byte
	for id, version := range from.store.versions() {
		if !to.store.newer(id, version) {
			continue
		}
		raw, held := from.store.get(id)
		if !held {
			from.t.Fatalf("slot %x is among the versions, but is not held", id)
		}
		if kind(raw[1]) == kindCertificate && raw[0] == wireFormat {
			changed = to.ingest(raw) == accepted || changed
		} else {
			later = append(later, raw)
		}
	}
	for _, raw := range later {
		changed = to.ingest(raw) == accepted || changed
	}
	return changed
}

// consistent holds the index of records against what the nodes' entries hold.
func (b *bench) consistent() {
	b.t.Helper()
	n, certs := 0, 0
	for _, e := range b.store.nodes {
		for k := range e.each {
			n++
			if k != b.store.records[k.id] || k.id != k.slot.id() {
				b.t.Fatalf("record %v is not the one of its slot", k.slot)
			}
		}
		certs += len(e.certs)
	}
	if n != len(b.store.records) {
		b.t.Fatalf("%d records are held, %d are known", n, len(b.store.records))
	}
	for _, cs := range b.store.keys {
		certs -= len(cs)
	}
	if certs != 0 {
		b.t.Fatalf("%d more certificates are held than known by their keys", certs)
	}
}

func TestVersions(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("a")
	v := b.version()
	at, _, got := b.store.ingest(b.registration(id, v), b.now)
	if got != accepted {
		t.Fatal(got)
	}
	if n := versions(b.store); len(n) != 2 || n[at.id()] != v {
		t.Errorf("versions %v, want the certificate's and %d of %x", n, v, at.id())
	}
	if raw, held := b.store.get(at.id()); !held || string(raw) != string(b.registration(id, v)) {
		t.Errorf("the registration is held: %v, as %x", held, raw)
	}
	if _, held := b.store.get(1); held {
		t.Error("a record of a slot that nobody has is held")
	}
	for version, want := range map[uint64]bool{v - 1: false, v: false, v + 1: true} {
		if got := b.store.newer(at.id(), version); got != want {
			t.Errorf("version %d after %d is newer: %v, want %v", version, v, got, want)
		}
	}
	if !b.store.newer(1, 0) {
		t.Error("a record of a slot that is not held is not newer")
	}
	if x, y := (slot{kindPods, "a", "1"}).id(), (slot{kindPods, "a1", ""}).id(); x == y {
		t.Error("two slots have one ID")
	}
	b.now = b.now.Add(2 * deadRetention)
	b.store.sweep(b.now, func(model.NodeID) bool { return false })
	if n := versions(b.store); len(n) != 1 {
		t.Errorf("%d records of a node that is gone are held, want its certificate", len(n))
	}
	b.consistent()
}

// versions goes through what is held: the version of every slot, for members to compare.
func (s *store) versions() iter.Seq2[slotID, uint64] {
	return func(yield func(slotID, uint64) bool) {
		for id, k := range s.records {
			if !yield(id, k.version) {
				return
			}
		}
	}
}

// newer tells whether a record of that version would be newer than what is held. It may be
// refused all the same: nothing of it was verified.
func (s *store) newer(id slotID, version uint64) bool {
	k, held := s.records[id]
	return !held || version > k.version
}
