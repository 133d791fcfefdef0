package lazypages

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var page = uint64(os.Getpagesize())

// pattern is what a test takes for memory: no two places are alike.
func pattern(r Range, b []byte) {
	for i := 0; i < len(b); i += 8 {
		binary.NativeEndian.PutUint64(b[i:], r.Process<<48^(r.Address+uint64(i)))
	}
}

// daemon is the side of CRIU.
type daemon struct {
	t *testing.T
	net.Conn
}

func (d daemon) say(command uint32, r Range) {
	d.t.Helper()
	var h [headerSize]byte
	binary.NativeEndian.PutUint32(h[0:], command)
	copy(h[4:8], "junk") // it is padding, and CRIU's is not always zero
	binary.NativeEndian.PutUint64(h[8:], r.Size/page)
	binary.NativeEndian.PutUint64(h[16:], r.Address)
	binary.NativeEndian.PutUint64(h[24:], r.Process)
	if _, err := d.Write(h[:]); err != nil {
		d.t.Fatal(err)
	}
}

// mustGet reads an answer.
func (d daemon) mustGet(r Range) {
	d.t.Helper()
	h, err := readHeader(d)
	if err != nil {
		d.t.Fatal(err)
	}
	if want := (header{command: addFlagged | present<<16, pages: r.Size / page, address: r.Address, process: r.Process}); h != want {
		d.t.Fatalf("got %+v, want %+v", h, want)
	}
	got, want := make([]byte, r.Size), make([]byte, r.Size)
	if _, err := io.ReadFull(d, got); err != nil {
		d.t.Fatal(err)
	}
	if pattern(r, want); !bytes.Equal(got, want) {
		d.t.Errorf("the memory of %+v is another's", r)
	}
}

// connect is a daemon's connection, and the end that serves it.
func connect(t *testing.T) (daemon, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		c, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
	}
	t.Cleanup(func() {
		conns[0].Close() // first: a relay waits for that, and the end of the other waits for the relay
		conns[1].Close()
	})
	return daemon{t, conns[0]}, conns[1]
}

func TestServe(t *testing.T) {
	d, served := connect(t)
	ended := make(chan error, 1)
	go func() { ended <- Serve(served, func(r Range, b []byte) error { pattern(r, b); return nil }) }()
	all := []Range{{1, 0x7f0000000000, page}, {1, 0x1000, 128 * page}, {77, 0x7f0000000000, 3 * page}, {1, 0x2000, MostAtOnce}}
	for _, r := range all[:3] { // asked for at once, answered in order
		d.say(get, r)
	}
	for _, r := range all[:3] {
		d.mustGet(r)
	}
	d.say(get, all[3])
	d.mustGet(all[3])
	d.say(doneClose, Range{})
	var status [4]byte
	if _, err := io.ReadFull(d, status[:]); err != nil || status != [4]byte{} {
		t.Errorf("status %v, %v", status, err)
	}
	d.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestServeRefuses(t *testing.T) {
	for what, say := range map[string]func(daemon){
		"nothing":       func(d daemon) { d.say(get, Range{1, 0x1000, 0}) },
		"too much":      func(d daemon) { d.say(get, Range{1, 0x1000, MostAtOnce + page}) },
		"half a page":   func(d daemon) { d.say(get, Range{1, 0x1001, page}) },
		"past the end":  func(d daemon) { d.say(get, Range{1, -page & (1<<64 - 1), 2 * page}) },
		"another word":  func(d daemon) { d.say(3, Range{1, 0x1000, page}) },
		"half a header": func(d daemon) { _, _ = d.Write(make([]byte, 7)); d.Close() },
	} {
		d, served := connect(t)
		say(d)
		err := Serve(served, func(r Range, b []byte) error {
			if uint64(len(b)) != r.Size || r.Size > MostAtOnce {
				t.Errorf("%s: %d bytes for %+v", what, len(b), r)
			}
			return nil
		})
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// relayed is a relay with its daemon.
func relayed(t *testing.T) (d daemon, socket string, ended chan error) {
	d, served := connect(t)
	socket, ended = filepath.Join(t.TempDir(), "pages"), make(chan error, 1)
	go func() { ended <- Relay(served, socket) }()
	return d, socket, ended
}

func feed(t *testing.T, socket string, read Read) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); Feed(ctx, socket, read) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func patterns(_ context.Context, r Range, b []byte) error { pattern(r, b); return nil }

func mustEnd(t *testing.T, ended chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the relay does not end")
		return nil
	}
}

// TestRelay: what an agent does not answer, for it cannot or dies meanwhile, the next one does.
func TestRelay(t *testing.T) {
	d, socket, ended := relayed(t)
	r := Range{1, 0x10000, 16 * page}
	d.say(get, r) // and no agent is there
	var tries atomic.Int32
	asked := make(chan struct{}, 1000)
	stop := feed(t, socket, func(context.Context, Range, []byte) error {
		tries.Add(1)
		asked <- struct{}{}
		return errors.New("no way to the source")
	})
	<-asked
	<-asked // it is tried again
	stop()
	stop = feed(t, socket, func(ctx context.Context, _ Range, _ []byte) error {
		asked <- struct{}{}
		<-ctx.Done() // dies while it reads
		return ctx.Err()
	})
	for n := len(asked); n > 0; n-- {
		<-asked
	}
	<-asked
	stop()
	feed(t, socket, patterns)
	d.mustGet(r)
	for i := range uint64(50) {
		d.say(get, Range{1, 0x20000 + i*page, page})
	}
	for i := range uint64(50) {
		d.mustGet(Range{1, 0x20000 + i*page, page})
	}
	d.Close()
	if err := mustEnd(t, ended); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("its socket is left: %v", err)
	}
}

