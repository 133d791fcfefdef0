package repair

import (
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connection that was left in repair mode goes on, with what it has sent and received.
func TestEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{}
	d.SetMultipathTCP(false)
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.SetsockoptInt(int(f.Fd()), unix.IPPROTO_TCP, unix.TCP_REPAIR, on); err != nil {
		t.Fatalf("put a connection into repair mode (this takes CAP_NET_ADMIN): %v", err)
	}
	// The one that has it is another process, and beside it has files of other kinds.
	holder := exec.Command("sleep", "600")
	holder.ExtraFiles = []*os.File{f}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	}()
	for _, want := range []int{1, 0} {
		if got, err := End(holder.Process.Pid); err != nil || got != want {
			t.Errorf("ended %d, %v; want %d", got, err, want)
		}
	}
	if _, err := c.Write([]byte("on it goes")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len("on it goes"))
	if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, buf); err != nil || string(buf) != "on it goes" {
		t.Errorf("got %q, %v", buf, err)
	}
}

func TestEndOfNobody(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if got, err := End(gone.Process.Pid); err != nil || got != 0 {
		t.Errorf("ended %d, %v", got, err)
	}
}
