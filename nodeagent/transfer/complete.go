package transfer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/durable"
)

// syncing is how many files are synced at once.
const syncing = 8

var errLate = refuse(late, "the images are complete already")

// manifest is what a sender says that the images are, by name.
type manifest map[string]*agentv1.FileDigest

// checkManifest holds it against what was declared and is ever taken.
func checkManifest(files []*agentv1.FileDigest, limit uint64) (manifest, error) {
	if len(files) == 0 || len(files) > maxFiles {
		return nil, refuse(tooMuch, "%d files, want 1 to %d", len(files), maxFiles)
	}
	m := make(manifest, len(files))
	var sum uint64
	for _, f := range files {
		name := f.GetName()
		if err := checkName(name); err != nil {
			return nil, refuse(misuse, "%w", err)
		}
		switch {
		case m[name] != nil:
			return nil, refuse(misuse, "file %q is named twice", name)
		case f.GetSize() > limit-sum:
			return nil, refuse(misuse, "file %q has %d bytes, of all that were declared %d are left", name, f.GetSize(), limit-sum)
		case len(f.GetSha256()) != len(digest{}):
			return nil, refuse(misuse, "file %q has a digest of %d bytes, want %d", name, len(f.GetSha256()), len(digest{}))
		}
		sum += f.GetSize()
		m[name] = f
	}
	return m, nil
}

// sum is the digest of all that a manifest says.
func (m manifest) sum() digest {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(h, "%q %d %x\n", name, m[name].GetSize(), m[name].GetSha256())
	}
	return digest(h.Sum(nil))
}

// complete holds what came against the manifest, and makes it durable. From then on nothing
// more is taken. Everything else that came was a guess of the sender's, and goes.
func (c *coming) complete(m manifest) error {
	c.gate.Lock()
	defer c.gate.Unlock()
	if why := c.over.Load(); why != nil {
		return *why
	}
	for name, want := range m {
		if err := c.verify(name, want); err != nil {
			return err
		}
	}
	if err := c.settle(m); err != nil {
		return diskError(err)
	}
	if err := c.join(); err != nil {
		return err
	}
	c.spoil(errLate)
	return nil
}

// join has what came in rounds joined.
func (c *coming) join() error {
	if c.store.Join == nil {
		return nil
	}
	err := c.store.Join(filepath.Join(c.store.Dir, c.name+partialSuffix), func(bytes uint64) error { return c.store.more(c, bytes) })
	if no := new(refusal); errors.As(err, &no) {
		return refuse(no.reason, "%w", err)
	}
	if err != nil {
		return refuse(damaged, "%w", err)
	}
	return nil
}

// verify compares one file with what its sender says.
func (c *coming) verify(name string, want *agentv1.FileDigest) error {
	f := c.files[name]
	if f == nil {
		f = &comingFile{}
	}
	size := want.GetSize()
	if f.end > size {
		return refuse(misuse, "file %q has %d bytes, but a chunk of it reaches to %d", name, size, f.end)
	}
	sums := make([]digest, 0, chunksOf(f.end))
	for i := range chunksOf(size) {
		at := f.chunks[i]
		if at == nil || at.size == 0 {
			return refuse(incomplete, "%d bytes at %d of file %q have not come", min(chunkSize, size-i*chunkSize), i*chunkSize, name)
		}
		if uint64(at.size) != min(chunkSize, size-i*chunkSize) {
			return refuse(misuse, "file %q has %d bytes, but its chunk at %d ends after %d", name, size, i*chunkSize, at.size)
		}
		sums = append(sums, at.sum)
	}
	if got := root(sums); got != digest(want.GetSha256()) {
		return refuse(damaged, "file %q has digest %x, its sender says %x", name, got, want.GetSha256())
	}
	return nil
}

// settle gives the files their sizes, removes the others, and syncs.
func (c *coming) settle(m manifest) error {
	if _, err := c.ahead.close(c.root); err != nil {
		return err
	}
	for name := range c.files {
		if m[name] == nil {
			if err := c.root.Remove(name); err != nil {
				return err
			}
			delete(c.files, name)
		}
	}
	var syncs errgroup.Group
	syncs.SetLimit(syncing)
	for name, want := range m {
		if c.files[name] == nil {
			if err := c.create(name); err != nil {
				return err
			}
		}
		syncs.Go(func() error { return c.sync(name, int64(want.GetSize())) })
	}
	if err := syncs.Wait(); err != nil {
		return err
	}
	for dir := range c.dirs {
		if err := c.syncDir(dir, m); err != nil {
			return err
		}
	}
	return durable.SyncDir(filepath.Join(c.store.Dir, c.name+partialSuffix))
}

func (c *coming) sync(name string, size int64) (err error) {
	f, err := c.root.OpenFile(name, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir syncs the directory of a container's images; one of which no file is left goes.
func (c *coming) syncDir(dir string, m manifest) error {
	for name := range m {
		if filepath.Dir(name) == dir {
			return durable.SyncDir(filepath.Join(c.store.Dir, c.name+partialSuffix, dir))
		}
	}
	return c.root.Remove(dir)
}

// compare looks whether complete images are those that the manifest names.
func compare(path string, m manifest) error {
	dir, err := openDir(path)
	if err != nil {
		return diskError(err)
	}
	defer dir.Close()
	images, _, err := listImages(dir, false)
	if err != nil {
		return diskError(err)
	}
	if len(images) != len(m) {
		return refuse(different, "images are complete already, with %d files, not %d", len(images), len(m))
	}
	for name, want := range m {
		f, size, err := openRegular(dir, name)
		if err != nil {
			return refuse(different, "images are complete already, without file %q: %w", name, err)
		}
		sum := digest{}
		if size == want.GetSize() {
			sum, err = digestOf(f, size)
		}
		f.Close()
		if err != nil {
			return diskError(err)
		}
		if size != want.GetSize() || sum != digest(want.GetSha256()) {
			return refuse(different, "images are complete already, with another content of file %q", name)
		}
	}
	return nil
}

// digestOf reads a whole file.
func digestOf(f *os.File, size uint64) (digest, error) {
	buffer := takeBuffer()
	defer buffer.free()
	sums := make([]digest, 0, chunksOf(size))
	for at := uint64(0); at < size; at += chunkSize {
		b := buffer.bytes[:min(chunkSize, size-at)]
		if _, err := f.ReadAt(b, int64(at)); err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New(f.Name() + " has become shorter")
			}
			return digest{}, err
		}
		sums = append(sums, root(leaves(b)))
	}
	return root(sums), nil
}
