package gossip

import (
	"testing"
	"time"

	"github.com/drover-project/drover/internal/spread"
)

// A member floods versions of its own load: after a while they count no more, and others' do.
func TestFloodOfVersionsIsBounded(t *testing.T) {
	b := newBench(t, nil)
	bad, good := b.known("bad"), b.known("good")
	version := b.version() / uint64(loadUnit) * uint64(loadUnit)
	flood := func(n int) (all map[result]int) {
		all = map[result]int{}
		for range n {
			version += uint64(loadUnit)
			all[b.ingest(b.load(bad, version, typicalLoad()))]++
		}
		return all
	}
	size := len(b.load(bad, version, typicalLoad())) + saidEach
	got := flood(saidAtOnce/size + 1000)
	if most := saidAtOnce / size; got[accepted] > most || got[accepted] < most-10 || got[limited] < 1000 {
		t.Errorf("%v of a flood, want %d accepted and the rest limited", got, most)
	}
	if r := b.ingest(b.load(good, version, typicalLoad())); r != accepted {
		t.Errorf("another's load during the flood: %s", r)
	}
	if r := b.ingest(b.load(bad, version-uint64(time.Hour), typicalLoad())); r != stale && r != limited {
		t.Errorf("an old load during the flood: %s", r)
	}
	b.now = b.now.Add(10 * time.Second)
	if got, most := flood(2000), 10*saidRate/size; got[accepted] > most+1 || got[accepted] < most-1 {
		t.Errorf("%v ten seconds later, want %d accepted", got, most)
	}
	b.now = b.now.Add(time.Second)
	if r := b.ingest(b.load(bad, version, typicalLoad())); r != accepted {
		t.Errorf("the newest of the flood when there is room again: %s", r)
	}
}

// Whoever replays a node's old records, or forges its name, takes nothing from what it may say.
func TestOthersSpendNoAllowance(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("good")
	v := b.version() / uint64(loadUnit) * uint64(loadUnit)
	old, last := b.load(id, v, typicalLoad()), b.load(id, v+uint64(loadUnit), typicalLoad())
	forged := b.load(id, v+2*uint64(loadUnit), typicalLoad())
	forged[len(forged)-1] ^= 1
	if r := b.ingest(last); r != accepted {
		t.Fatal(r)
	}
	before := b.store.nodes["good"].allowance.left
	for raw, want := range map[string]result{string(old): stale, string(last): duplicate, string(forged): badSignature} {
		if r := b.ingest([]byte(raw)); r != want {
			t.Errorf("%s, want %s", r, want)
		}
	}
	if left := b.store.nodes["good"].allowance.left; left != before {
		t.Errorf("%d bytes left, want %d", left, before)
	}
}

// What is limited is passed on to nobody, but a node is not limited in what it says itself.
func TestLimitedIsNotPassedOn(t *testing.T) {
	s := newSpeaker(t)
	b := &bench{t: t, ca: s.ca, store: s.store, now: s.now}
	id := b.known("other")
	raw := b.load(id, b.version()/uint64(loadUnit)*uint64(loadUnit), typicalLoad())
	b.store.nodes["other"].allowance = allowance{filled: s.now}
	if _, _, v := (carried{s.Gossip}).Take(raw); v != spread.Refused {
		t.Errorf("what is beyond the allowance: %d, want %d", v, spread.Refused)
	}
	s.publish(calm())
	s.store.nodes[s.cfg.Self.Node].allowance = allowance{filled: s.now}
	state := calm()
	state.BootID = "another"
	if kinds, _ := s.publish(state); kinds[kindRegistration] != 1 {
		t.Errorf("own words beyond the allowance: %v", kinds)
	}
}
