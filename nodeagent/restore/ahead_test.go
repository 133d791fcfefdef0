package restore

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/drover-project/drover/internal/lazypages"
)

const pageSize = 4096

// steady is a source that holds memory from first up to end, of which every word tells its address.
type steady struct {
	first, end uint64
	fetched    []lazypages.Range
	err        error
}

func (h *steady) fetch(r lazypages.Range, b []byte) error {
	h.fetched = append(h.fetched, r)
	if r.Process != 1 || r.Address < h.first || r.Address+r.Size > h.end || r.Size != uint64(len(b)) {
		return errors.New("there is no such memory")
	}
	for i := range len(b) / 8 {
		binary.NativeEndian.PutUint64(b[8*i:], r.Address+8*uint64(i))
	}
	return h.err
}

func (h *steady) ahead() *ahead {
	return &ahead{fetch: h.fetch, lacking: func(_, address uint64) uint64 {
		if address < h.first || address >= h.end {
			return 0
		}
		return h.end - address
	}}
}

// mustRead fails unless that memory is what it must be.
func mustRead(t *testing.T, a *ahead, address, size uint64) {
	t.Helper()
	b := make([]byte, size)
	if err := a.read(lazypages.Range{Process: 1, Address: address, Size: size}, b); err != nil {
		t.Fatalf("%d bytes at %#x: %v", size, address, err)
	}
	for i := range size / 8 {
		if got := binary.NativeEndian.Uint64(b[8*i:]); got != address+8*i {
			t.Fatalf("%d bytes at %#x: the word at %#x is that of %#x", size, address, address+8*i, got)
		}
	}
}

// Two rows of 16 MiB, touched in turn page by page: a page, then 64, 128, 256, 512 KiB and 1 MiB, and 1 MiB
// each from then on, is 1 + 4 + 16 ways a row at most.
func TestAheadInARow(t *testing.T) {
	const row = 16 << 20
	h := &steady{first: 1 << 30, end: 1<<30 + 2*row}
	a := h.ahead()
	for i := range uint64(row / pageSize) {
		mustRead(t, a, h.first+i*pageSize, pageSize)
		mustRead(t, a, h.first+row+i*pageSize, pageSize)
	}
	if n := len(h.fetched); n > 2*(1+4+16) {
		t.Errorf("fetched %d times", n)
	}
}

// What is touched here and there, further apart than 1 MiB, is fetched alone.
func TestAheadHereAndThere(t *testing.T) {
	h := &steady{first: 0, end: 1 << 40}
	a := h.ahead()
	for i := range uint64(100) {
		mustRead(t, a, (i*7919%100)*16<<20, pageSize)
	}
	for _, r := range h.fetched {
		if r.Size != pageSize {
			t.Errorf("fetched %d bytes for a page", r.Size)
		}
	}
}

// Whatever is asked for in which order, it is what it must be, and nothing that the images do not lack is fetched.
func TestAheadAny(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	h := &steady{first: 1 << 30, end: 1<<30 + 8<<20}
	a := h.ahead()
	at := h.first
	for range 20000 {
		size := (1 + random.Uint64N(1<<random.Uint64N(9))) * pageSize
		if at+size > h.end || random.Uint64N(20) == 0 {
			at = h.first + random.Uint64N((h.end-h.first)/pageSize)*pageSize
		}
		size = min(size, h.end-at)
		mustRead(t, a, at, size)
		at += size
		if len(a.pieces) > rows {
			t.Fatalf("%d pieces are kept", len(a.pieces))
		}
	}
}

// What could not be fetched is not kept.
func TestAheadFails(t *testing.T) {
	h := &steady{first: 0, end: 1 << 30}
	a := h.ahead()
	mustRead(t, a, 0, pageSize)
	h.err = errors.New("the link is cut")
	if err := a.read(lazypages.Range{Process: 1, Address: pageSize, Size: pageSize}, make([]byte, pageSize)); !errors.Is(err, h.err) {
		t.Errorf("got %v", err)
	}
	h.err = nil
	before := len(h.fetched)
	mustRead(t, a, pageSize, pageSize)
	if len(h.fetched) == before {
		t.Error("it was not fetched again")
	}
}

// TestAheadOfWhatCannotBeRead: what is asked for comes, although what follows it cannot be read.
func TestAheadOfWhatCannotBeRead(t *testing.T) {
	h := &steady{first: 1 << 30, end: 1<<30 + 3*pageSize}
	a := h.ahead()
	a.lacking = func(uint64, uint64) uint64 { return most }
	for i := range uint64(3) {
		mustRead(t, a, h.first+i*pageSize, pageSize)
	}
}
