package checkpoint

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/drover-project/drover/internal/thread"
)

// wires numbers the devices of a run.
var wires atomic.Int32

// lan is a bridge with sandboxes on it.
type lan struct {
	t    *testing.T
	name string
}

func newLAN(t *testing.T) lan {
	t.Helper()
	l := lan{t, fmt.Sprintf("lan%d", wires.Add(1))}
	run(t, "ip", "link", "add", l.name, "up", "type", "bridge")
	t.Cleanup(func() { run(t, "ip", "link", "del", l.name) })
	return l
}

// addresses of sandbox n.
func (lan) addresses(n int) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.7.0.%d", n)), netip.MustParseAddr(fmt.Sprintf("fd07::%d", n))}
}

// plug makes the network namespace of that name number n.
func (l lan) plug(space string, n int) {
	l.t.Helper()
	wire, a := fmt.Sprintf("wire%d", wires.Add(1)), l.addresses(n)
	run(l.t, "ip", "link", "add", wire, "up", "master", l.name, "type", "veth", "peer", "name", "eth0", "netns", space)
	run(l.t, "ip", "-n", space, "address", "add", a[0].String()+"/24", "dev", "eth0")
	run(l.t, "ip", "-n", space, "address", "add", a[1].String()+"/64", "dev", "eth0", "nodad")
	run(l.t, "ip", "-n", space, "link", "set", "eth0", "up")
}

// client makes a network namespace that is number n, with nothing in it.
func (l lan) client(n int) (space string) {
	l.t.Helper()
	space = fmt.Sprintf("client%d", wires.Add(1))
	run(l.t, "ip", "netns", "add", space)
	l.t.Cleanup(func() { run(l.t, "ip", "netns", "del", space) })
	l.plug(space, n)
	return space
}

// pace is how often a talk sends a line.
const pace = 5 * time.Millisecond

// talk is a client that sends numbered lines to one who echoes them. Every error on its way ends
// it, and every line that comes back has to be the next one; of datagrams some may be missing.
type talk struct {
	t        *testing.T
	name     string
	conn     net.Conn
	datagram bool
	sent     atomic.Int64
	back     chan int64
	failed   chan error
	stop     chan struct{}
	gap      time.Duration // the longest between two lines; read it after the end
}

func (l lan) talk(space, network string, to netip.Addr) *talk {
	l.t.Helper()
	k := &talk{t: l.t, name: fmt.Sprintf("%s to %v", network, to), datagram: network == "udp",
		back: make(chan int64, 1<<20), failed: make(chan error, 2), stop: make(chan struct{})}
	ns, err := netns.GetFromName(space)
	if err != nil {
		l.t.Fatal(err)
	}
	defer ns.Close()
	err = thread.Apart(func() (err error) {
		if err = netns.Set(ns); err != nil {
			return err
		}
		d := net.Dialer{Timeout: patience}
		d.SetMultipathTCP(false)
		k.conn, err = d.Dial(network, netip.AddrPortFrom(to, 8081).String())
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { k.conn.Close() })
	go func() { k.failed <- k.send() }()
	go func() { k.failed <- k.receive() }()
	return k
}

func (k *talk) send() error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-k.stop:
			if c, ok := k.conn.(*net.TCPConn); ok {
				return c.CloseWrite()
			}
			return nil
		case <-tick.C:
			if _, err := fmt.Fprintln(k.conn, k.sent.Load()); err != nil {
				return err
			}
			k.sent.Add(1)
		}
	}
}

func (k *talk) receive() error {
	next, last := int64(0), time.Now()
	for s := bufio.NewScanner(k.conn); ; next++ {
		if !s.Scan() {
			close(k.back)
			if s.Err() == nil && next != k.sent.Load() {
				return fmt.Errorf("%d lines came back of %d", next, k.sent.Load())
			}
			return s.Err()
		}
		var got int64
		if _, err := fmt.Sscan(s.Text(), &got); err != nil {
			return fmt.Errorf("line %q: %w", s.Text(), err)
		}
		if got < next || got > next && !k.datagram {
			return fmt.Errorf("line %d where %d was due", got, next)
		}
		next = got
		k.gap, last = max(k.gap, time.Since(last)), time.Now()
		k.back <- got
	}
}

// goOn waits until a line came back that was sent from now on.
func (k *talk) goOn() {
	k.t.Helper()
	due := k.sent.Load() + 1
	for limit := time.After(patience); ; {
		select {
		case n, ok := <-k.back:
			if !ok {
				k.t.Fatalf("%s ended: %v", k.name, <-k.failed)
			}
			if n >= due {
				return
			}
		case err := <-k.failed:
			k.t.Fatalf("%s failed: %v", k.name, err)
		case <-limit:
			k.t.Fatalf("%s: line %d does not come back", k.name, due)
		}
	}
}

// end fails unless every line of a connection came back.
func (k *talk) end() {
	k.t.Helper()
	k.goOn()
	close(k.stop)
	if err := <-k.failed; err != nil {
		k.t.Errorf("%s: %v", k.name, err)
	}
	if k.datagram {
		k.conn.Close()
		if err := <-k.failed; !strings.Contains(err.Error(), "closed") {
			k.t.Errorf("%s: %v", k.name, err)
		}
	} else if err := <-k.failed; err != nil {
		k.t.Errorf("%s: %v", k.name, err)
	}
	k.t.Logf("%s: %d lines, longest gap %v", k.name, k.sent.Load(), k.gap.Round(time.Millisecond))
}
