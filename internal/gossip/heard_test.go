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
		"registration": b.registration(id, v),
		"load":         b.load(id, v, typicalLoad()),
		"suffering":    b.seal(id, kindSuffering, v, []model.Contention{{Container: "c"}}),
		"routes":       b.seal(id, kindRoutes, v, partBody[waysTo]{Parts: 1, Items: map[string]waysTo{"m": {Node: &way{RTT: 1000}}}}),
		"pods":         b.seal(id, kindPods, v, partBody[podName]{Parts: 1, Items: map[string]podName{"uid": {"ns", "pod"}}}),
		"talk":         b.seal(id, kindTalk, v, partBody[talking]{Parts: 1, Items: talkingOf(&talkative)}),
	} {
		r, err := open(raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, is := b.store.has(r); is {
			t.Errorf("%s is known before it was heard", what)
		}
		first, _, became := b.store.ingest(raw, b.now)
		if became != accepted {
			t.Fatalf("%s: %s", what, became)
		}
		if at, is := b.store.has(r); !is || at != first {
			t.Errorf("%s heard again: %v, %t; want %v", what, at, is, first)
		}
		if at, version, became := b.store.ingest(raw, b.now); at != first || version != r.version || became != duplicate {
			t.Errorf("%s heard again: %v, version %d, %s; want %v, %d, %s", what, at, version, became, first, r.version, duplicate)
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
	raw := bench.load(id, bench.version(), typicalLoad())
	if became := bench.ingest(raw); became != accepted {
		b.Fatal(became)
	}
	for b.Loop() {
		if became := bench.ingest(raw); became != duplicate {
			b.Fatal(became)
		}
	}
}
