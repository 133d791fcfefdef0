package address

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/test/netspace"
)

// served is a server at all of the pod's addresses where it is now, and what it has accepted.
func served(t *testing.T, p pod) <-chan *net.TCPConn {
	t.Helper()
	var l *net.TCPListener
	must(t, netspace.In(p.ns, func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		return err
	}))
	t.Cleanup(func() { l.Close() })
	accepted := make(chan *net.TCPConn, 10)
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	return accepted
}

func use(t *testing.T, w *world) Use {
	t.Helper()
	u, err := Used(w.new.path(), w.lease, time.Minute)
	must(t, err)
	return u
}

// What still uses the old addresses is counted, also when the server's socket is for both families,
// and what talks to the new address is not.
func TestUsed(t *testing.T) {
	w := moved(t, "IPv4")
	accepted := served(t, w.new)
	if u := use(t, w); len(u.Connections) != 0 || u.Peers != 0 || u.Left <= time.Hour-patience || u.Left > time.Hour {
		t.Errorf("at first %+v", u)
	}
	for i, a := range w.lease.Old {
		c, err := w.far.dial(netip.AddrPortFrom(a, port))
		must(t, err)
		mine, err := w.near.dial(netip.AddrPortFrom(w.new.like(a), port))
		must(t, err)
		defer mine.Close()
		ends := []*net.TCPConn{<-accepted, <-accepted}
		if u := use(t, w); len(u.Connections) != 1 {
			t.Errorf("%v: with one connection %+v", a, u)
		}
		// The peer closes first, so that the last that is left is with it.
		c.Close()
		for _, end := range ends {
			if end.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap() == w.far.like(a) {
				if _, err := io.ReadAll(end); err != nil {
					t.Error(err)
				}
			}
			end.Close()
		}
		eventually(t, "a closed connection counts", func() bool { return len(use(t, w).Connections) == 0 })
		udp := w.far.udp(t, netip.AddrPortFrom(w.far.like(a), 0))
		_, err = udp.WriteToUDPAddrPort([]byte{1}, netip.AddrPortFrom(a, ours))
		must(t, err)
		eventually(t, "a peer does not count", func() bool { return use(t, w).Peers == i+1 })
	}
	if u, err := Used(w.new.path(), w.lease, 0); err != nil || u.Peers != 0 {
		t.Errorf("of the last 0 s: %+v, %v", u, err)
	}
	if _, err := Used(w.left.path(), Lease{Old: w.lease.Old, New: w.far.v4}, 0); !errors.Is(err, ErrNoEnd) {
		t.Errorf("of another lease: %v", err)
	}
}

func eventually(t *testing.T, otherwise string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatal(otherwise)
		}
	}
}

// A lease that is left ends its connections so that both ends hear of it, and leaves nothing.
func TestLeave(t *testing.T) {
	for _, first := range firsts {
		t.Run("tunnel over "+first, func(t *testing.T) {
			w := newWorld(t, first)
			w.far.reaches(t, w.new, w.new.v6)
			fresh := w.new.state(t)
			w.move(t)
			accepted := served(t, w.new)
			var ends []*net.TCPConn
			for _, a := range w.lease.Old {
				c, err := w.far.dial(netip.AddrPortFrom(a, port))
				must(t, err)
				defer c.Close()
				end := <-accepted
				defer end.Close()
				ends = append(ends, c, end)
			}
			must(t, Leave(w.new.path(), w.lease))
			for i, c := range ends {
				must(t, c.SetReadDeadline(time.Now().Add(patience)))
				_, err := c.Read(make([]byte, 1))
				if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNABORTED) {
					t.Errorf("end %d hears %v", i, err)
				}
			}
			if _, err := Used(w.new.path(), w.lease, 0); !errors.Is(err, ErrNoEnd) {
				t.Errorf("of a lease that was left: %v", err)
			}
			if diff := cmp.Diff(fresh, w.new.state(t)); diff != "" {
				t.Error("something is left:", diff)
			}
			must(t, Leave(w.new.path(), w.lease)) // again
		})
	}
}

