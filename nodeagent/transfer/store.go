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

	agentv1 "github.com/drover-project/drover/api/agent/v1"
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
	// Join makes images that build on no others of those in a directory, once all have come and are
	// verified: chain.Join. It asks aside for the bytes that it needs beside them, before it touches them. An
	// error: they are not taken. May be nil.
	Join func(dir string, aside func(bytes uint64) error) error

	mu sync.Mutex
	// calls in progress, and what has come of images that are not complete, by the name of
	// the directory that they are for.
	calls  map[string][]*call
	coming map[string]*coming
	// named are the digests of the manifests of images that were joined, by the name of their
	// directory: they are not those that came any more.
	named map[string]digest
}

var _ migrate.Images = (*Store)(nil)

const partialSuffix = ".partial"

// maxCalls is how many calls may work on one move at once. Those of a connection that is lost
// may not know it yet when its sender comes back.
const maxCalls = 64

// call is one sender's. The fields are the Store's and guarded by its mutex.
type call struct {
	name   string
	cancel context.CancelCauseFunc
	// done is closed when the call has let go of everything.
	done      chan struct{}
	discarded bool
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
	return s.discard(ctx, name)
}

func (s *Store) discard(ctx context.Context, name string) error {
	for _, c := range s.interrupt(name) {
		select {
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("discard images %s: wait for their receiver to end: %w", name, ctx.Err())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.coming[name] != nil && len(s.calls[name]) > 0 {
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

// leave ends a call. The last of those of a sender that did what it must not takes away what
// they brought.
func (s *Store) leave(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(c.done)
	rest := slices.DeleteFunc(s.calls[c.name], func(other *call) bool { return other == c })
	if len(rest) > 0 {
		s.calls[c.name] = rest
		return
	}
	delete(s.calls, c.name)
	if co := s.coming[c.name]; co != nil && co.ended() {
		s.forget(c.name)
		// If it fails, Leftovers finds it.
		_ = s.inRoot(func(r *os.Root) error { return r.RemoveAll(c.name + partialSuffix) })
	}
}

// forget lets go of what has come, and not of the files. It needs the mutex.
func (s *Store) forget(name string) {
	if co := s.coming[name]; co != nil {
		co.letGo()
		delete(s.coming, name)
	}
}

func (s *Store) interrupt(name string) []*call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if co := s.coming[name]; co != nil {
		co.spoil(errDiscarded)
	}
	for _, c := range s.calls[name] {
		c.discarded = true
		c.cancel(errDiscarded)
	}
	return slices.Clone(s.calls[name])
}

// admitted tells that a sender was let in for the same move before, and that this has not been
// undone since by Discard: the record need not be read again.
func (s *Store) admitted(name, caller string, b *agentv1.Begin) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	co := s.coming[name]
	return co != nil && co.caller == caller && co.record == keyOf(b) && !co.ended()
}

// may refuses a call that was discarded, or is one too many. It needs the mutex.
func (s *Store) may(c *call) error {
	if c.discarded {
		return errDiscarded
	}
	if len(s.calls[c.name]) > maxCalls {
		return refuse(busy, "%d calls work on images %s already", maxCalls, c.name)
	}
	return nil
}

// find gives what has come for a call that was admitted; nil: nothing. kept: complete images
// are there.
func (s *Store) find(c *call) (co *coming, kept bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.may(c); err != nil {
		return nil, false, err
	}
	kept, err = s.complete(c.name)
	return s.coming[c.name], kept, diskError(err)
}

// join lets an admitted call add to what has come, and sets aside the room that it declares.
func (s *Store) join(c *call, caller string, b *agentv1.Begin) (*coming, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.may(c); err != nil {
		return nil, err
	}
	if kept, err := s.complete(c.name); err != nil {
		return nil, diskError(err)
	} else if kept {
		return nil, errLate
	}
	co := s.coming[c.name]
	if co != nil && (co.caller != caller || co.record != keyOf(b)) {
		return nil, refuse(byRecord, "images %s come from node %q for another record", c.name, co.caller)
	}
	var limit, aheadLimit uint64
	if co != nil {
		limit, aheadLimit = co.limits()
	}
	total, before := max(limit, b.GetTotalBytes()), max(aheadLimit, b.GetAheadBytes())
	if more := aside(total, before) - aside(limit, aheadLimit); more > 0 || co == nil {
		if err := s.space(more); err != nil {
			return nil, err
		}
	}
	if co == nil {
		var err error
		if co, err = newComing(s, c.name, caller, b); err != nil {
			return nil, err
		}
		if s.coming == nil {
			s.coming = map[string]*coming{}
		}
		s.coming[c.name] = co
	}
	co.allow(total, before)
	return co, nil
}

// spoil ends all calls of a sender that did what it must not.
func (s *Store) spoil(co *coming, why error) {
	co.spoil(why)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.coming[co.name] != co {
		return
	}
	for _, c := range s.calls[co.name] {
		c.cancel(why)
	}
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
	for _, co := range s.coming {
		need += co.left()
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

// more sets aside so many bytes beside what has come of images of which no more comes.
func (s *Store) more(c *coming, bytes uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := c.left()
	if bytes <= left {
		return nil
	}
	if err := s.space(bytes - left); err != nil {
		return err
	}
	total, ahead := c.limits()
	c.allow(max(total, ahead)+bytes-left, ahead)
	return nil
}

// finish makes the partial directory the complete one, durably.
func (s *Store) finish(c *call, m manifest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.discarded {
		return errDiscarded
	}
	if s.named == nil {
		s.named = map[string]digest{}
	}
	s.named[c.name] = m.sum()
	err := s.inRoot(func(r *os.Root) error { return r.Rename(c.name+partialSuffix, c.name) })
	if err == nil {
		s.forget(c.name)
		err = durable.SyncDir(s.Dir)
	}
	return diskError(err)
}

// same tells that complete images came by that manifest, and to this life of the agent.
func (s *Store) same(name string, m manifest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum, ok := s.named[name]
	return ok && sum == m.sum()
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
	s.forget(name)
	delete(s.named, name)
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
