package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/drover-project/drover/test/netspace"
)

// other makes a network namespace with its loopback up, and gives a path to it that is good until
// the test ends.
func other(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns := netspace.Make(t)
	if err := netspace.In(ns, func() error { return netspace.Up("lo") }); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", int(ns))
}

func TestSocketsAreThere(t *testing.T) {
	path := other(t)
	l, err := Listen(path, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Errorf("%s is reached from outside its namespace", l.Addr())
	}
	c, err := Dial(t.Context(), path, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	p, err := ListenPacket(path, "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := Dial(t.Context(), path, "tcp", "localhost:80"); err == nil || !strings.Contains(err.Error(), "only IP:port") {
		t.Errorf("dial of a name: %v", err)
	}
}

// No thread that goes on running Go code is left in the other namespace.
func TestComesBack(t *testing.T) {
	path := other(t)
	home := current(t)
	boom := errors.New("boom")
	for range 100 {
		if err := Do(path, func() error { return boom }); !errors.Is(err, boom) {
			t.Fatalf("got %v, want %v", err, boom)
		}
		if now := current(t); now != home {
			t.Fatalf("in %s, want %s", now, home)
		}
	}
	if err := Do("/proc/0/ns/net", func() error { return nil }); err == nil {
		t.Error("entered the namespace of no process")
	}
}

// current is the calling thread's namespace. (That of /proc/self is the first thread's, which may
// have been the one that made the other namespace.)
func current(t *testing.T) string {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return ns
}