// What a socket still sends from an old address when its lease was left goes nowhere.
func TestLeftSocketIsSilent(t *testing.T) {
	w := moved(t, "IPv4")
	for _, a := range w.lease.Old {
		heard := w.far.udp(t, netip.AddrPortFrom(w.far.like(a), port))
		bound := w.new.udp(t, netip.AddrPortFrom(a, ours))
		to := netip.AddrPortFrom(w.far.like(a), port)
		_, err := bound.WriteToUDPAddrPort([]byte("before"), to)
		must(t, err)
		must(t, heard.SetReadDeadline(time.Now().Add(patience)))
		buf := make([]byte, 10)
		if n, err := heard.Read(buf); err != nil || string(buf[:n]) != "before" {
			t.Fatalf("heard %q, %v", buf[:n], err)
		}
		defer func() {
			_, _ = bound.WriteToUDPAddrPort([]byte("after"), to) // that it fails is as well
			mark := w.new.udp(t, netip.AddrPortFrom(w.new.like(a), 0))
			_, err := mark.WriteToUDPAddrPort([]byte("mark"), to)
			must(t, err)
			must(t, heard.SetReadDeadline(time.Now().Add(patience)))
			if n, err := heard.Read(buf); err != nil || string(buf[:n]) != "mark" {
				t.Errorf("heard %q, %v; want the mark alone", buf[:n], err)
			}
		}()
	}
	must(t, Leave(w.new.path(), w.lease))
}

func TestAddressesAndStands(t *testing.T) {
	w := newWorld(t, "IPv4")
	all, err := Addresses(w.left.path())
	must(t, err)
	if len(all) != 2 || !slices.Contains(all, w.left.v4) || !slices.Contains(all, w.left.v6) {
		t.Errorf("addresses %v, want %v and %v", all, w.left.v4, w.left.v6)
	}
	if err := Stands(w.left.path(), w.lease); !errors.Is(err, ErrNoEnd) {
		t.Errorf("before a lease: %v", err)
	}
	must(t, Hold(w.left.path(), w.lease))
	must(t, Stands(w.left.path(), w.lease))
	if l, err := Left(w.left.path()); err != nil || l.String() != w.lease.String() {
		t.Errorf("it is an end of %v, %v; want of %v", l, err, w.lease)
	}
	if l, err := Left(w.new.path()); !errors.Is(err, ErrNoEnd) {
		t.Errorf("the other is an end of %v, %v", l, err)
	}
	if all, err := Arrived(w.left.path()); err != nil || len(all) != 0 {
		t.Errorf("nobody has come to where the pod has left: %v, %v", all, err)
	}
	must(t, netspace.In(w.left.ns, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrDel(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: w.left.v4.AsSlice(), Mask: net.CIDRMask(24, 32)}})
	}))
	if err := Stands(w.left.path(), w.lease); !errors.Is(err, ErrNoEnd) {
		t.Errorf("without its address: %v", err)
	}
}

func TestAble(t *testing.T) { must(t, Able()) }

// A copy that is killed before its lease is opened closes connections that are its source's still: the
// kernel goes on sending FINs for it, and none may be there when nothing holds them any more.
func TestClearedSocketIsSilent(t *testing.T) {
	w := newWorld(t, "IPv4")
	w.far.reaches(t, w.new, w.new.v6)
	fresh := w.new.state(t)
	w.move(t)
	accepted := served(t, w.new)
	for _, a := range w.lease.Old {
		c, err := w.far.dial(netip.AddrPortFrom(a, port))
		must(t, err)
		defer c.Close()
	}
	must(t, Open(w.new.path(), w.lease, 0))
	for range w.lease.Old {
		(<-accepted).Close()
	}
	s, err := enter(w.new.path())
	must(t, err)
	defer s.leave()
	unsaid := func() int {
		all, err := s.connections(w.lease)
		must(t, err)
		return len(all)
	}
	if n := unsaid(); n != len(w.lease.Old) {
		t.Fatalf("%d connections have something to say, want %d", n, len(w.lease.Old))
	}
	must(t, ClearNew(w.new.path()))
	if n := unsaid(); n != 0 {
		t.Errorf("%d connections go on speaking from an address that is somebody else's", n)
	}
	if diff := cmp.Diff(fresh, w.new.state(t)); diff != "" {
		t.Error("something is left:", diff)
	}
}
