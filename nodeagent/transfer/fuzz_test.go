package transfer

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"testing"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// script is a sender made of bytes: each says which message comes next, and the ones after it
// what it holds.
type script struct {
	bytes []byte
	// images are the contents of the files as the chunks that were said last make them.
	images map[string]map[uint64]string
}

func (s *script) take() int {
	if len(s.bytes) == 0 {
		return 0
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return int(b)
}

var fuzzNames = []string{"a", "b", "d/c", "", ".", "..", "../a", "a/b/c", "a/..", "/a", "a/", ".a", "a\x00", aheadFile}

// content is one of few: a short one, zeros, a page, a whole chunk.
func content(n int) string {
	letter := string('a' + rune(n/4%8))
	return []string{letter + letter, string(make([]byte, 2*block)), page4(letter) + page4("z"), whole(letter)}[n%4]
}

// Recv implements requests.
func (s *script) Recv() (*agentv1.PutRequest, error) {
	if len(s.bytes) == 0 {
		return nil, io.EOF
	}
	op, n := s.take(), s.take()
	switch op % 8 {
	case 0:
		return beginAhead(uint64(n)<<18, uint64(s.take())<<12), nil
	case 1, 2, 3:
		name, at := fuzzNames[n%len(fuzzNames)], uint64(s.take()%4)
		c := content(s.take())
		if s.images[name] == nil {
			s.images[name] = map[uint64]string{}
		}
		s.images[name][at] = c
		req := chunk(name, at*chunkSize, c)
		switch op % 8 {
		case 2:
			if len(c)%block == 0 {
				req = naming(req)
			}
		case 3:
			m := req.GetChunk()
			m.Codec = agentv1.Codec(n % 3)
			m.Data = encode(m.Codec, m.Data, nil)
		}
		return req, nil
	case 4:
		return blocks([]byte(content(n))[:len(content(n))/block*block]), nil
	case 5:
		return &agentv1.PutRequest{}, nil
	case 6:
		return nil, io.ErrUnexpectedEOF
	}
	return forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Data = []byte{byte(n)} }), nil
}

// manifest is a true one, if the files have no holes.
func (s *script) manifest() (files []*agentv1.FileDigest, want map[string][]byte) {
	want = map[string][]byte{}
	for name, chunks := range s.images {
		var all []byte
		for i := range uint64(len(chunks)) {
			all = append(all, chunks[i]...)
		}
		want[name] = all
		sum := treeOf(all)
		files = append(files, &agentv1.FileDigest{Name: name, Size: uint64(len(all)), Sha256: sum[:]})
	}
	return files, want
}

// FuzzReceive: whatever comes in whatever order, there are complete images that are what
// the manifest says, or none; and nothing at all after what no honest sender says.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 8, 0, 1, 0, 0, 0, 1, 1, 0, 2})                // two files, well
	f.Add([]byte{0, 16, 0, 1, 0, 1, 0, 1, 0, 0, 3})               // two chunks, the last first
	f.Add([]byte{0, 16, 0, 1, 0, 0, 3, 1, 0, 0, 7})               // one chunk, then another content
	f.Add([]byte{0, 16, 8, 4, 2, 2, 0, 0, 2})                     // a block ahead, and named
	f.Add([]byte{0, 16, 8, 2, 0, 0, 2})                           // named, and not ahead
	f.Add([]byte{0, 16, 255, 4, 3, 2, 0, 0, 3, 1, 0, 0, 7, 2, 1}) // named, and written anew
	f.Add([]byte{0, 8, 0, 3, 1, 0, 3, 3, 2, 1, 3})                // compressed
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0})                            // too much
	f.Add([]byte{0, 8, 0, 1, 6, 0, 0})                            // up
	f.Add([]byte{0, 8, 0, 1, 0, 0, 0, 6})                         // cut
	f.Add([]byte{0, 8, 0, 0, 8, 0})                               // begin twice
	f.Add([]byte{0, 8, 0, 7, 1})                                  // damaged
	f.Add([]byte{0, 8, 0, 1, 2, 0, 1})                            // zeros, in a directory
	f.Add([]byte{1, 0, 0, 0})                                     // no begin
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64 {
			return // a few messages are enough, and chunks are large
		}
		r := newReceiver(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		in := &script{bytes: slices.Clone(b), images: map[string]map[uint64]string{}}
		err := r.receive(ctx, cancel, "a", in)
		if len(r.Store.calls) > 0 {
			t.Errorf("calls are left: %v", r.Store.calls)
		}
		files, want := in.manifest()
		if err == nil {
			err = r.entered(ctx, cancel, "a", testBegin(1<<30, 0), func(c *call) error {
				return r.complete(c, &agentv1.CompleteRequest{Begin: testBegin(1<<30, 0), Files: files})
			})
		}
		got := list(t, r.Store.Dir)
		if err == nil {
			if fmt.Sprint(got) != "["+testDir+"]" {
				t.Errorf("complete, in %q", got)
			}
			for name, content := range want {
				wantFile(t, filepath.Join(r.Store.Dir, testDir, name), content)
			}
			return
		}
		for _, name := range got {
			if name != testDir+partialSuffix {
				t.Errorf("refused with %v, and there is %q", err, name)
			}
		}
		if co := r.Store.coming[testDir]; (co == nil) != (len(got) == 0) || co != nil && co.ended() {
			t.Errorf("refused with %v, and there are %q", err, got)
		}
	})
}

// FuzzDecode: what is decoded is as long as it was said to be, or it is an error.
func FuzzDecode(f *testing.F) {
	for _, c := range []agentv1.Codec{agentv1.Codec_RAW, agentv1.Codec_S2, agentv1.Codec_ZSTD} {
		f.Add(byte(c), uint16(block), encode(c, []byte(page4("x")), nil))
	}
	f.Add(byte(agentv1.Codec_ZSTD), uint16(block), zstdOf(make([]byte, 1<<20)))
	f.Fuzz(func(t *testing.T, codec byte, size uint16, data []byte) {
		whole := make([]byte, int(size)+8)
		copy(whole[size:], "guarding")
		_ = decode(whole[:size:size], agentv1.Codec(codec), data)
		if string(whole[size:]) != "guarding" {
			t.Error("it wrote beyond")
		}
	})
}
