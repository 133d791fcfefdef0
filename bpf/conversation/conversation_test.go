package conversation

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// sized gives the table of pairs so many entries; 0: as many as usual.
func sized(entries uint32) func(*ebpf.CollectionSpec) {
	return func(s *ebpf.CollectionSpec) {
		if entries > 0 {
			s.Maps[conversationMapPairs].MaxEntries = entries
		}
	}
}

func families(t *testing.T, test func(t *testing.T, of func(*host) netip.Addr)) {
	t.Run("IPv4", func(t *testing.T) { test(t, func(h *host) netip.Addr { return h.v4 }) })
	t.Run("IPv6", func(t *testing.T) { test(t, func(h *host) netip.Addr { return h.v6 }) })
}

// The round trips are those that the kernel itself tells of the connection, and not less than
// the network's delay.
func TestRoundTrips(t *testing.T) {
	const oneWay = 10 * time.Millisecond
	families(t, func(t *testing.T, of func(*host) netip.Addr) {
		h := hosts(t, oneWay, "a", "b")
		a, b := of(h[0]), of(h[1])
		m := meter(t, Tracepoint, 0, "")
		client, server := h[0].dial(t, a, h[1].listen(t, b))
		for range 20 {
			say(t, client, server, 10)
			say(t, server, client, 10)
		}
		m.read(t)
		for _, end := range []struct {
			conn *net.TCPConn
			pair Pair
		}{{client, Pair{a, b}}, {server, Pair{b, a}}} {
			got, own := m.sums[end.pair], info(t, end.conn)
			if want := time.Duration(own.Rtt) * time.Microsecond; got.SmoothedRTT != want {
				t.Errorf("%v: smoothed round trip %v, the kernel says %v", end.pair, got.SmoothedRTT, want)
			}
			if want := time.Duration(own.Min_rtt) * time.Microsecond; got.MinRTT != want {
				t.Errorf("%v: least round trip %v, the kernel says %v", end.pair, got.MinRTT, want)
			}
			if got.MinRTT < 2*oneWay || got.MinRTT >= 3*oneWay {
				t.Errorf("%v: least round trip %v with a delay of %v each way", end.pair, got.MinRTT, oneWay)
			}
			if got.Connections != 1 || got.Segments != uint64(own.Segs_in) {
				t.Errorf("%v: %d connections, %d segments; the kernel has had %d", end.pair, got.Connections, got.Segments, own.Segs_in)
			}
		}
		// One that is silent has no round trip any more.
		r, err := m.meter.Read()
		if err != nil {
			t.Fatal(err)
		}
		if silent, ok := r.Pairs[Pair{a, b}]; ok {
			t.Errorf("of a silent connection: %+v", silent)
		}
	})
}

func TestEveryByteOnce(t *testing.T) {
	families(t, func(t *testing.T, of func(*host) netip.Addr) {
		h := hosts(t, 0, "a", "b")
		a, b := of(h[0]), of(h[1])
		l := h[1].listen(t, b)
		before, beforeServer := h[0].dial(t, a, l)
		half, halfServer := h[0].dial(t, a, l)
		say(t, before, beforeServer, 5000)
		say(t, halfServer, half, 70_000)
		halfClosed(t, half, halfServer)
		m := meter(t, Tracepoint, 0, "")
		m.expect(t, a, b, 0, 0)

		say(t, before, beforeServer, 300_000)
		say(t, beforeServer, before, 7)
		m.expect(t, a, b, 300_000, 7)
		m.expect(t, b, a, 7, 300_000)

		// A FIN is no byte, nor is it one when the connection ends.
		say(t, halfServer, half, 40)
		m.expect(t, a, b, 300_000, 47)
		m.expect(t, b, a, 47, 300_000)
		for _, c := range []*net.TCPConn{before, beforeServer, halfServer, half} {
			c.Close()
		}

		// Begun and ended between two readings.
		client, server := h[0].dial(t, a, l)
		say(t, client, server, 1)
		say(t, server, client, 2_000_000)
		halfClosed(t, server, client)
		client.Close()
		m.expect(t, a, b, 300_001, 2_000_047)
		m.expect(t, b, a, 2_000_047, 300_001)
	})
}

