package runtimewrapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/layout"
)

// descriptors is the one image that runc writes and reads itself.
const descriptors = "descriptors.json"

// restoreLog is CRIU's log of a restore, as runc names it.
const restoreLog = "restore.log"

// beginning is how long runc may take until it waits for the images, and to end when it is killed. The
// agent hears of the create only then.
const beginning = 5 * time.Second

// errStuck: a runc that was to end has not, so that no other may touch the container.
var errStuck = errors.New("the runc that had begun to restore the container does not end")

// early is a runc that has begun to restore a container while the images are still to come: a pod
// stands frozen when they are there. runc looks at the bundle, makes the places for mounts and asks
// CRIU for its version, then reads descriptors, and then it starts CRIU (runc,
// libcontainer/criu_linux.go). In the directory that it is given descriptors is a FIFO,
// so that is where it waits.
type early struct {
	images, work string
	runc         *exec.Cmd
	// descriptors is the other end of what runc waits for.
	descriptors *os.File
	// ended is closed when runc has ended; err is how.
	ended chan struct{}
	err   error
}

// beginEarly begins a restore, and returns when runc waits for the images: before, it mounts and unmounts
// where files are made that come with them. An error: it was not begun, and can be when the images are there,
// unless it wraps errStuck.
func (w *Wrapper) beginEarly(ctx context.Context, in invocation, note layout.Container, b *bundle) (*early, error) {
	if in.consoleSocket != "" {
		// Each runc connects to it, and whoever listens takes the first connection for the container's.
		return nil, errors.New("a restore with a terminal is not begun before its images are there")
	}
	if err := b.save(); err != nil {
		return nil, err
	}
	e := &early{images: w.layout.Staged(in.id), work: w.layout.Work(in.id), ended: make(chan struct{})}
	if err := e.prepare(); err != nil {
		e.clear()
		return nil, fmt.Errorf("begin a restore before its images are there: %w", err)
	}
	e.runc = w.command(in.restoreArgs(b, e.images, e.work))
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // its signal of death is bound to the thread
		defer runtime.UnlockOSThread()
		err := e.runc.Start()
		started <- err
		if err == nil {
			e.err = e.runc.Wait()
			close(e.ended)
		}
	}()
	if err := <-started; err != nil {
		e.clear()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, beginning)
	defer cancel()
	err := e.untilItWaits(ctx)
	if err == nil {
		err = w.noteBegun(note, b)
	}
	if err != nil {
		return nil, errors.Join(err, w.undo(e, in, note))
	}
	return e, nil
}

// noteBegun notes where runc has found the places for mounts. Nothing has come yet by which they would
// lie elsewhere: the agent has not heard of the create.
func (w *Wrapper) noteBegun(note layout.Container, b *bundle) (err error) {
	if note.Begun, err = b.places(); err != nil {
		return err
	}
	return w.layout.WriteContainer(note)
}

// log is what CRIU makes before it does anything else.
func (e *early) log() string { return filepath.Join(e.work, restoreLog) }

// prepare makes the directories. The agent makes the one above, on the file system where images come to.
func (e *early) prepare() error {
	if err := os.RemoveAll(e.images); err != nil {
		return err
	}
	if err := os.Mkdir(e.images, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(e.work, 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(e.log()); err != nil {
		return err
	}
	return unix.Mkfifo(filepath.Join(e.images, descriptors), 0o600)
}

// clear removes them; what it cannot, delete removes. The one of logs stays if a daemon is at work in it.
func (e *early) clear() { _, _ = os.RemoveAll(e.images), os.Remove(e.work) }

// untilItWaits returns when runc has opened the FIFO.
func (e *early) untilItWaits(ctx context.Context) error {
	path := filepath.Join(e.images, descriptors)
	opened := make(chan *os.File, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // returns when somebody reads
		if err != nil {
			_ = e.runc.Process.Kill()
		}
		opened <- f
	}()
	var why error
	select {
	case e.descriptors = <-opened:
		return nil
	case <-e.ended:
		why = fmt.Errorf("runc restore ended before it read any image (%v)", e.err)
	case <-ctx.Done():
		why = ctx.Err()
	}
	if r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
		(<-opened).Close()
		r.Close()
	}
	return why
}

// goOn gives runc the complete images. began is false if it has ended and CRIU has done nothing: then
// another can restore them. Else err is how the restore ended.
func (e *early) goOn(complete string) (began bool, err error) {
	if e == nil {
		return false, nil
	}
	data, err := e.stage(complete)
	if err == nil {
		_, err = e.descriptors.Write(data)
	}
	if err != nil {
		return false, nil
	}
	e.descriptors.Close() // runc reads to the end
	<-e.ended
	if _, err := os.Lstat(e.log()); e.err != nil && err != nil {
		return false, nil
	}
	_ = os.RemoveAll(e.images) // also done by delete
	return true, e.err
}

// stage gives the complete images a second name, where runc looks for them, but for descriptors,
// which it returns.
func (e *early) stage(complete string) ([]byte, error) {
	all, err := os.ReadDir(complete)
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Name() == descriptors {
			continue
		}
		if err := os.Link(filepath.Join(complete, i.Name()), filepath.Join(e.images, i.Name())); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(filepath.Join(complete, descriptors))
}

// giveUp ends runc, which has not started CRIU. An error wraps errStuck.
func (e *early) giveUp() error {
	_ = e.runc.Process.Kill() // fails if it has ended
	late := time.NewTimer(beginning)
	defer late.Stop()
	select {
	case <-e.ended:
		e.clear()
		return nil
	case <-late.C:
		return fmt.Errorf("%w: process %d was killed %s ago", errStuck, e.runc.Process.Pid, beginning)
	}
}

// undo gives an early restore up, if there is one, and takes away what it has made. An error wraps
// errStuck.
func (w *Wrapper) undo(e *early, in invocation, note layout.Container) error {
	if e == nil {
		return nil
	}
	if err := e.giveUp(); err != nil {
		return err
	}
	w.cleanUp(in, note)
	return nil
}

// command is runc on this process's own standard streams. It ends with this process.
func (w *Wrapper) command(args []string) *exec.Cmd {
	cmd := exec.Command(w.runc, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
