package transfer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/model"
)

const (
	// syncing is how many files are being synced while the next ones come.
	syncing = 8
	// flush is after how much the kernel is asked to begin to write back: a pod is frozen
	// meanwhile, so the last sync should find little to do.
	flush = 8 * model.MiB
)

// arrival is the content of one call. It is for one goroutine.
type arrival struct {
	store   *Store
	call    *call
	metrics *Metrics
	// total and files are what was declared, and not yet taken up.
	total uint64
	files uint32
	// kept: complete images are in the store; what comes is compared and not written.
	kept bool

	root  *os.Root
	syncs errgroup.Group
	done  []*agentv1.FileDigest
	names map[string]bool
	dirs  map[string]bool
	bytes uint64
	open  *openFile
}

// openFile is the file whose bytes come.
type openFile struct {
	name       string
	size, left uint64
	sum        hash.Hash
	// file is nil when nothing is written.
	file             *os.File
	flushed, written int64
}

// newArrival makes the partial directory, unless complete images are there.
func newArrival(s *Store, c *call, m *Metrics, b *agentv1.Begin) (*arrival, error) {
	kept, err := s.begin(c, b.GetTotalBytes())
	if err != nil {
		return nil, err
	}
	a := &arrival{
		store: s, call: c, metrics: m, kept: kept,
		total: b.GetTotalBytes(), files: b.GetTotalFiles(), names: map[string]bool{}, dirs: map[string]bool{},
	}
	a.syncs.SetLimit(syncing)
	if kept {
		return a, nil
	}
	partial := c.name + partialSuffix
	err = s.inRoot(func(r *os.Root) error {
		if err := r.RemoveAll(partial); err != nil {
			return err
		}
		if err := r.Mkdir(partial, 0o700); err != nil {
			return err
		}
		a.root, err = r.OpenRoot(partial)
		return err
	})
	if err != nil {
		return nil, errors.Join(diskError(err), a.close(false))
	}
	return a, nil
}

// part takes a message after Begin. last: it was End and all is well.
func (a *arrival) part(req *agentv1.SendRequest) (last bool, err error) {
	switch p := req.GetPart().(type) {
	case *agentv1.SendRequest_File:
		return false, a.begin(p.File)
	case *agentv1.SendRequest_Data:
		return false, a.data(p.Data)
	case *agentv1.SendRequest_End:
		return true, a.end(p.End)
	case *agentv1.SendRequest_Begin:
		return false, refuse(misuse, "a second begin")
	}
	return false, refuse(misuse, "a message without a part that is known")
}

func (a *arrival) begin(f *agentv1.File) error {
	if err := a.finishFile(); err != nil {
		return err
	}
	name, size := f.GetName(), f.GetSize()
	if err := checkName(name); err != nil {
		return refuse(misuse, "%w", err)
	}
	switch {
	case a.names[name]:
		return refuse(misuse, "file %q comes twice", name)
	case a.files == 0:
		return refuse(misuse, "file %q is one more than was declared", name)
	case size > a.total:
		return refuse(misuse, "file %q has %d bytes, of all that were declared %d are left", name, size, a.total)
	}
	o := &openFile{name: name, size: size, left: size, sum: sha256.New()}
	if !a.kept {
		if dir, _, below := strings.Cut(name, "/"); below {
			if err := a.mkdir(dir); err != nil {
				return diskError(err)
			}
		}
		// O_EXCL does not follow a link, whatever it points to.
		file, err := a.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return diskError(err)
		}
		o.file = file
	}
	a.names[name], a.open = true, o
	a.files--
	a.total -= size
	return nil
}

// mkdir makes the directory of a container's images.
func (a *arrival) mkdir(name string) error {
	if a.dirs[name] {
		return nil
	}
	a.dirs[name] = true
	return a.root.Mkdir(name, 0o700)
}

