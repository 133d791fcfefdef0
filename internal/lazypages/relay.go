package lazypages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// Verb is the hidden verb of drover-runc that leads to Main.
const Verb = "drover-pages"

// Main is the relay's process: its descriptor 3 is the daemon's connection, args the path of the
// socket on which it waits for agents. It ends with the daemon. It returns the process's exit code.
func Main(args []string) int {
	// A node that is shut down asks all processes to end, and lets pods take their time.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	if len(args) != 1 {
		fmt.Fprintf(os.Stderr, "usage: drover-runc %s SOCKET\n", Verb)
		return 2
	}
	if err := relayFrom(os.NewFile(3, "daemon"), args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func relayFrom(file *os.File, socket string) error {
	c, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("the daemon's connection: %w", err)
	}
	daemon, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("the daemon's connection is %T, want a Unix socket", c)
	}
	return Relay(daemon, socket)
}

// Relay serves a daemon with what agents feed it with that connect to the socket, and ends when the
// daemon has, or when an agent says that memory is lost. Whoever connects later takes the place of who
// was there: an agent that comes back finds its former life's connection still open, perhaps.
func Relay(daemon *net.UnixConn, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return errors.Join(fmt.Errorf("wait for agents: %w", err), daemon.Close())
	}
	defer l.Close() // removes the socket
	r := &relay{came: make(chan struct{})}
	go r.accept(l)
	watched := make(chan error, 1)
	go func() {
		watched <- untilHungUp(daemon)
		r.end()
	}()
	err = Serve(daemon, r.read)
	if errors.Is(err, errEnded) {
		err = nil
	}
	return errors.Join(err, daemon.CloseRead(), daemon.CloseWrite(), <-watched, daemon.Close())
}

// errEnded: the daemon has ended while it was being answered.
var errEnded = errors.New("the daemon has ended")

// untilHungUp returns when the other end is closed, whatever is still to be read, or this one is shut.
func untilHungUp(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			if _, failed = unix.Poll(p, -1); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, failed)
}

// relay has at most one feeder.
type relay struct {
	mu     sync.Mutex
	feeder net.Conn
	came   chan struct{} // closed and made anew when one comes
	over   bool
}

func (r *relay) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		r.take(c)
	}
}

func (r *relay) take(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		c.Close()
		return
	}
	if r.feeder != nil {
		r.feeder.Close()
	}
	r.feeder = c
	close(r.came)
	r.came = make(chan struct{})
}

func (r *relay) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.over = true
		close(r.came)
	}
	if r.feeder != nil {
		r.feeder.Close()
	}
}

// read asks one feeder after the other until one answers.
func (r *relay) read(want Range, b []byte) error {
	for {
		r.mu.Lock()
		feeder, came, over := r.feeder, r.came, r.over
		r.mu.Unlock()
		switch {
		case over:
			return errEnded
		case feeder == nil:
			<-came
			continue
		}
		err := ask(feeder, want, b)
		if err == nil || errors.Is(err, ErrLost) {
			return err
		}
		feeder.Close()
		r.mu.Lock()
		if r.feeder == feeder {
			r.feeder = nil
		}
		r.mu.Unlock()
	}
}

// ErrLost: memory is nowhere any more.
var ErrLost = errors.New("the memory is lost")

// The words between relay and feeder: a range, then a byte and the memory; or a byte, the length of
// a reason in another one, and the reason.
const (
	rangeSize      = 24
	given     byte = 1
	lost      byte = 2
)

// ask has a feeder fill b.
func ask(feeder io.ReadWriter, want Range, b []byte) error {
	var q [rangeSize]byte
	for i, n := range []uint64{want.Process, want.Address, want.Size} {
		binary.NativeEndian.PutUint64(q[8*i:], n)
	}
	if _, err := feeder.Write(q[:]); err != nil {
		return err
	}
	var word [1]byte
	if _, err := io.ReadFull(feeder, word[:]); err != nil {
		return err
	}
	switch word[0] {
	case given:
		_, err := io.ReadFull(feeder, b)
		return err
	case lost:
		if _, err := io.ReadFull(feeder, word[:]); err != nil {
			return err
		}
		reason := make([]byte, word[0])
		if _, err := io.ReadFull(feeder, reason); err != nil {
			return err
		}
		return fmt.Errorf("%w: %s", ErrLost, reason)
	}
	return fmt.Errorf("a feeder said %d", word[0])
}
