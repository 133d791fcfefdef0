package gossip

import (
	"bytes"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

func FuzzIngest(f *testing.F) {
	ca := identitytest.NewAuthority(f)
	id := ca.Node(f, "n")
	codec, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	cert, err := seal(id, kindCertificate, certificateVersion(id.Cert), id.Cert.Raw)
	if err != nil {
		f.Fatal(err)
	}
	b := bench{t: f, store: newStore(ca.Pool(), codec, nil)}
	raws := [][]byte{
		b.registration(id, 1), b.load(id, uint64(loadUnit), typicalLoad()),
		b.seal(id, kindRoutes, 1, partBody[waysTo]{Parts: 1, Items: map[string]waysTo{"m": {Node: &way{RTT: 1}}}}),
		b.seal(id, kindPods, 1, partBody[podName]{Parts: 1, Items: map[string]podName{"uid": {"ns", "pod"}}}),
		b.seal(id, kindSuffering, 1, []model.Contention{{Container: "c"}}),
		b.seal(id, kindTalk, 1, partBody[talking]{Parts: 1, Items: talkingOf(&talkative)}),
	}
	for _, raw := range append(raws, cert, nil, []byte{wireFormat}) {
		f.Add(raw, byte(0))
		for k := kindLocation; k <= kindTalk; k++ {
			f.Add(raw[:len(raw)/2], byte(k))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, k byte) {
		now := time.Now()
		s := newStore(ca.Pool(), codec, nil)
		s.ingest(cert, now)
		s.ingest(in, now)
		// The same bytes as the body of a load.
		raw, err := sealLoad(id, uint64(now.UnixNano()), saidLoad{})
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw[:loadHeader:loadHeader], in...)
		raw[0] = wireLoad | k&loadFlags
		raw = append(raw, id.Sign(signedLoad(mustKey(id), "n", raw))...)
		if _, _, got := s.ingest(raw, now); got == accepted {
			l := s.nodes["n"].load
			if flags, again := encodeLoad(l.version, l.saidLoad); flags != k&loadFlags || !bytes.Equal(again, in) {
				t.Fatalf("%x %x is a load that encodes as %x %x", k, in, flags, again)
			}
		}
		// The same bytes as a body that the node itself has signed.
		if raw, err := seal(id, kind(k), uint64(now.UnixNano()), in); err == nil && kind(k) != kindLoad {
			if r, err := open(raw); err != nil || !bytes.Equal(r.body, in) || r.version != uint64(now.UnixNano()) || r.origin != "n" {
				t.Fatalf("a sealed record opens as %+v, %v", r, err)
			}
			s.ingest(raw, now)
		}
		s.confirmedPlaces()
		for _, e := range s.nodes {
			e.whole()
			ends, heaviest := talkOf(together(e.talk))
			if state := (model.NodeState{Ends: ends, Edges: heaviest}); len(ends) > edges.MostEnds || len(heaviest) > edges.Most ||
				len(talkingOf(&state)) != len(ends)+len(heaviest) {
				t.Fatalf("heard of talk that cannot be said: %+v", state)
			}
		}
	})
}
