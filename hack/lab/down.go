package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/cgroup"
)

// downTimeout bounds the end of all processes and cgroups.
const downTimeout = 30 * time.Second

// Down takes the lab down and leaves nothing of it, whatever state it is in; no such lab is fine.
func Down(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	unlock, err := lockLab(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return clean(ctx, name)
}

// Down takes the lab down and leaves nothing of it.
func (l *Lab) Down(ctx context.Context) error { return Down(ctx, l.Config.Name) }

// leftovers tells whether anything of the lab is there.
func leftovers(name string) bool {
	if _, err := os.Stat(filepath.Join(stateRoot(), name)); err == nil {
		return true
	}
	tree, err := cgroup.Detect()
	return err == nil && tree.Exists(groupPrefix+name) || len(strays(name)) > 0
}

// clean ends the lab's processes, found by their command lines and by the lab's cgroups, so that no
// saved pid has to be trusted; mounts, namespaces and TAPs end with them. Then it removes the
// cgroups and the files. The caller holds the lab's lock.
func clean(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, downTimeout, fmt.Errorf("not down after %s", downTimeout))
	defer cancel()
	tree, err := cgroup.Detect()
	if err != nil {
		return err
	}
	group := groupPrefix + name
	if err := until(ctx, "the lab's processes have ended", func(ctx context.Context) error {
		alive := strays(name)
		for _, p := range alive {
			p.kill()
		}
		if err := tree.Kill(ctx, group); err != nil {
			return err
		}
		if len(alive) > 0 {
			return fmt.Errorf("%d processes", len(alive))
		}
		return nil
	}); err != nil {
		return err
	}
	if err := tree.Remove(ctx, group); err != nil {
		return err
	}
	dir := filepath.Join(stateRoot(), name)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the lab's files: %w", err)
	}
	return nil
}

// lockLab keeps two programs from bringing the same lab up or down at once. The lock's file goes
// away with the lock.
func lockLab(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(stateRoot(), 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(stateRoot(), name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock lab %s: %w", name, err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(f, path) {
			return func() {
				_ = os.Remove(path) // while it is locked: who opened it before sees that it has gone
				f.Close()
				_ = os.Remove(stateRoot()) // unless it holds another lab
			}, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock lab %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock lab %s, which another program is bringing up or down: %w", name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist) && err == nil && os.SameFile(a, b)
}
