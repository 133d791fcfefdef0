package conversation

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/test/netspace"
)

// patience bounds how long a test waits for the kernel; nothing is asserted about time.
const patience = 30 * time.Second

// host is a network namespace with one device, eth0, and its two addresses.
type host struct {
	name   string
	ns     netns.NsHandle
	v4, v6 netip.Addr
}

// in runs f in the host's namespace.
func (h *host) in(t testing.TB, f func() error) {
	t.Helper()
	if err := netspace.In(h.ns, f); err != nil {
		t.Fatalf("on host %s: %v", h.name, err)
	}
}

// hosts are connected by the lab's fabric, with the given one-way delay.
func hosts(t testing.TB, delay time.Duration, names ...string) []*host {
	t.Helper()
	var all []*host
	var ports []fabric.Port
	for i, name := range names {
		last := byte(i + 1)
		h := &host{name: name, ns: netspace.Make(t),
			v4: netip.AddrFrom4([4]byte{10, 234, 0, last}), v6: netip.AddrFrom16([16]byte{0xfd, 0, 15: last})}
		h.in(t, func() error {
			f, err := fabric.OpenTAP("eth0", net.HardwareAddr{2, 0, 0, 0, 3, last})
			if err != nil {
				return err
			}
			ports = append(ports, fabric.Port{Name: name, File: f})
			return errors.Join(netspace.Up("lo"), netspace.Up("eth0", netip.PrefixFrom(h.v4, 24), netip.PrefixFrom(h.v6, 64)))
		})
		all = append(all, h)
	}
	netspace.Connect(t, delay, ports)
	return all
}

// add gives eth0 one more address.
func (h *host) add(t testing.TB, address netip.Addr) {
	t.Helper()
	h.in(t, func() error {
		return netspace.Up("eth0", netip.PrefixFrom(address, 24))
	})
}

// listen listens on a port that is free, without MPTCP.
func (h *host) listen(t testing.TB, on netip.Addr) *net.TCPListener {
	t.Helper()
	var l *net.TCPListener
	h.in(t, func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects from an address of the host and gives both ends.
func (h *host) dial(t testing.TB, from netip.Addr, to *net.TCPListener) (client, server *net.TCPConn) {
	t.Helper()
	h.in(t, func() (err error) {
		client, err = net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), to.Addr().(*net.TCPAddr))
		return err
	})
	if err := to.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	server, err := to.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.TCPConn{client, server} {
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return client, server
}

// say sends n bytes from one end to the other, and waits until all are acknowledged.
func say(t testing.TB, from, to *net.TCPConn, n int) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(make([]byte, n))
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, to, int64(n)); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is acknowledged", func() bool { return unacknowledged(t, from) == 0 })
}

// unacknowledged is how many bytes are in a connection's send queue.
func unacknowledged(t testing.TB, c *net.TCPConn) (n int) {
	t.Helper()
	control(t, c, func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return err
	})
	return n
}

// info is what the kernel itself tells of a connection.
func info(t testing.TB, c *net.TCPConn) (i *unix.TCPInfo) {
	t.Helper()
	control(t, c, func(fd int) (err error) {
		i, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return i
}

func control(t testing.TB, c *net.TCPConn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil || failed != nil {
		t.Fatal(errors.Join(err, failed))
	}
}

// eventually waits for something that must come.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !holds(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("in vain: %s", what)
		}
	}
}

// meter attaches the programs by one source.
func meter(t testing.TB, source Source, entries uint32, cgroup string) *ledger {
	t.Helper()
	return meterOf(t, source, cgroup, sized(entries))
}

// meterOf attaches them as they are adapted.
func meterOf(t testing.TB, source Source, cgroup string, adapt func(*ebpf.CollectionSpec)) *ledger {
	t.Helper()
	m, err := attach(source, cgroup, adapt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return &ledger{meter: m, sums: map[Pair]Traffic{}}
}

// ledger sums readings up; its round trips are those of the last reading that had some.
type ledger struct {
	meter *Meter
	sums  map[Pair]Traffic
	lost  uint64
}

func (l *ledger) read(t testing.TB) {
	t.Helper()
	r, err := l.meter.Read()
	if err != nil {
		t.Fatal(err)
	}
	l.lost = r.Lost
	for p, more := range r.Pairs {
		sum := l.sums[p]
		sum.Sent += more.Sent
		sum.Received += more.Received
		sum.Connections += more.Connections
		sum.Segments += more.Segments
		if more.Segments > 0 {
			sum.SmoothedRTT, sum.MinRTT = more.SmoothedRTT, more.MinRTT
		}
		l.sums[p] = sum
	}
}

// expect reads until so much was sent and received, and fails if it was ever more.
func (l *ledger) expect(t testing.TB, local, remote netip.Addr, sent, received int) {
	t.Helper()
	p := Pair{local, remote}
	eventually(t, p.String(), func() bool {
		l.read(t)
		return l.sums[p].Sent >= uint64(sent) && l.sums[p].Received >= uint64(received)
	})
	l.read(t)
	if s := l.sums[p]; s.Sent != uint64(sent) || s.Received != uint64(received) {
		t.Errorf("%v: sent %d, received %d; want %d, %d", p, s.Sent, s.Received, sent, received)
	}
	if l.lost != 0 {
		t.Errorf("%d connections were lost", l.lost)
	}
}

// whileReading has a read again and again beside what is done.
func whileReading(read func() error, do func()) (err error) {
	done := make(chan struct{})
	var reads sync.WaitGroup
	reads.Go(func() {
		for err == nil {
			select {
			case <-done:
				return
			default:
				err = read()
			}
		}
	})
	do()
	close(done)
	reads.Wait()
	return err
}

// chat is a connection in which both say so many bytes, and close it.
func (h *host) chat(t testing.TB, l *net.TCPListener, asked, answered int) {
	t.Helper()
	client, server := h.dial(t, h.v4, l)
	say(t, client, server, asked)
	say(t, server, client, answered)
	client.Close()
	server.Close()
}
