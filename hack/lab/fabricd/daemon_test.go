package fabricd

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// serveSwitch runs the daemon's part behind its socket, without a process of its own.
func serveSwitch(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "switch")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		<-d.first
		done <- d.sw.Run(ctx)
	}()
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go d.serve(conn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// wire stands in for a TAP: a datagram is a frame. One end goes to the switch.
func wire(t *testing.T) (forSwitch, ours *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fds[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}); err != nil {
		t.Fatal(err)
	}
	forSwitch, ours = os.NewFile(uintptr(fds[0]), "wire"), os.NewFile(uintptr(fds[1]), "wire")
	t.Cleanup(func() { forSwitch.Close(); ours.Close() })
	return forSwitch, ours
}

func plug(t *testing.T, socket, port string) (conn net.Conn, ours *os.File) {
	t.Helper()
	forSwitch, ours := wire(t)
	conn, err := PlugIn(socket, port, forSwitch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	forSwitch.Close()
	return conn, ours
}

// frame is addressed to all, from the station with that last byte.
func frame(from byte) []byte {
	return append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, from, 8, 0}, make([]byte, 50)...)
}

func carries(t *testing.T, from, to *os.File) {
	t.Helper()
	if _, err := from.Write(frame(1)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2000)
	n, err := to.Read(got)
	if err != nil {
		t.Fatalf("no frame came: %v", err)
	}
	if diff := cmp.Diff(frame(1), got[:n]); diff != "" {
		t.Errorf("a frame was changed:\n%s", diff)
	}
}

// A delay set before a port is there, and a port that comes back: neither loses the delay.
func TestDelaysStay(t *testing.T) {
	socket := serveSwitch(t)
	if err := SetDelay(t.Context(), socket, Delay{A: "b", B: "a", OneWay: 3 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	_, a := plug(t, socket, "a")
	conn, b := plug(t, socket, "b")
	want := []Delay{{A: "a", B: "b", OneWay: 3 * time.Millisecond}}
	check := func(when string) {
		t.Helper()
		got, err := Delays(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: got (+), want (-):\n%s", when, diff)
		}
	}
	check("both plugged in")
	carries(t, a, b)
	conn.Close() // as when the node dies
	_, b = plug(t, socket, "b")
	check("plugged in again")
	carries(t, a, b)
}

func TestBadRequests(t *testing.T) {
	socket := serveSwitch(t)
	_, _ = plug(t, socket, "a")
	if _, err := ask(t.Context(), socket, request{}); err == nil {
		t.Error("an empty request: no error")
	}
	if _, err := ask(t.Context(), socket, request{Plug: "x"}); err == nil {
		t.Error("a plug without a descriptor: no error")
	}
}
