package gossip

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

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
	raws, err := codec.sealState(id, model.NodeState{Node: "n", Version: 1, Routes: map[model.NodeID]model.RouteTime{"m": {}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, raw := range append(raws, cert, nil, []byte{wireFormat}) {
		f.Add(raw, byte(0))
		f.Add(raw[:len(raw)/2], byte(kindLocation))
	}
	f.Fuzz(func(t *testing.T, b []byte, k byte) {
		now := time.Now()
		s := newStore(ca.Pool(), codec, nil)
		s.ingest(cert, now)
		s.ingest(b, now)
		// The same bytes as a body that the node itself has signed.
		if raw, err := seal(id, kind(k), uint64(now.UnixNano()), b); err == nil {
			if r, err := open(raw); err != nil || !bytes.Equal(r.body, b) || r.version != uint64(now.UnixNano()) || r.origin != "n" {
				t.Fatalf("a sealed record opens as %+v, %v", r, err)
			}
			s.ingest(raw, now)
		}
		s.confirmedPlaces()
		for _, e := range s.nodes {
			e.whole()
		}
		raws, _ := splitRecords(b)
		if joined := joinRecords(raws); !bytes.HasPrefix(minimal(b), joined) {
			t.Fatalf("%x split and joined is %x", b, joined)
		}
		if back, whole := splitRecords(joinRecords(s.all())); !whole || len(back) != len(s.all()) {
			t.Fatal("a push/pull loses records")
		}
	})
}

// minimal rewrites the lengths in b in their shortest form, since varints have several.
func minimal(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		head, rest, ok := cut(b, maxRecord)
		if !ok {
			break
		}
		out = append(binary.AppendUvarint(out, uint64(len(head))), head...)
		b = rest
	}
	return out
}
