package address

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/test/netspace"
)

// patience bounds every wait, so that a test that fails says where.
const patience = 10 * time.Second

// pod is a sandbox with both families, on one of a router's two bridges.
type pod struct {
	ns     netns.NsHandle
	v4, v6 netip.Addr
}

func (p pod) path() string { return fmt.Sprintf("/proc/self/fd/%d", int(p.ns)) }

// address of the family of a.
func (p pod) like(a netip.Addr) netip.Addr {
	if a.Is4() {
		return p.v4
	}
	return p.v6
}

// world is what a move meets: the sandbox that a pod leaves, the one that it gets, and a client
// beside each.
type world struct {
	router    netns.NsHandle
	left, new pod
	near, far pod
	lease     Lease
	first     string // family, of the tunnel
}

func newWorld(t *testing.T, first string) *world {
	t.Helper()
	w := &world{router: netspace.Make(t)}
	must(t, netspace.In(w.router, func() error {
		for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0); err != nil {
				return err
			}
		}
		for i := range 2 {
			name := fmt.Sprintf("br%d", i)
			// By itself it takes one of its ports', and a next pod would change the gateway's.
			mac := net.HardwareAddr{2, 'b', 'r', 0, 0, byte(i)}
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac}}); err != nil {
				return err
			}
			if err := up(name, at(i, 1)); err != nil {
				return err
			}
		}
		return nil
	}))
	w.left, w.near = w.pod(t, 0, 2), w.pod(t, 0, 3)
	w.new, w.far = w.pod(t, 1, 2), w.pod(t, 1, 3)
	for _, p := range []pod{w.near, w.far, w.new} {
		meet(t, p, w.left)
		meet(t, w.far, p)
	}
	w.first = first
	w.lease = w.of(w.left, w.new, 4)
	return w
}

// of is the lease of the one pod's addresses by the other.
func (w *world) of(old, fresh pod, network uint32) Lease {
	if w.first == "IPv6" {
		return Lease{Old: []netip.Addr{old.v6, old.v4}, New: fresh.v6, Network: network}
	}
	return Lease{Old: []netip.Addr{old.v4, old.v6}, New: fresh.v4, Network: network}
}

// up gives a device its addresses, and a link-local one that is there at once.
func up(device string, addresses []netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	const none = 1
	if err := netlink.LinkSetIP6AddrGenMode(link, none); err != nil {
		return err
	}
	b := addresses[1].Addr().As16()
	local := netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 14: 1 + b[7], 15: b[15]}), 64)
	return netspace.Up(device, append(addresses, local)...)
}

func at(bridge, number int) []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.9.%d.%d/24", bridge, number)),
		netip.MustParsePrefix(fmt.Sprintf("fd09:0:0:%d::%d/64", bridge, number)),
	}
}

// pod makes a sandbox and plugs it in.
func (w *world) pod(t *testing.T, bridge, number int) pod {
	t.Helper()
	p := pod{ns: netspace.Make(t), v4: at(bridge, number)[0].Addr(), v6: at(bridge, number)[1].Addr()}
	must(t, netspace.In(w.router, func() error {
		br, err := netlink.LinkByName(fmt.Sprintf("br%d", bridge))
		if err != nil {
			return err
		}
		name := fmt.Sprintf("v%d-%d-%d", bridge, number, int(p.ns))
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: br.Attrs().Index},
			PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return netspace.Up(name)
	}))
	must(t, netspace.In(p.ns, func() error {
		if err := netspace.Up("lo"); err != nil {
			return err
		}
		if err := up("eth0", at(bridge, number)); err != nil {
			return err
		}
		for _, gw := range at(bridge, 1) {
			if err := netlink.RouteAdd(&netlink.Route{Gw: gw.Addr().AsSlice()}); err != nil {
				return err
			}
		}
		return nil
	}))
	return p
}