// halfClosed ends one direction, and waits until the other end knows and this one knows that.
func halfClosed(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	if err := from.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := to.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("read %d bytes and %v, want the end", n, err)
	}
	eventually(t, "the end is acknowledged", func() bool { return info(t, from).State == 5 /* TCP_FIN_WAIT2 */ })
}

// Connections that begin and end while somebody reads are counted once, all of them.
func TestShortConnections(t *testing.T) {
	h := hosts(t, 0, "a", "b")
	m := meter(t, Tracepoint, 0, "")
	l := h[1].listen(t, h[1].v4)
	const many, asked, answered = 1000, 13, 1500
	err := whileReading(func() error { m.read(t); return nil }, func() {
		for range many {
			h[0].chat(t, l, asked, answered)
		}
	})
	if err != nil {
		t.Error(err)
	}
	// A FIN that was read when it was counted and not yet known is made up for by what comes next.
	client, server := h[0].dial(t, h[0].v4, l)
	say(t, client, server, 1)
	say(t, server, client, 1)
	m.expect(t, h[0].v4, h[1].v4, many*asked+1, many*answered+1)
	m.expect(t, h[1].v4, h[0].v4, many*answered+1, many*asked+1)
	eventually(t, "all connections are told of", func() bool {
		m.read(t)
		return m.sums[Pair{h[0].v4, h[1].v4}].Connections >= many
	})
}

// A connection that is reset counts what was acknowledged.
func TestReset(t *testing.T) {
	h := hosts(t, 0, "a", "b")
	m := meter(t, Tracepoint, 0, "")
	client, server := h[0].dial(t, h[0].v4, h[1].listen(t, h[1].v4))
	say(t, client, server, 100)
	say(t, server, client, 200)
	if err := client.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection was not reset")
	}
	m.expect(t, h[0].v4, h[1].v4, 100, 200)
	m.expect(t, h[1].v4, h[0].v4, 200, 100)
}

// What has no room is told of later if it goes on, and counted as lost if it ends.
func TestFull(t *testing.T) {
	h := hosts(t, 0, "a", "b")
	const entries, many = 64, 100
	m := meter(t, Tracepoint, entries, "")
	l := h[1].listen(t, h[1].v4)
	var from []netip.Addr
	var open []*net.TCPConn
	for i := range many {
		from = append(from, netip.AddrFrom4([4]byte{10, 234, 0, byte(100 + i)}))
		h[0].add(t, from[i])
		client, server := h[0].dial(t, from[i], l)
		say(t, client, server, 30+i)
		open = append(open, client, server)
	}
	m.read(t)
	if len(m.sums) > entries {
		t.Errorf("%d pairs in a table for %d", len(m.sums), entries)
	}
	for i := range many {
		eventually(t, "an open connection is told of when there is room", func() bool {
			m.read(t)
			return m.sums[Pair{from[i], h[1].v4}].Sent == uint64(30+i) && m.sums[Pair{h[1].v4, from[i]}].Received == uint64(30+i)
		})
	}
	lost := m.lost
	for i := range many {
		say(t, open[2*i], open[2*i+1], 1)
	}
	for _, c := range open {
		c.Close()
	}
	// A reading would make room.
	eventually(t, "those that ended are counted as lost", func() bool {
		now, err := m.meter.lost()
		if err != nil {
			t.Fatal(err)
		}
		return now-lost >= 2*many-entries
	})
	m.read(t)
	for i := range many {
		if got := m.sums[Pair{from[i], h[1].v4}].Sent; got > uint64(31+i) {
			t.Errorf("%d bytes were sent, and %d told of", 31+i, got)
		}
	}
}

