package chain

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// memory is that of one process, or one piece of shared memory, in the rounds and in the dump,
// which is the last: what is to be made of it.
type memory struct {
	// name is the pagemap's, dirs are the directories that may have one, files those of their pages: empty
	// where that memory was not there.
	name        string
	dirs, files []string
	// id is that of the dump's file of pages, base the directory whose file has most of them.
	id     uint32
	base   int
	pieces []piece
}

// memory plans for one that needs rounds; of others it notes their files of pages.
func (p *plan) memory(name string, dirs []string) error {
	m := &memory{name: name, dirs: dirs, files: make([]string, len(dirs))}
	layers := make([]*layer, len(dirs)) // nil: it was not there in that round
	top := len(dirs) - 1
	for i, dir := range dirs {
		l, err := readLayer(p.root, dir, name, &p.spans)
		if errors.Is(err, fs.ErrNotExist) && i < top {
			continue
		}
		if err != nil {
			return err
		}
		layers[i], m.files[i] = l, pagesFile(dir, l.id)
		if p.files[m.files[i]] {
			return fmt.Errorf("two page maps name %s", m.files[i])
		}
		p.files[m.files[i]] = true
	}
	if !layers[top].needsParent() {
		return nil
	}
	later, err := readLoadable(p.root, dirs[top], name)
	if err != nil {
		return err
	}
	if m.pieces, err = resolved(layers, later); err != nil {
		return err
	}
	m.id = layers[top].id
	count, total := make([]uint64, len(layers)), uint64(0)
	for _, piece := range m.pieces {
		count[piece.layer] += piece.pages
		total += piece.pages
	}
	m.base = slices.Index(count, slices.Max(count))
	if have := layers[m.base].have; total > have {
		p.growth += (total - have) * page
	}
	p.growth += uint64(len(m.pieces)) * mapEntry
	p.memories = append(p.memories, m)
	return nil
}

// write makes the dump need no round any more.
func (m *memory) write(root *os.Root) error {
	if err := m.move(root); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	return writeMap(root, m.dirs[len(m.dirs)-1]+"/"+m.name, m.id, m.pieces)
}

// piece is pages of the joined dump, and the layer that they are of.
type piece struct {
	span
	layer int
}

// resolved are all pages of the dump, which is the last layer, in the order of their addresses.
func resolved(layers []*layer, later loadable) ([]piece, error) {
	top := len(layers) - 1
	var all []piece
	for _, s := range layers[top].spans {
		if !s.parent {
			all = append(all, piece{s, top})
			continue
		}
		from := len(all)
		var err error
		if all, err = resolve(layers[:top], s, all); err != nil {
			return nil, err
		}
		found := slices.Clone(all[from:])
		all = all[:from]
		for _, p := range found {
			all = later.split(p, all)
		}
	}
	return all, nil
}

// resolve appends where the pages of a span are, as seen from the last of some layers.
func resolve(layers []*layer, s span, to []piece) ([]piece, error) {
	for s.pages > 0 {
		last := len(layers) - 1
		if last < 0 || layers[last] == nil {
			return nil, fmt.Errorf("%d pages at %#x are in no round", s.pages, s.start)
		}
		spans := layers[last].spans
		i, ok := slices.BinarySearchFunc(spans, s.start, func(have span, at uint64) int {
			switch {
			case have.end() <= at:
				return -1
			case have.start > at:
				return 1
			}
			return 0
		})
		if !ok {
			return nil, fmt.Errorf("the page at %#x is not in round %d", s.start, last+1)
		}
		have := spans[i]
		skip := (s.start - have.start) / page
		part := span{start: s.start, pages: min(s.pages, have.pages-skip), at: have.at + skip}
		if have.parent {
			var err error
			if to, err = resolve(layers[:last], part, to); err != nil {
				return nil, err
			}
		} else {
			to = append(to, piece{part, last})
		}
		s.start, s.pages = part.end(), s.pages-part.pages
	}
	return to, nil
}

// split appends the pieces of a piece of which all pages are loadable, or none.
func (l loadable) split(p piece, to []piece) []piece {
	for p.pages > 0 {
		part := p
		end, can := l.until(p.start, p.end())
		part.pages, part.lazy = (end-p.start)/page, can
		to = append(to, part)
		p.start, p.pages, p.at = end, p.pages-part.pages, p.at+part.pages
	}
	return to
}

// move brings the pages of all pieces into the dump's file, one after the other.
func (m *memory) move(root *os.Root) (err error) {
	files := make([]*os.File, len(m.dirs))
	defer func() {
		for _, f := range files {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
		}
	}()
	for _, p := range m.pieces {
		if files[p.layer] != nil {
			continue
		}
		if files[p.layer], err = root.OpenFile(m.files[p.layer], os.O_RDWR, 0); err != nil {
			return err
		}
	}
	top := len(m.dirs) - 1
	if err := gather(files, m.base, m.pieces); err != nil || m.base == top {
		return err
	}
	return root.Rename(m.files[m.base], m.files[top])
}

// gather makes the file of the layer base hold all pieces, one after the other, and nothing else.
//
// Pages keep their order, so those that move down are only ever in the way of others that do, and
// likewise up: from the first on down, then from the last on up, nothing is overwritten that is still
// to be read. What is not from this file comes last, for its place may be one that was just left.
func gather(files []*os.File, base int, pieces []piece) error {
	to := make([]uint64, len(pieces))
	var total uint64
	for i, p := range pieces {
		to[i] = total
		total += p.pages
	}
	buffer := make([]byte, bufferPages*page)
	own := files[base]
	for i, p := range pieces {
		if p.layer == base && to[i] < p.at {
			if err := down(own, own, p.at, to[i], p.pages, buffer); err != nil {
				return err
			}
		}
	}
	for i, p := range slices.Backward(pieces) {
		if p.layer == base && to[i] > p.at {
			if err := up(own, p.at, to[i], p.pages, buffer); err != nil {
				return err
			}
		}
	}
	for i, p := range pieces {
		if p.layer != base {
			if err := down(files[p.layer], own, p.at, to[i], p.pages, buffer); err != nil {
				return err
			}
		}
	}
	if err := own.Truncate(int64(total * page)); err != nil {
		return err
	}
	return own.Sync()
}

// bufferPages are copied at once.
const bufferPages = 128

// down copies pages from the first on.
func down(from, to *os.File, at, dest, pages uint64, buffer []byte) error {
	for pages > 0 {
		n := min(pages, bufferPages)
		if err := copyPages(from, to, at, dest, buffer[:n*page]); err != nil {
			return err
		}
		at, dest, pages = at+n, dest+n, pages-n
	}
	return nil
}

// up moves pages from the last on.
func up(f *os.File, at, dest, pages uint64, buffer []byte) error {
	for pages > 0 {
		n := min(pages, bufferPages)
		pages -= n
		if err := copyPages(f, f, at+pages, dest+pages, buffer[:n*page]); err != nil {
			return err
		}
	}
	return nil
}

func copyPages(from, to *os.File, at, dest uint64, b []byte) error {
	if n, err := from.ReadAt(b, int64(at*page)); n < len(b) {
		return fmt.Errorf("read %d bytes of %s at page %d: %w", len(b), from.Name(), at, err)
	}
	_, err := to.WriteAt(b, int64(dest*page))
	return err
}