// meet waits until both pods' networks are up: the kernel sets links up in its own time.
func meet(t *testing.T, p, q pod) {
	t.Helper()
	for _, a := range []netip.Addr{q.v4, q.v6} {
		c, server := p.udp(t, netip.AddrPortFrom(p.like(a), 0)), q.udp(t, netip.AddrPortFrom(a, 0))
		to := server.LocalAddr().(*net.UDPAddr).AddrPort()
		buf, begun := make([]byte, 1), time.Now()
		for {
			_, _ = c.WriteToUDPAddrPort([]byte{1}, to)
			must(t, server.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
			if _, _, err := server.ReadFromUDPAddrPort(buf); err == nil {
				break
			}
			if time.Since(begun) > patience {
				t.Fatalf("%v does not reach %v", p.like(a), a)
			}
		}
		c.Close()
		server.Close()
	}
}

// moved is a world in which the pod has moved.
func moved(t *testing.T, first string) *world {
	t.Helper()
	w := newWorld(t, first)
	w.move(t)
	return w
}

func (w *world) move(t *testing.T) {
	t.Helper()
	must(t, Hold(w.left.path(), w.lease))
	must(t, Arrive(w.new.path(), w.lease))
	must(t, Open(w.new.path(), w.lease, time.Hour))
	must(t, Forward(w.left.path(), w.lease, nil, time.Hour))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// echo serves TCP at a in the sandbox, and tells who connected.
func (p pod) echo(t *testing.T, a netip.AddrPort) <-chan netip.Addr {
	t.Helper()
	var l *net.TCPListener
	must(t, netspace.In(p.ns, func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
		return err
	}))
	t.Cleanup(func() { l.Close() })
	peers := make(chan netip.Addr, 10)
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			peers <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return peers
}

func (p pod) dial(to netip.AddrPort) (c *net.TCPConn, err error) {
	err = netspace.In(p.ns, func() error {
		d := net.Dialer{Timeout: patience}
		d.SetMultipathTCP(false)
		got, err := d.Dial("tcp", to.String())
		if err == nil {
			c = got.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// exchange sends a MiB over the connection and wants it back.
func exchange(c *net.TCPConn) error {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent := make([]byte, 1<<20)
	if _, err := rand.Read(sent); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		failed <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if err := <-failed; err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("what came back is not what was sent")
	}
	return nil
}

// udp makes a socket in the sandbox; an address that is not valid: bound to none.
func (p pod) udp(t *testing.T, a netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	must(t, netspace.In(p.ns, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t *testing.T, c *net.UDPConn, to netip.AddrPort, what string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(what), to); err != nil {
		t.Fatalf("send %q to %v: %v", what, to, err)
	}
}

// receive fails unless the next datagram is this one.
func receive(t *testing.T, c *net.UDPConn, from netip.AddrPort, what string) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 1<<16)
	n, got, err := c.ReadFromUDPAddrPort(buf)
	got = netip.AddrPortFrom(got.Addr().Unmap(), got.Port())
	if err != nil || string(buf[:n]) != what || got != from {
		t.Errorf("got %.20q from %v (%v), want %.20q from %v", buf[:n], got, err, what, from)
	}
}

// drain takes what a socket has received already.
func drain(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	buf := make([]byte, 1<<16)
	must(t, raw.Read(func(fd uintptr) bool {
		for {
			if _, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err != nil {
				return true
			}
		}
	}))
}

// bridge is the index of one of the router's bridges, whose namespace this thread is in.
func (w *world) bridge(t *testing.T, n int) int {
	t.Helper()
	link, err := netlink.LinkByName(fmt.Sprintf("br%d", n))
	must(t, err)
	return link.Attrs().Index
}

// tap is a socket that sees what comes to a sandbox's eth0, whatever is done with it then.
func (p pod) tap(t *testing.T) int {
	t.Helper()
	fd := -1
	must(t, netspace.In(p.ns, func() (err error) {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(protocol)); err != nil {
			return err
		}
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Attrs().Index})
		if err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())})
	}))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// seen waits for a packet, and gives those before it.
func seen(t *testing.T, tap int, is func([]byte) bool) (before [][]byte) {
	t.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, _, err := unix.Recvfrom(tap, buf, 0)
		if err != nil {
			t.Fatalf("wait for a packet: %v", err)
		}
		if is(buf[:n]) {
			return before
		}
		before = append(before, bytes.Clone(buf[:n]))
	}
}

func bears(text string) func([]byte) bool {
	return func(p []byte) bool { return bytes.Contains(p, []byte(text)) }
}

// isSYN tells the first segment of a TCP connection.
func isSYN(p []byte) bool {
	const ether, flags, syn = 14, 13, 2
	headers := map[uint16]int{unix.ETH_P_IP: 20, unix.ETH_P_IPV6: 40}[binary.BigEndian.Uint16(p[ether-2:])]
	protocol := map[int]int{20: 9, 40: 6}[headers]
	return headers > 0 && len(p) > ether+headers+flags && p[ether+protocol] == unix.IPPROTO_TCP && p[ether+headers+flags] == syn
}

// datagram is an IPv4 packet in an Ethernet frame to the new sandbox's end of the tunnel.
func datagram(from, to netip.AddrPort, text string) []byte {
	p := append(append([]byte{}, newMAC...), leftMAC...)
	p = append(p, 8, 0, 0x45, 0)
	p = binary.BigEndian.AppendUint16(p, uint16(28+len(text)))
	p = append(p, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	p = append(append(p, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	sum := uint32(0)
	for i := 14; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	binary.BigEndian.PutUint16(p[24:], ^uint16(sum+sum>>16))
	p = binary.BigEndian.AppendUint16(p, from.Port())
	p = binary.BigEndian.AppendUint16(p, to.Port())
	p = binary.BigEndian.AppendUint16(p, uint16(8+len(text)))
	return append(append(p, 0, 0), text...)
}

// inject sends a frame out by the sandbox's end of the tunnel.
func (p pod) inject(t *testing.T, l Lease, frame []byte) {
	t.Helper()
	p.sendFrame(t, l.device(), frame)
}

func (p pod) sendFrame(t *testing.T, by string, frame []byte) {
	t.Helper()
	must(t, netspace.In(p.ns, func() error {
		link, err := netlink.LinkByName(by)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index})
	}))
}