// Connections that were never established leave no trace: SYNs that nobody completes, from
// any number of addresses, and one that is never answered.
func TestFlood(t *testing.T) {
	h := hosts(t, 0, "a", "b")
	m := meter(t, Tracepoint, 0, "")
	l := h[1].listen(t, h[1].v4)
	port := l.Addr().(*net.TCPAddr).Port
	h[0].in(t, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for i := range 2000 {
			from := netip.AddrFrom4([4]byte{10, 234, byte(1 + i/250), byte(1 + i%250)})
			if err := unix.Sendto(fd, syn(from, h[1].v4, uint16(port)), 0, &unix.SockaddrInet4{Addr: h[1].v4.As4()}); err != nil {
				return err
			}
		}
		return nil
	})
	h[0].in(t, func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: h[0].v4.AsSlice()}, Timeout: 50 * time.Millisecond}
		if c, err := d.Dial("tcp", "10.234.0.200:1"); err == nil {
			c.Close()
			return fmt.Errorf("somebody answers")
		}
		return nil
	})
	// What came before has been handled when this has.
	client, server := h[0].dial(t, h[0].v4, l)
	say(t, client, server, 1)
	m.expect(t, h[0].v4, h[1].v4, 1, 0)
	for p := range m.sums {
		if (p.Local == h[1].v4 || p.Remote == h[1].v4) && p != (Pair{h[0].v4, h[1].v4}) && p != (Pair{h[1].v4, h[0].v4}) {
			t.Errorf("%v, and no connection was established", p)
		}
		if p.Remote == netip.MustParseAddr("10.234.0.200") {
			t.Errorf("%v, and it never answered", p)
		}
	}
}

// syn is an IPv4 packet that asks for a connection.
func syn(from, to netip.Addr, port uint16) []byte {
	b := make([]byte, 40)
	b[0], b[3], b[8], b[9] = 0x45, 40, 64, unix.IPPROTO_TCP
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	tcp := b[20:]
	binary.BigEndian.PutUint16(tcp, 4242)
	binary.BigEndian.PutUint16(tcp[2:], port)
	tcp[12], tcp[13] = 5<<4, 0x02
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	sum := uint32(unix.IPPROTO_TCP + len(tcp))
	for _, part := range [][]byte{b[12:20], tcp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return b
}

// What stays on one host is not told of.
func TestWithinOneHost(t *testing.T) {
	h := hosts(t, 0, "a", "b")
	m := meter(t, Tracepoint, 0, "")
	loopback := netip.MustParseAddr("127.0.0.1")
	for _, own := range []netip.Addr{loopback, netip.IPv6Loopback(), h[0].v4, h[0].v6} {
		client, server := h[0].dial(t, own, h[0].listen(t, own))
		say(t, client, server, 100)
		client.Close()
		server.Close()
	}
	client, server := h[0].dial(t, h[0].v4, h[1].listen(t, h[1].v4))
	say(t, client, server, 1)
	m.expect(t, h[0].v4, h[1].v4, 1, 0)
	for p := range m.sums {
		if p.Local == p.Remote || p.Remote.IsLoopback() {
			t.Errorf("%v", p)
		}
	}
}

// Where tracepoints cannot be had, connections that are made later are seen all the same.
func TestSockOps(t *testing.T) {
	cgroup := ownCgroup(t)
	h := hosts(t, 0, "a", "b")
	l := h[1].listen(t, h[1].v4)
	old, oldServer := h[0].dial(t, h[0].v4, l)
	m := meter(t, SockOps, 0, cgroup)
	if s, _ := m.meter.Source(); s != SockOps {
		t.Errorf("attached to %s", s)
	}
	say(t, old, oldServer, 5)
	client, server := h[0].dial(t, h[0].v4, l)
	say(t, client, server, 100_000)
	say(t, server, client, 20)
	m.expect(t, h[0].v4, h[1].v4, 100_000, 20)
	if got, own := m.sums[Pair{h[0].v4, h[1].v4}], info(t, client); got.SmoothedRTT != time.Duration(own.Rtt)*time.Microsecond {
		t.Errorf("smoothed round trip %v, the kernel says %d us", got.SmoothedRTT, own.Rtt)
	}
	for _, c := range []*net.TCPConn{old, oldServer, client, server} {
		c.Close()
	}
	m.expect(t, h[0].v4, h[1].v4, 100_000, 20)
	m.expect(t, h[1].v4, h[0].v4, 20, 100_000)
}

// ownCgroup puts the test into a cgroup v2 directory of its own.
func ownCgroup(t *testing.T) string {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		root = filepath.Join(root, "unified")
	}
	list, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var was string
	for line := range strings.Lines(string(list)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			was = filepath.Join(root, path)
		}
	}
	dir := filepath.Join(root, fmt.Sprintf("drover-conversation-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	enter := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644)
	}
	t.Cleanup(func() {
		if err := enter(was); err != nil {
			t.Error(err)
		}
		eventually(t, "the cgroup can be removed", func() bool { return os.Remove(dir) == nil })
	})
	if err := enter(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
