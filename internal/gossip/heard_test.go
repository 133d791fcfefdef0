package gossip

import (
	"bytes"
	"testing"

	"github.com/drover-project/drover/internal/model"
)

// What was verified is known by its bytes, all of them: with one changed it is looked at anew.
func TestHeardAgainIsKnownByItsBytes(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("a")
	v := b.version()
	for what, raw := range map[string][]byte{
		"state":  b.state(id, v),
		"routes": b.seal(id, kindRoutes, v, routesBody{Part: 1, Parts: 2, Routes: ways(3, 1000)}),
	} {
		r, err := open(raw)
		if err != nil {
			t.Fatal(err)
		}
		entry := b.store.nodes["a"]
		if _, is := entry.has(r); is {
			t.Errorf("%s is known before it was heard", what)
		}
		first, _, became := b.store.ingest(raw, b.now)
		if became != accepted {
			t.Fatalf("%s: %s", what, became)
		}
		if at, is := entry.has(r); !is || at != first {
			t.Errorf("%s heard again: %v, %t; want %v", what, at, is, first)
		}
		if at, version, became := b.store.ingest(raw, b.now); at != first || version != v || became != duplicate {
			t.Errorf("%s heard again: %v, version %d, %s; want %v, %d, %s", what, at, version, became, first, v, duplicate)
		}
		forged := bytes.Clone(raw)
		forged[len(forged)-1] ^= 1
		if became := b.ingest(forged); became != badSignature {
			t.Errorf("%s with another signature: %s, want %s", what, became, badSignature)
		}
	}
}

// What one record costs that was heard before, as most are.
func BenchmarkHeardAgain(b *testing.B) {
	bench := newBench(&testing.T{}, nil)
	id := bench.known("a")
	s := model.NodeState{Node: "a", Version: bench.version()}
	raw := bench.seal(id, kindState, s.Version, stateBody{NodeState: s})
	if became := bench.ingest(raw); became != accepted {
		b.Fatal(became)
	}
	for b.Loop() {
		if became := bench.ingest(raw); became != duplicate {
			b.Fatal(became)
		}
	}
}
