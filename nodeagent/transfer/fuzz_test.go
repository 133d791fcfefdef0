package transfer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// script is a sender made of bytes: each says which message comes next, and the one after
// it how large it is.
type script struct {
	bytes []byte
	sent  map[string][]byte // what was said in the file of that name
	last  string
	end   *agentv1.End
}

func (s *script) take() int {
	if len(s.bytes) == 0 {
		return 0
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return int(b)
}

var fuzzNames = []string{"a", "b", "c", "", ".", "..", "../a", "a/b/c", "a/..", "/a", "a/", ".a", "a\x00"}

// Recv implements requests.
func (s *script) Recv() (*agentv1.SendRequest, error) {
	if len(s.bytes) == 0 {
		return nil, io.EOF
	}
	op, n := s.take(), s.take()
	switch op % 8 {
	case 0:
		return begin(uint64(n), uint32(s.take())), nil
	case 1, 2:
		s.last = fuzzNames[n%len(fuzzNames)]
		if s.sent[s.last] == nil {
			s.sent[s.last] = []byte{}
		}
		return file(s.last, uint64(s.take())), nil
	case 3, 4:
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(n + i)
		}
		s.sent[s.last] = append(s.sent[s.last], b...)
		return data(string(b)), nil
	case 5:
		return &agentv1.SendRequest{}, nil
	case 6:
		return nil, io.ErrUnexpectedEOF
	}
	return &agentv1.SendRequest{Part: &agentv1.SendRequest_End{End: s.digests(n)}}, nil
}

// digests are those of n names, true unless the next byte spoils one.
func (s *script) digests(n int) *agentv1.End {
	s.end = &agentv1.End{}
	for range n % 5 {
		name := fuzzNames[s.take()%len(fuzzNames)]
		sum := sha256.Sum256(s.sent[name])
		if s.take()%16 == 15 {
			sum[0]++
		}
		s.end.Digests = append(s.end.Digests, &agentv1.FileDigest{Name: name, Size: uint64(len(s.sent[name])), Sha256: sum[:]})
	}
	return s.end
}

// FuzzReceive: whatever comes in whatever order, there are complete images that are what
// the manifest says, or there is nothing.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 5, 2, 1, 0, 5, 3, 5, 1, 1, 0, 7, 2, 0, 0, 1, 0})       // two files, well
	f.Add([]byte{0, 5, 1, 1, 0, 5, 3, 2, 3, 3, 7, 1, 0, 0})                // in two parts
	f.Add([]byte{0, 5, 1, 1, 0, 5, 3, 4, 7, 1, 0, 0})                      // too few
	f.Add([]byte{0, 5, 1, 1, 0, 5, 3, 6, 7, 1, 0, 0})                      // too many
	f.Add([]byte{0, 5, 1, 1, 0, 5, 3, 5, 7, 1, 0, 15})                     // digest
	f.Add([]byte{0, 5, 2, 1, 0, 5, 3, 5, 1, 0, 0, 7, 2, 0, 0, 0, 0})       // doubled
	f.Add([]byte{0, 5, 1, 1, 6, 5, 3, 5, 7, 1, 6, 0})                      // up
	f.Add([]byte{0, 5, 1, 1, 0, 5, 3, 5, 6})                               // cut
	f.Add([]byte{0, 5, 1, 0, 5, 1})                                        // begin twice
	f.Add([]byte{3, 1})                                                    // no begin
	f.Add([]byte{0, 0, 3, 1, 0, 0, 1, 1, 0, 1, 2, 0, 7, 3, 0, 0, 1, 0, 2}) // empty files
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReceiver(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		in := &script{bytes: b, sent: map[string][]byte{}}
		n, err := r.receive(ctx, cancel, "a", in)
		if len(r.Store.calls) > 0 {
			t.Errorf("calls are left: %v", r.Store.calls)
		}
		if err != nil {
			wantEmpty(t, r.Store.Dir)
			if uids := r.Arrivals.(*arrivals).uids; len(uids) > 0 {
				t.Errorf("refused with %v, and a notice %q", err, uids)
			}
			return
		}
		var sum uint64
		want := map[string][]byte{}
		for _, d := range in.end.GetDigests() {
			want[d.GetName()] = in.sent[d.GetName()]
			sum += d.GetSize()
		}
		if n != sum || fmt.Sprint(list(t, r.Store.Dir)) != "["+testDir+"]" {
			t.Errorf("%d bytes of %d, in %q", n, sum, list(t, r.Store.Dir))
		}
		wantDir(t, filepath.Join(r.Store.Dir, testDir), want)
	})
}
