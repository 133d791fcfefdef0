package repair

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
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
	// The one that has it is another process, and beside it has files of other kinds: some before it
	// whose protocol has TCP's number and which are not TCP's.
	holder := exec.Command("sleep", "600")
	for _, like := range [][3]int{
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP},
		{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_TCP},
		{unix.AF_UNIX, unix.SOCK_STREAM, 0},
	} {
		fd, err := unix.Socket(like[0], like[1], like[2])
		if err != nil {
			t.Fatal(err)
		}
		other := os.NewFile(uintptr(fd), "other")
		defer other.Close()
		holder.ExtraFiles = append(holder.ExtraFiles, other)
	}
	holder.ExtraFiles = append(holder.ExtraFiles, f)
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

// What fails with some sockets is told of all of them, and the others are seen to.
func TestSomeFail(t *testing.T) {
	got, err := each(7, []int{3, 4, 5, 6}, func(n int) (bool, error) {
		if n%2 == 0 {
			return true, unix.EPERM
		}
		return true, nil
	})
	if got != 2 || !errors.Is(err, ErrSockets) || !errors.Is(err, unix.EPERM) {
		t.Fatalf("ended %d, %v", got, err)
	}
	for _, file := range []string{"file 4 of process 7", "file 6 of process 7"} {
		if !strings.Contains(err.Error(), file) {
			t.Errorf("%v: does not tell of %s", err, file)
		}
	}
}