// TestNewAgent: one that comes takes the place of one whose connection is still open.
func TestNewAgent(t *testing.T) {
	d, socket, _ := relayed(t)
	asked, block := make(chan struct{}), make(chan struct{})
	defer close(block)
	ctx, cancel := context.WithCancel(t.Context())
	go Feed(ctx, socket, func(context.Context, Range, []byte) error {
		close(asked)
		<-block // hangs, whatever its context says
		return errors.New("hung")
	})
	r := Range{9, 0x10000, page}
	d.say(get, r)
	<-asked
	defer cancel()
	feed(t, socket, patterns)
	d.mustGet(r)
}

// TestLost: that memory is lost ends the daemon's connection, without a page of anything.
func TestLost(t *testing.T) {
	d, socket, ended := relayed(t)
	feed(t, socket, func(context.Context, Range, []byte) error {
		return errors.Join(ErrLost, errors.New(strings.Repeat("gone ", 100)))
	})
	d.say(get, Range{1, 0x10000, page})
	if n, err := d.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, %v, want the end", n, err)
	}
	if err := mustEnd(t, ended); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("ended with %v, want that the memory is lost", err)
	}
}

// TestDaemonDies: a relay ends with its daemon, also while it waits for an agent, or for one's answer.
func TestDaemonDies(t *testing.T) {
	for what, read := range map[string]Read{"no agent": nil, "an agent that reads": func(ctx context.Context, _ Range, _ []byte) error {
		<-ctx.Done()
		return ctx.Err()
	}} {
		t.Run(what, func(t *testing.T) {
			d, socket, ended := relayed(t)
			asked := make(chan struct{}, 1)
			if read != nil {
				feed(t, socket, func(ctx context.Context, r Range, b []byte) error { asked <- struct{}{}; return read(ctx, r, b) })
			} else {
				asked <- struct{}{}
			}
			d.say(get, Range{1, 0x10000, page})
			<-asked
			d.Close()
			if err := mustEnd(t, ended); err != nil {
				t.Error(err)
			}
		})
	}
}

// FuzzServe: whatever comes for a daemon, no more is read or made room for than may be asked for.
func FuzzServe(f *testing.F) {
	good := make([]byte, headerSize)
	binary.NativeEndian.PutUint32(good, get)
	binary.NativeEndian.PutUint64(good[8:], 1)
	f.Add(good)
	f.Add([]byte("junk"))
	f.Fuzz(func(t *testing.T, said []byte) {
		_ = Serve(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(said), io.Discard}, func(r Range, b []byte) error {
			if uint64(len(b)) != r.Size || r.Size > MostAtOnce || r.Size == 0 || r.Address+r.Size < r.Address {
				t.Errorf("%d bytes for %+v", len(b), r)
			}
			return nil
		})
	})
}
