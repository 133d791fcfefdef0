package fabric

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many frames are read from one port before the others get their turn.
	batch = 64
	// realtimePriority is above ordinary work and below the kernel's own threads.
	realtimePriority = 50
	never            = time.Duration(math.MaxInt64)
)

// mac is an Ethernet address in a form that can be a map key.
type mac [6]byte

// loop is the state of one Run; it belongs to one thread.
type loop struct {
	s       *Switch
	start   time.Time
	version uint64
	fds     []unix.PollFd // one a port, then the eventfd; a dead port has -1
	links   [][]*link
	table   map[mac]int // where an address was last seen
	free    []*frame
	vigil   vigil
}

// Run switches frames until ctx ends, and then returns nil; frames on their way are
// dropped. A port whose device has gone is left out until Attach replaces it. Only one Run
// at a time.
func (s *Switch) Run(ctx context.Context) error {
	// The goroutine ends with its thread still locked, so the runtime ends the thread and
	// the priority and timer slack below leak nowhere.
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result <- s.run(ctx)
	}()
	return <-result
}

func (s *Switch) run(ctx context.Context) error {
	wakeFD, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make the switch's eventfd: %w", err)
	}
	s.mu.Lock()
	if s.wakeFD >= 0 {
		s.mu.Unlock()
		unix.Close(wakeFD)
		return errors.New("run the switch: it runs already")
	}
	s.wakeFD = wakeFD
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wake() // cannot fail on an open eventfd
	})
	defer func() {
		stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		unix.Close(wakeFD)
		s.wakeFD = -1
	}()
	hasten()
	return newLoop(s).run(ctx)
}

// hasten lets the calling thread wake up on time. Both are best effort: without the right
// to real-time priority the switch works, with more jitter on a busy machine.
func hasten() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size:     unix.SizeofSchedAttr,
		Policy:   unix.SCHED_FIFO,
		Priority: realtimePriority,
		Flags:    unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
}

func newLoop(s *Switch) *loop {
	return &loop{s: s, start: time.Now(), table: make(map[mac]int)}
}

func (l *loop) run(ctx context.Context) error {
	defer l.letGo()
	defer l.drain()
	for ctx.Err() == nil {
		l.refresh()
		next := l.deliver()
		if err := l.wait(next); err != nil {
			return err
		}
		for port := range l.fds[:len(l.fds)-1] {
			if l.fds[port].Revents != 0 {
				l.receive(port)
			}
		}
	}
	return nil
}

func (l *loop) now() time.Duration { return time.Since(l.start) }

// deliver writes all frames that are due, and gives the time of the next.
func (l *loop) deliver() time.Duration {
	next := never
	now := l.now()
	for from := range l.links {
		for to, link := range l.links[from] {
			if link == nil {
				continue
			}
			for link.count > 0 && link.at(0).due <= now {
				l.write(link, to)
			}
			if link.count > 0 {
				next = min(next, link.at(0).due)
			}
		}
	}
	return next
}

// write delivers the oldest frame of a link.
func (l *loop) write(link *link, to int) {
	f := link.pop()
	if link.delay.Load() < 0 {
		link.cut.Add(1)
	} else if _, err := unix.Write(int(l.fds[to].Fd), f.data[:f.n]); err != nil {
		link.refused.Add(1) // the device is down or gone: as on a wire, the frame is lost
	} else {
		link.frames.Add(1)
		link.bytes.Add(uint64(f.n))
	}
	l.release(f)
}

// wait sleeps until a frame comes, somebody wakes the loop, or it is nearly time for next.
func (l *loop) wait(next time.Duration) error {
	var timeout *unix.Timespec
	if next != never {
		// Relative, but taken right before the call, and checked again after it.
		t := unix.NsecToTimespec(int64(l.vigil.rest(l.now(), next)))
		timeout = &t
	}
	for i := range l.fds {
		l.fds[i].Revents = 0
	}
	_, err := unix.Ppoll(l.fds, timeout, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for frames: %w", err)
	}
	if wake := &l.fds[len(l.fds)-1]; wake.Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(int(wake.Fd), count[:])
	}
	return nil
}

// receive reads what a port has sent and queues it towards its receivers.
func (l *loop) receive(port int) {
	for range batch {
		f := l.take()
		n, err := unix.Read(int(l.fds[port].Fd), f.data[:])
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			l.release(f)
			return
		case err != nil: // the device has gone with its namespace
			l.release(f)
			l.lose(port)
			return
		case n < headerSize:
			l.release(f)
			continue
		}
		f.n = n
		l.forward(port, f)
	}
}

// forward queues a frame to the port where its receiver was last seen, or to all others.
func (l *loop) forward(port int, f *frame) {
	now := l.now()
	to, source := mac(f.data[0:6]), mac(f.data[6:12])
	if source[0]&1 == 0 {
		l.table[source] = port
	}
	if out, known := l.table[to]; known && to[0]&1 == 0 {
		if out != port {
			l.send(port, out, f, now)
		}
	} else {
		for out := range l.links[port] {
			if out != port {
				l.send(port, out, f, now)
			}
		}
	}
	l.release(f)
}

func (l *loop) send(from, to int, f *frame, now time.Duration) {
	link := l.links[from][to]
	delay := time.Duration(link.delay.Load())
	if delay < 0 {
		link.cut.Add(1)
		return
	}
	if loss := math.Float64frombits(link.loss.Load()); loss > 0 && rand.Float64() < loss {
		link.lost.Add(1)
		return
	}
	link.push(f, now+delay)
}

// take gives a frame with one reference, the taker's.
func (l *loop) take() *frame {
	var f *frame
	if n := len(l.free); n > 0 {
		f, l.free = l.free[n-1], l.free[:n-1]
	} else {
		f = new(frame)
	}
	f.refs = 1
	return f
}

// release gives one reference back, and the frame with the last one.
func (l *loop) release(f *frame) {
	f.refs--
	if f.refs == 0 {
		l.free = append(l.free, f)
	}
}

// drain empties every queue, so that a later Run starts with none.
func (l *loop) drain() {
	for from := range l.links {
		for _, link := range l.links[from] {
			for link != nil && link.count > 0 {
				link.pop()
			}
		}
	}
}
