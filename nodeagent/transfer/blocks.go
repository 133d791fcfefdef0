package transfer

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// aheadFile holds the blocks that came ahead, in the partial directory. No image can have
// its name.
const aheadFile = ".ahead"

// ahead is a cache of blocks by their digests. A block that a chunk was made of is in the
// image alone from then on: nothing is there twice.
type ahead struct {
	mu     sync.RWMutex
	file   *os.File
	end    int64
	places map[digest]place
	// held is how many bytes are in the file and in no image. gone: it had to give way.
	held int64
	gone bool
}

// place is where a block is: in an image of that name, or, without one, in the aheadFile.
type place struct {
	image  string
	offset int64
}

// add keeps those blocks of data that are not there yet, and gives how many bytes they are.
func (a *ahead) add(root *os.Root, data []byte) (int, error) {
	sums := leaves(data)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return 0, nil
	}
	if a.file == nil {
		// O_EXCL does not follow a link, whatever it points to.
		f, err := root.OpenFile(aheadFile, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return 0, err
		}
		a.file, a.places = f, map[digest]place{}
	}
	news := data[:0] // what is new is moved to the front
	var found []digest
	for i, sum := range sums {
		if _, ok := a.places[sum]; ok || sum == zeroDigest {
			continue
		}
		news = append(news, data[i*block:(i+1)*block]...)
		a.places[sum] = place{offset: a.end + int64(len(found))*block}
		found = append(found, sum)
	}
	if _, err := a.file.WriteAt(news, a.end); err != nil {
		for _, sum := range found {
			delete(a.places, sum)
		}
		return 0, err
	}
	a.end += int64(len(news))
	a.held += int64(len(news))
	return len(news), nil
}

// fill puts the known blocks of a chunk where they belong in data, and their digests in sums; false: one
// is not there, or not any more. What is in the aheadFile was verified before it was written,
// as images are, and is never written again; an image may be, so what is read of one is verified.
func (a *ahead) fill(root *os.Root, c *agentv1.Chunk, data []byte, sums []digest) bool {
	a.mu.RLock() // nothing is given up meanwhile
	defer a.mu.RUnlock()
	var r run
	next := 0
	for i := range sums {
		if !bitmap(c.GetKnown()).has(i) {
			continue
		}
		sums[i] = digest(c.GetDigests()[next*len(digest{}):])
		next++
		p, ok := a.places[sums[i]]
		switch {
		case !ok, p.image != "" && !p.read(root, sums[i], blockAt(data, i)):
			return false
		case p.image != "", r.takes(i, p.offset):
			continue
		}
		if !r.read(a.file, data) {
			return false
		}
		r = run{i, i + 1, p.offset}
	}
	return r.read(a.file, data)
}

// run is blocks of a chunk, from one to before another, that lie in the aheadFile one behind
// the other.
type run struct {
	from, to int
	offset   int64
}

// takes adds block i, if it is the next.
func (r *run) takes(i int, offset int64) bool {
	if i != r.to || offset != r.offset+int64(r.to-r.from)*block {
		return false
	}
	r.to++
	return true
}

func (r *run) read(f *os.File, chunk []byte) bool {
	if r.from == r.to {
		return true
	}
	_, err := f.ReadAt(chunk[r.from*block:r.to*block], r.offset)
	return err == nil
}

// read fills b with a block of an image, if that is still there.
func (p place) read(root *os.Root, sum digest, b []byte) bool {
	f, err := root.OpenFile(p.image, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if _, err := f.ReadAt(b, p.offset); err != nil {
		return false
	}
	got, _ := leaf(b)
	return got == sum
}

// moved notes that the known blocks of a chunk are in the image now, and gives up their
// places in the cache: so many bytes.
func (a *ahead) moved(c *agentv1.Chunk) (freed int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return 0
	}
	var from, to int64 // a run of them
	next := 0
	for i := range blocksOf(int(c.GetSize())) {
		if !bitmap(c.GetKnown()).has(i) {
			continue
		}
		sum := digest(c.GetDigests()[next*len(digest{}):])
		next++
		p, ok := a.places[sum]
		if !ok || p.image != "" {
			continue
		}
		a.places[sum] = place{c.GetFile(), int64(c.GetOffset()) + int64(i)*block}
		freed += block
		if p.offset != to {
			a.punch(from, to)
			from = p.offset
		}
		to = p.offset + block
	}
	a.punch(from, to)
	a.held -= freed
	return freed
}

// punch gives pages back. Where the file system cannot, they go with the file.
func (a *ahead) punch(from, to int64) {
	if from < to {
		_ = unix.Fallocate(int(a.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	}
}

// drop lets go of all of it.
func (a *ahead) drop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		a.file.Close()
	}
	a.file, a.places, a.gone = nil, nil, true
}

// close removes the cache, which held so many bytes.
func (a *ahead) close(root *os.Root) (held int64, err error) {
	a.drop()
	if err := root.Remove(aheadFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	held, a.held = a.held, 0
	return held, nil
}
