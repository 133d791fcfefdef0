package restore

import (
	"slices"

	"github.com/drover-project/drover/internal/lazypages"
)

const (
	// least and most are how much is fetched at once where memory is asked for in a row, in bytes.
	least = 64 << 10
	most  = 1 << 20
	// rows are how many rows are told apart.
	rows = 4
)

// ahead fetches more than is asked for where memory is asked for in a row: a program that touches its memory
// page by page would wait for a way to the source for each. What is asked for here and there is fetched alone.
// The source stands still, so nothing that is kept grows old. Not safe for concurrent use.
type ahead struct {
	// fetch fills b with memory of the source.
	fetch func(r lazypages.Range, b []byte) error
	// lacking is how much the images lack in a row of a process's memory from an address on, in bytes: no
	// more can be fetched.
	lacking func(process, address uint64) uint64
	// pieces are the last of each row, those that were used last first.
	pieces []piece
}

// piece is what was fetched last of a row.
type piece struct {
	lazypages.Range
	// memory is empty if no more was fetched than was asked for.
	memory []byte
}

// has tells that r was kept.
func (p piece) has(r lazypages.Range) bool {
	return p.memory != nil && p.Process == r.Process && p.Address <= r.Address && r.Address+r.Size <= p.Address+p.Size
}

// goesOn tells that r comes after p in a row, of which some may have been loaded by somebody else.
func (p piece) goesOn(r lazypages.Range) bool {
	end := p.Address + p.Size
	return p.Process == r.Process && r.Address >= end-min(p.Size, r.Size) && r.Address < end+most
}

// read fills b.
func (a *ahead) read(r lazypages.Range, b []byte) error {
	if i := slices.IndexFunc(a.pieces, func(p piece) bool { return p.has(r) }); i >= 0 {
		p := a.pieces[i]
		copy(b, p.memory[r.Address-p.Address:])
		a.put(i, p)
		return nil
	}
	next, i := piece{Range: r}, slices.IndexFunc(a.pieces, func(p piece) bool { return p.goesOn(r) })
	if i >= 0 {
		next.Size = max(r.Size, min(most, max(least, 2*a.pieces[i].Size), a.lacking(r.Process, r.Address)))
	} else if len(a.pieces) == rows {
		i = rows - 1
	}
	into := b
	if next.Size > r.Size {
		next.memory = make([]byte, next.Size)
		into = next.memory
	}
	err := a.fetch(next.Range, into)
	if err != nil && next.Size > r.Size { // what is asked for may be had without the rest
		next, into = piece{Range: r}, b
		err = a.fetch(r, b)
	}
	if err != nil {
		return err
	}
	copy(b, into)
	a.put(i, next)
	return nil
}

// put has a piece be the first, in place of number i; -1: of none.
func (a *ahead) put(i int, p piece) {
	if i >= 0 {
		a.pieces = slices.Delete(a.pieces, i, i+1)
	}
	a.pieces = slices.Insert(a.pieces, 0, p)
}
