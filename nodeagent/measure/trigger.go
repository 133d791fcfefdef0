package measure

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
)

// PressureTriggers tell that a node begins to stall. OpenTriggers gives the kernel's.
type PressureTriggers interface {
	// Fired gets a value soon after the node has stalled for more than was asked for, and again
	// while it does. It is closed when the kernel tells no more.
	Fired() <-chan struct{}
	Close() error
}

// The windows of a trigger, best first: one below two seconds wants CAP_SYS_RESOURCE, any
// other Linux 6.5 or that capability (kernel/sched/psi.c, psi_trigger_create).
var triggerWindows = []time.Duration{500 * time.Millisecond, 2 * time.Second}

type triggers struct {
	files  []*os.File
	wake   [2]int // closing the second end ends the goroutine
	fired  chan struct{}
	closed sync.Once
	ended  chan struct{}
}

// OpenTriggers asks the kernel to tell when some task has stalled for more than a share (0..1) of
// a window. files are those of pressure stall information, with the share that each is
// asked for.
func OpenTriggers(files map[string]float64) (PressureTriggers, error) {
	t := &triggers{fired: make(chan struct{}, 1), ended: make(chan struct{})}
	for file, share := range files {
		f, err := openTrigger(file, share)
		if err != nil {
			return nil, errors.Join(err, t.closeFiles())
		}
		t.files = append(t.files, f)
	}
	if err := unix.Pipe2(t.wake[:], unix.O_CLOEXEC); err != nil {
		return nil, errors.Join(fmt.Errorf("make a pipe for pressure triggers: %w", err), t.closeFiles())
	}
	go t.wait()
	return t, nil
}

func openTrigger(file string, share float64) (f *os.File, err error) {
	for _, window := range triggerWindows {
		// By number, so that Go's own poller leaves it alone: it takes no POLLPRI.
		fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s for a trigger: %w", file, err)
		}
		f = os.NewFile(uintptr(fd), file)
		ask := fmt.Sprintf("some %d %d\x00", time.Duration(share*float64(window)).Microseconds(), window.Microseconds())
		if _, err = unix.Write(fd, []byte(ask)); err == nil {
			return f, nil
		}
		f.Close()
		if window == triggerWindows[len(triggerWindows)-1] {
			return nil, fmt.Errorf("set the trigger %q on %s (Linux 6.5, or CAP_SYS_RESOURCE, is needed): %w", ask[:len(ask)-1], file, err)
		}
	}
	return nil, nil // not reached: there are windows
}

// wait passes on what the kernel tells until Close, or until a file has become of no use: its
// control group is gone.
func (t *triggers) wait() {
	defer close(t.ended)
	defer close(t.fired)
	polled := []unix.PollFd{{Fd: int32(t.wake[0])}}
	for _, f := range t.files {
		polled = append(polled, unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLPRI})
	}
	for {
		if _, err := unix.Poll(polled, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if polled[0].Revents != 0 {
			return
		}
		for _, p := range polled[1:] {
			if p.Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
				return
			}
			if p.Revents&unix.POLLPRI == 0 {
				continue
			}
			select {
			case t.fired <- struct{}{}:
			default: // told already
			}
		}
	}
}

func (t *triggers) Fired() <-chan struct{} { return t.fired }

func (t *triggers) Close() (err error) {
	t.closed.Do(func() {
		err = unix.Close(t.wake[1])
		<-t.ended
		err = errors.Join(err, unix.Close(t.wake[0]), t.closeFiles())
	})
	return err
}

func (t *triggers) closeFiles() error {
	var errs []error
	for _, f := range t.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// triggerFiles are the files that tell of a node's stalls for memory and IO, each with the share
// at which its containers may be tight.
func (c *Contention) triggerFiles() map[string]float64 {
	files := map[string]float64{}
	for _, r := range []model.Resource{model.OnMemory, model.OnIO} {
		files[c.nodePressureFile(r)] = c.config.Thresholds[r].Tight.Trigger
	}
	return files
}

// nodePressureFile is the node's own, or the machine's.
func (c *Contention) nodePressureFile(r model.Resource) string {
	if file := c.config.Cgroups.pressureFile(c.config.Kubepods.parent(), r); file != "" {
		return file
	}
	return machinePressure(c.config.Proc, r)
}