func (a *arrival) data(b []byte) error {
	o := a.open
	switch {
	case o == nil:
		return refuse(misuse, "%d bytes that belong to no file", len(b))
	case len(b) == 0 || len(b) > int(maxChunk):
		return refuse(misuse, "%d bytes of file %q in one message, want 1 to %d", len(b), o.name, maxChunk)
	case uint64(len(b)) > o.left:
		return refuse(misuse, "file %q is longer than the %d bytes that were declared", o.name, o.size)
	}
	o.left -= uint64(len(b))
	o.sum.Write(b)
	a.bytes += uint64(len(b))
	a.metrics.add(received, len(b))
	if o.file == nil {
		return nil
	}
	if _, err := o.file.Write(b); err != nil {
		return diskError(err)
	}
	a.store.wrote(a.call, len(b))
	o.written += int64(len(b))
	if n := o.written - o.flushed; n >= int64(flush) {
		// Only a hint: Sync below is what counts.
		_ = unix.SyncFileRange(int(o.file.Fd()), o.flushed, n, unix.SYNC_FILE_RANGE_WRITE)
		o.flushed = o.written
	}
	return nil
}

// finishFile ends the file that is open, if one is.
func (a *arrival) finishFile() error {
	o := a.open
	if o == nil {
		return nil
	}
	if o.left > 0 {
		return refuse(misuse, "file %q ends %d bytes short of the %d that were declared", o.name, o.left, o.size)
	}
	a.open = nil
	d := &agentv1.FileDigest{Name: o.name, Size: o.size, Sha256: o.sum.Sum(nil)}
	a.done = append(a.done, d)
	if o.file == nil {
		return a.compare(d)
	}
	a.syncs.Go(func() error { return errors.Join(o.file.Sync(), o.file.Close()) })
	return nil
}

// compare looks whether a file of the complete images is the one that came again.
func (a *arrival) compare(d *agentv1.FileDigest) error {
	dir, err := openDir(filepath.Join(a.store.Dir, a.call.name))
	if err != nil {
		return diskError(err)
	}
	defer dir.Close()
	f, size, err := openRegular(dir, d.GetName())
	if err != nil {
		return refuse(different, "images are complete already, without file %q: %w", d.GetName(), err)
	}
	defer f.Close()
	sum := sha256.New()
	if size == d.GetSize() {
		if _, err := io.Copy(sum, f); err != nil {
			return diskError(err)
		}
	}
	if size != d.GetSize() || !bytes.Equal(sum.Sum(nil), d.GetSha256()) {
		return refuse(different, "images are complete already, with another content of file %q", d.GetName())
	}
	return nil
}

// end compares what came with the sender's manifest and makes it durable.
func (a *arrival) end(e *agentv1.End) error {
	if err := a.finishFile(); err != nil {
		return err
	}
	if a.files > 0 || a.total > 0 {
		return refuse(misuse, "end comes %d files and %d bytes short of what was declared", a.files, a.total)
	}
	if len(e.GetDigests()) != len(a.done) {
		return refuse(misuse, "end has digests of %d files, %d came", len(e.GetDigests()), len(a.done))
	}
	for i, want := range e.GetDigests() {
		got := a.done[i]
		if want.GetName() != got.GetName() || want.GetSize() != got.GetSize() {
			return refuse(misuse, "digest %d is for file %.256q of %d bytes, what came is %q of %d bytes",
				i, want.GetName(), want.GetSize(), got.GetName(), got.GetSize())
		}
		if !bytes.Equal(want.GetSha256(), got.GetSha256()) {
			return refuse(damaged, "file %q has SHA-256 %x, its sender says %.64x", got.GetName(), got.GetSha256(), want.GetSha256())
		}
	}
	if a.kept {
		return nil
	}
	if err := a.syncs.Wait(); err != nil {
		return diskError(err)
	}
	partial := filepath.Join(a.store.Dir, a.call.name+partialSuffix)
	for dir := range a.dirs {
		if err := durable.SyncDir(filepath.Join(partial, dir)); err != nil {
			return diskError(err)
		}
	}
	if err := durable.SyncDir(partial); err != nil {
		return diskError(err)
	}
	return a.store.finish(a.call)
}

// close lets go of everything, and removes the partial directory if the images did not get
// complete.
func (a *arrival) close(complete bool) error {
	if a.open != nil && a.open.file != nil {
		a.open.file.Close()
	}
	// Failures were told by end; without it nobody wants to know them.
	_ = a.syncs.Wait()
	if a.root != nil {
		a.root.Close()
	}
	if complete || a.kept {
		return nil
	}
	return diskError(a.store.inRoot(func(r *os.Root) error { return r.RemoveAll(a.call.name + partialSuffix) }))
}
