package beat

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// PageSize is that of the pages of a Memory, in bytes.
	PageSize  = 4096
	pageWords = PageSize / 8
	// headWords begin every page: its number and its round.
	headWords = 2
)

// Memory is memory whose pages are written in turn, again and again. What a page must hold
// follows from its number and from how often it was written, so that a page that is lost,
// another one's, or an older one shows.
type Memory struct {
	words []uint64
	// random words of every page differ from page to page and from round to round; the others,
	// which a compressor finds, are everywhere the same.
	random int
	// next is the page that is written next: those before it are of round, it and those after it
	// of the round before.
	next  int
	round uint64
}

// NewMemory maps mib MiB outside of Go's heap and writes every page twice: on a virtual machine
// pages are slow until they were touched. random is the share of each page that cannot be
// compressed.
func NewMemory(mib int, random float64) (*Memory, error) {
	if mib < 1 || !(random >= 0 && random <= 1) {
		return nil, fmt.Errorf("memory of %d MiB, %g of it random: want at least 1 MiB and 0 to 1", mib, random)
	}
	data, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d MiB: %w", mib, err)
	}
	m := &Memory{words: unsafe.Slice((*uint64)(unsafe.Pointer(&data[0])), len(data)/8), round: 1}
	m.random = headWords + int(random*(pageWords-headWords))
	m.Write(2 * m.Pages())
	return m, nil
}

// Pages is how many there are.
func (m *Memory) Pages() int { return len(m.words) / pageWords }

// Write writes the next n pages.
func (m *Memory) Write(n int) {
	for range n {
		m.fill(m.page(m.next), m.next, m.round)
		if m.next++; m.next == m.Pages() {
			m.next, m.round = 0, m.round+1
		}
	}
}

// Check counts the pages that are not as they must be.
func (m *Memory) Check() (damaged int) {
	want := make([]uint64, pageWords)
	for i := range m.Pages() {
		round := m.round
		if i >= m.next {
			round--
		}
		m.fill(want, i, round)
		if !slices.Equal(m.page(i), want) {
			damaged++
		}
	}
	return damaged
}

func (m *Memory) page(i int) []uint64 { return m.words[i*pageWords : (i+1)*pageWords] }

func (m *Memory) fill(page []uint64, number int, round uint64) {
	page[0], page[1] = uint64(number), round
	x := (uint64(number)+1)*0x9e3779b97f4a7c15 ^ round*0xbf58476d1ce4e5b9 | 1
	for i := headWords; i < m.random; i++ { // xorshift64*, Vigna 2016
		x ^= x >> 12
		x ^= x << 25
		x ^= x >> 27
		page[i] = x * 0x2545f4914f6cdd1d
	}
	for i := m.random; i < pageWords; i++ {
		page[i] = uint64(i & 7)
	}
}
