package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Store is the directory of the images that came to this node. Complete images of a move
// are in the directory <migration UID>-<epoch>, whole and synced; what is not complete is in
// one whose name ends in ".partial". Where the directory is in memory a sync costs nothing
// and a boot loses the images: then the boot ID, which a commit is tied to, has changed too.
// Fill in Dir. It is safe for use by several goroutines.
type Store struct {
	// Dir must exist; layout.Layout.Images.
	Dir string
	// Room tells how much may come. Default: what is free on the file system of Dir.
	Room func() (model.Bytes, error)
	// Reserve is what stays free of it. Default 256 MiB.
	Reserve model.Bytes

	mu sync.Mutex
	// calls in progress, by the name of the directory that they want to fill.
	calls map[string][]*call
}

var _ migrate.Images = (*Store)(nil)

const partialSuffix = ".partial"

// call is one sender's. The fields are the Store's and guarded by its mutex.
type call struct {
	name   string
	cancel context.CancelCauseFunc
	// done is closed when the call has let go of everything.
	done chan struct{}
	// active: it may fill the directory. Only one call for it is.
	active    bool
	discarded bool
	// left is how much it may still write.
	left uint64
}

var errDiscarded = refuse(discarded, "the images are not wanted any more: the move has ended on this node")

// Complete implements migrate.Images.
func (s *Store) Complete(_ context.Context, m migrate.Move) (string, error) {
	name, err := moveDir(m)
	if err != nil {
		return "", err
	}
	// Under the mutex a directory that can be seen has been synced.
	s.mu.Lock()
	defer s.mu.Unlock()
	ok, err := s.complete(name)
	if !ok || err != nil {
		return "", err
	}
	return filepath.Join(s.Dir, name), nil
}

// Discard implements migrate.Images: it also ends what is being received, and returns when
// that has ended. Call it only once the record is decided, lest a sender comes again.
func (s *Store) Discard(ctx context.Context, m migrate.Move) error {
	name, err := moveDir(m)
	if err != nil {
		return err
	}
	for _, c := range s.interrupt(name) {
		select {
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("discard images %s: wait for their receiver to end: %w", name, ctx.Err())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.calls[name], func(c *call) bool { return c.active }) {
		return fmt.Errorf("discard images %s: they are being received again", name)
	}
	if err := s.remove(name); err != nil {
		return fmt.Errorf("discard images %s: %w", name, err)
	}
	return nil
}

// Sweep removes what an earlier life of the agent did not receive to the end. Call it before
// anything is served: from then on what Complete finds is there to stay.
func (s *Store) Sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("sweep images: %w", err)
	}
	for _, e := range entries {
		name, partial := strings.CutSuffix(e.Name(), partialSuffix)
		if !partial || len(s.calls[name]) > 0 {
			continue
		}
		if rerr := s.inRoot(func(r *os.Root) error { return r.RemoveAll(e.Name()) }); rerr != nil {
			err = errors.Join(err, fmt.Errorf("sweep images: %w", rerr))
		}
	}
	return errors.Join(err, durable.SyncDir(s.Dir))
}

// enter notes a call before anybody looks into the record: so a Discard that follows the
// decision finds every call that was admitted before it.
func (s *Store) enter(name string, cancel context.CancelCauseFunc) *call {
	c := &call{name: name, cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[string][]*call{}
	}
	s.calls[name] = append(s.calls[name], c)
	return c
}

func (s *Store) leave(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(s.calls[c.name], func(other *call) bool { return other == c })
	if len(rest) == 0 {
		delete(s.calls, c.name)
	} else {
		s.calls[c.name] = rest
	}
	close(c.done)
}

func (s *Store) interrupt(name string) []*call {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls[name] {
		c.discarded = true
		c.cancel(errDiscarded)
	}
	return slices.Clone(s.calls[name])
}

// begin lets the call fill its directory with at most so many bytes. kept: complete images
// are there already, there is nothing to write.
func (s *Store) begin(c *call, bytes uint64) (kept bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.discarded {
		return false, errDiscarded
	}
	for _, other := range s.calls[c.name] {
		if other.active {
			return false, refuse(busy, "images %s are being received already", c.name)
		}
	}
	if kept, err = s.complete(c.name); err != nil {
		return false, diskError(err)
	}
	if !kept {
		if err := s.space(bytes); err != nil {
			return false, err
		}
		c.left = bytes
	}
	c.active = true
	return kept, nil
}

// space refuses what does not fit beside what others may still write.
func (s *Store) space(bytes uint64) error {
	reserve := s.Reserve
	if reserve == 0 {
		reserve = 256 * model.MiB
	}
	room, err := s.room()
	if err != nil {
		return refuse(diskFailed, "tell whether images fit under %s: %w", s.Dir, err)
	}
	free, need := uint64(room), uint64(reserve)
	for _, calls := range s.calls {
		for _, c := range calls {
			need += c.left
		}
	}
	if need > free || bytes > free-need {
		return refuse(noSpace, "images of %d bytes do not fit: there is room for %d bytes, %d of them set aside, under %s",
			bytes, free, need, s.Dir)
	}
	return nil
}

func (s *Store) room() (model.Bytes, error) {
	if s.Room != nil {
		return s.Room()
	}
	var st unix.Statfs_t
	err := unix.Statfs(s.Dir, &st)
	return model.Bytes(st.Bavail) * model.Bytes(st.Bsize), err
}

// fits refuses images that begin would refuse now.
func (s *Store) fits(bytes uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.space(bytes)
}

func (s *Store) wrote(c *call, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.left -= min(c.left, uint64(n))
}

// finish makes the call's partial directory the complete one, durably.
func (s *Store) finish(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.discarded {
		return errDiscarded
	}
	err := s.inRoot(func(r *os.Root) error { return r.Rename(c.name+partialSuffix, c.name) })
	if err == nil {
		err = durable.SyncDir(s.Dir)
	}
	return diskError(err)
}

// complete needs the mutex.
func (s *Store) complete(name string) (bool, error) {
	fi, err := os.Lstat(filepath.Join(s.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !fi.IsDir() {
		return false, fmt.Errorf("%s is no directory, but a %v", filepath.Join(s.Dir, name), fi.Mode().Type())
	}
	return true, nil
}

// remove needs the mutex. Complete images lose their name first: half of them must never
// be taken for all.
func (s *Store) remove(name string) error {
	return s.inRoot(func(r *os.Root) error {
		if err := r.RemoveAll(name + partialSuffix); err != nil {
			return err
		}
		err := r.Rename(name, name+partialSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			return durable.SyncDir(s.Dir)
		}
		if err == nil {
			err = durable.SyncDir(s.Dir)
		}
		if err == nil {
			err = r.RemoveAll(name + partialSuffix)
		}
		return err
	})
}

// inRoot calls f with the directory; nothing that f names leads out of it.
func (s *Store) inRoot(f func(*os.Root) error) error {
	r, err := os.OpenRoot(s.Dir)
	if err != nil {
		return err
	}
	defer r.Close()
	return f(r)
}

func moveDir(m migrate.Move) (string, error) {
	if m.Epoch < 0 {
		return "", fmt.Errorf("migration %s/%s: epoch %d is negative", m.Namespace, m.Name, m.Epoch)
	}
	return layout.MoveDir(m.UID, uint64(m.Epoch))
}
