package address

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/test/netspace"
)

const (
	port = 8080
	ours = 9090
)

var firsts = []string{"IPv4", "IPv6"}

// Whoever connects to the old address reaches the pod where it is now, from both sides of a router
// and in both families, whichever the tunnel's packets are; the pod sees the peer's own address.
func TestForward(t *testing.T) {
	for _, first := range firsts {
		t.Run("tunnel over "+first, func(t *testing.T) {
			w := moved(t, first)
			w.reach(t, w.new, w.lease.Old...)
		})
	}
}

// reach fails unless both clients reach the pod where it is now by every address, and it knows them by theirs.
func (w *world) reach(t *testing.T, now pod, addresses ...netip.Addr) {
	t.Helper()
	for _, a := range addresses {
		peers := now.echo(t, netip.AddrPortFrom(a, port))
		for _, client := range []pod{w.near, w.far} {
			c, err := client.dial(netip.AddrPortFrom(a, port))
			if err == nil {
				err = exchange(c)
			}
			if err != nil {
				t.Errorf("from %v to %v: %v", client.like(a), a, err)
				continue
			}
			if peer := <-peers; peer != client.like(a) {
				t.Errorf("%v talked to %v, which took it for %v", client.like(a), a, peer)
			}
		}
	}
}

// The pod's own connections from the old address go back the same way.
func TestFromOldAddress(t *testing.T) {
	w := moved(t, "IPv4")
	for _, a := range w.lease.Old {
		server := w.far.udp(t, netip.AddrPortFrom(w.far.like(a), port))
		c := w.new.udp(t, netip.AddrPortFrom(a, ours))
		send(t, c, netip.AddrPortFrom(w.far.like(a), port), "from the old address")
		receive(t, server, netip.AddrPortFrom(a, ours), "from the old address")
		send(t, server, netip.AddrPortFrom(a, ours), "and back")
		receive(t, c, netip.AddrPortFrom(w.far.like(a), port), "and back")
		// What it begins without asking for an address has the new one.
		c = w.new.udp(t, netip.AddrPort{})
		own := netip.AddrPortFrom(w.new.like(a), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		send(t, c, netip.AddrPortFrom(w.far.like(a), port), "anew")
		receive(t, server, own, "anew")
	}
}

// Who connects while the address is held waits; nothing and nobody refuses it.
func TestHeldIsNotRefused(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			w := newWorld(t, first)
			must(t, Hold(w.left.path(), w.lease))
			a := w.lease.Old[0]
			tap := w.left.tap(t)
			done := make(chan error, 1)
			go func() {
				c, err := w.near.dial(netip.AddrPortFrom(a, port))
				if err == nil {
					err = exchange(c)
				}
				done <- err
			}()
			seen(t, tap, isSYN)
			must(t, Arrive(w.new.path(), w.lease))
			w.new.echo(t, netip.AddrPortFrom(a, port))
			must(t, Open(w.new.path(), w.lease, time.Hour))
			select {
			case err := <-done:
				t.Fatalf("the connection was there before the address was: %v", err)
			default:
			}
			must(t, Forward(w.left.path(), w.lease, nil, time.Hour))
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// Sockets that the pod has left behind hear nothing of what is sent on, and whoever closes them tells nobody.
func TestLeftSocketsAreSilent(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			w := newWorld(t, first)
			a := netip.AddrPortFrom(w.lease.Old[0], port)
			var l *net.TCPListener
			must(t, netspace.In(w.left.ns, func() (err error) {
				l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
				return err
			}))
			idle, err := w.near.dial(a)
			must(t, err)
			defer idle.Close()
			left, err := l.Accept()
			must(t, err)
			w.move(t)
			w.reach(t, w.new, a.Addr()) // what is new there, with the listener as it was
			nothing(t, l, "the socket that was left has accepted one", func(fd int) error {
				_, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
				return err
			})
			must(t, errors.Join(left.Close(), l.Close()))
			w.reach(t, w.near, w.near.like(a.Addr())) // what comes later has come
			nothing(t, idle, "the peer of a socket that was left was told of its end", func(fd int) error {
				_, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_DONTWAIT)
				return err
			})
		})
	}
}

// A pod that is about to be frozen hears nothing any more, and says what it has to say yet; then it is held.
func TestPart(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			w := newWorld(t, first)
			a, b := netip.AddrPortFrom(w.lease.Old[0], port), netip.AddrPortFrom(w.near.like(w.lease.Old[0]), port)
			pod, peer := w.left.udp(t, a), w.near.udp(t, b)
			p, err := Part(w.left.path(), w.lease)
			must(t, err)
			send(t, peer, a, "too late")
			send(t, pod, b, "last words")
			receive(t, peer, a, "last words")
			must(t, p.Hold())
			send(t, pod, b, "after them")
			must(t, ClearLeft(w.left.path()))
			send(t, pod, b, "here again")
			receive(t, peer, a, "here again")
			send(t, peer, a, "welcome")
			receive(t, pod, b, "welcome")
		})
	}
}

// A connection that waits to be accepted is waited for.
func TestAccepted(t *testing.T) {
	w := newWorld(t, "IPv4")
	a := netip.AddrPortFrom(w.left.v4, port)
	var l *net.TCPListener
	must(t, netspace.In(w.left.ns, func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
		return err
	}))
	defer l.Close()
	must(t, Accepted(w.left.path(), time.Hour))
	c, err := w.near.dial(a)
	must(t, err)
	defer c.Close()
	begun := time.Now()
	must(t, Accepted(w.left.path(), 20*time.Millisecond))
	if d := time.Since(begun); d < 20*time.Millisecond {
		t.Errorf("it waited for %v", d)
	}
	got, err := l.Accept()
	must(t, err)
	defer got.Close()
	must(t, Accepted(w.left.path(), time.Hour))
}

// nothing fails if there is anything for a socket that does not block.
func nothing(t *testing.T, c syscall.Conn, otherwise string, take func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		if err := take(int(fd)); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("%s: %v", otherwise, err)
		}
	}))
}

// A peer gets its answer from the address that it has asked, also from a socket that is bound to
// none.
func TestUDP(t *testing.T) {
	for _, first := range firsts {
		t.Run("tunnel over "+first, func(t *testing.T) {
			w := moved(t, first)
			server := w.new.udp(t, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
			large := strings.Repeat("x", 1300)
			for _, a := range w.lease.Old {
				for _, client := range []pod{w.near, w.far} {
					c := client.udp(t, netip.AddrPortFrom(client.like(a), ours))
					for _, to := range []netip.Addr{a, w.new.like(a), a} {
						for _, text := range []string{"small", large} {
							send(t, c, netip.AddrPortFrom(to, port), text)
							receive(t, server, netip.AddrPortFrom(client.like(a), ours), text)
							send(t, server, netip.AddrPortFrom(client.like(a), ours), "re: "+text)
							receive(t, c, netip.AddrPortFrom(to, port), "re: "+text)
						}
					}
				}
			}
		})
	}
}

// What is too large for the tunnel is not lost silently: its sender is told, or it becomes fragments.
func TestTooLarge(t *testing.T) {
	for _, first := range firsts {
		t.Run("tunnel over "+first, func(t *testing.T) {
			w := moved(t, first)
			for _, a := range w.lease.Old {
				for _, client := range []pod{w.near, w.far} {
					c, server := client.udp(t, netip.AddrPortFrom(client.like(a), 0)), w.new.udp(t, netip.AddrPortFrom(a, 0))
					to := netip.AddrPortFrom(a, server.LocalAddr().(*net.UDPAddr).AddrPort().Port())
					from := c.LocalAddr().(*net.UDPAddr).AddrPort()
					for _, text := range []string{strings.Repeat("x", 1440), strings.Repeat("y", 5000)} {
						again := time.NewTicker(100 * time.Millisecond)
						stop := make(chan struct{})
						var told sync.WaitGroup
						told.Go(func() {
							for {
								_, _ = c.WriteToUDPAddrPort([]byte(text), to)
								select {
								case <-again.C:
								case <-stop:
									return
								}
							}
						})
						receive(t, server, from, text)
						close(stop)
						told.Wait()
						drain(t, server)
						send(t, server, from, text)
						receive(t, c, to, text)
					}
				}
			}
		})
	}
}

// The kernel ends a lease in time, whether anybody is there to do it or not; and what is not open
// yet lets nothing through either.
func TestDeadline(t *testing.T) {
	w := moved(t, "IPv4")
	for _, a := range w.lease.Old {
		old, own := w.new.udp(t, netip.AddrPortFrom(a, ours)), w.new.udp(t, netip.AddrPortFrom(w.new.like(a), 7070))
		peer := w.far.udp(t, netip.AddrPortFrom(w.far.like(a), port))
		to, from := netip.AddrPortFrom(w.far.like(a), port), netip.AddrPortFrom(a, ours)
		for _, closed := range []time.Duration{time.Nanosecond, 0} {
			must(t, Open(w.new.path(), w.lease, time.Hour))
			send(t, old, to, "in time")
			receive(t, peer, from, "in time")
			must(t, Open(w.new.path(), w.lease, closed))
			_, _ = old.WriteToUDPAddrPort([]byte("late"), to)
			send(t, own, to, "own")
			receive(t, peer, netip.AddrPortFrom(w.new.like(a), 7070), "own")
			send(t, peer, from, "late")
			must(t, Open(w.new.path(), w.lease, time.Hour))
			send(t, peer, from, "again")
			receive(t, old, to, "again")
		}
	}
}

// The new sandbox takes the old address's packets from the tunnel alone, and the tunnel brings
// nothing else into it.
func TestOnlyByTheTunnel(t *testing.T) {
	w := moved(t, "IPv4")
	for _, a := range w.lease.Old {
		old, own := w.new.udp(t, netip.AddrPortFrom(a, port)), w.new.udp(t, netip.AddrPortFrom(w.new.like(a), port))
		// The far client is a neighbour of the new sandbox: it sends it what is for the old address.
		must(t, netspace.In(w.far.ns, func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{Dst: host(a), Gw: w.new.like(a).AsSlice(), LinkIndex: link.Attrs().Index})
		}))
		c := w.far.udp(t, netip.AddrPortFrom(w.far.like(a), ours))
		send(t, c, netip.AddrPortFrom(a, port), "past the tunnel")
		send(t, c, netip.AddrPortFrom(w.new.like(a), port), "after it")
		receive(t, own, netip.AddrPortFrom(w.far.like(a), ours), "after it")
		near := w.near.udp(t, netip.AddrPortFrom(w.near.like(a), ours))
		send(t, near, netip.AddrPortFrom(a, port), "by the tunnel")
		receive(t, old, netip.AddrPortFrom(w.near.like(a), ours), "by the tunnel")
	}
	// As if the other end were somebody else: it sends into the tunnel what it likes.
	own, old := w.new.udp(t, netip.AddrPortFrom(w.new.v4, ours)), w.new.udp(t, netip.AddrPortFrom(w.left.v4, ours))
	from := netip.AddrPortFrom(w.near.v4, ours)
	w.left.inject(t, w.lease, datagram(from, netip.AddrPortFrom(w.new.v4, ours), "into the tunnel"))
	w.left.inject(t, w.lease, datagram(from, netip.AddrPortFrom(w.left.v4, ours), "as it should be"))
	receive(t, old, from, "as it should be")
	send(t, w.far.udp(t, netip.AddrPortFrom(w.far.v4, 7070)), netip.AddrPortFrom(w.new.v4, ours), "after it")
	receive(t, own, netip.AddrPortFrom(w.far.v4, 7070), "after it")
}

// Once its lease is over, an address can be another pod's at once: it sees nothing of the tunnel,
// and the pod that had it has it no more.
func TestStranger(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			w := moved(t, first)
			a := w.lease.Old[0]
			old := w.new.udp(t, netip.AddrPortFrom(a, ours))
			peer := w.near.udp(t, netip.AddrPortFrom(w.near.like(a), port))
			to := netip.AddrPortFrom(w.near.like(a), port)
			send(t, old, to, "in time")
			receive(t, peer, netip.AddrPortFrom(a, ours), "in time")
			// The agent beside the new sandbox is dead: nobody but the kernel ends the lease there.
			must(t, Open(w.new.path(), w.lease, time.Nanosecond))
			must(t, netspace.In(w.left.ns, func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			}))
			must(t, netspace.In(w.router, func() error { // as a pod's network has announced itself
				err := netlink.NeighDel(&netlink.Neigh{LinkIndex: w.bridge(t, 0), IP: a.AsSlice()})
				if errors.Is(err, unix.ENOENT) {
					return nil
				}
				return err
			}))
			stranger := w.pod(t, 0, 2)
			tap := stranger.tap(t)
			for range 10 {
				_, _ = old.WriteToUDPAddrPort([]byte("of the old pod"), to)
			}
			own := w.new.udp(t, netip.AddrPortFrom(w.new.like(a), ours))
			send(t, own, netip.AddrPortFrom(a, port), "last of all")
			for _, p := range seen(t, tap, bears("last of all")) {
				if strings.Contains(string(p), "of the old pod") {
					t.Errorf("the stranger got %q", p)
				}
			}
			must(t, ClearNew(w.new.path()))
			// The pod that had the address reaches the one that has it.
			w.new.reaches(t, stranger, a)
		})
	}
}

// reaches fails unless a datagram goes to the other pod's address and back.
func (p pod) reaches(t *testing.T, other pod, a netip.Addr) {
	t.Helper()
	c, server := p.udp(t, netip.AddrPortFrom(p.like(a), 7070)), other.udp(t, netip.AddrPortFrom(a, 7070))
	send(t, c, netip.AddrPortFrom(a, 7070), "ask")
	receive(t, server, netip.AddrPortFrom(p.like(a), 7070), "ask")
	send(t, server, netip.AddrPortFrom(p.like(a), 7070), "answer")
	receive(t, c, netip.AddrPortFrom(a, 7070), "answer")
}

// state is everything in a sandbox that a lease could change.
func (p pod) state(t *testing.T) (all []string) {
	t.Helper()
	must(t, netspace.In(p.ns, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			a := l.Attrs()
			all = append(all, fmt.Sprintf("link %s %q %s mtu %d", a.Name, a.Alias, a.Flags, a.MTU))
			qdiscs, err := netlink.QdiscList(l)
			if err != nil {
				return err
			}
			for _, q := range qdiscs {
				all = append(all, fmt.Sprintf("qdisc %s %s", a.Name, q.Type()))
			}
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				filters, err := netlink.FilterList(l, parent)
				if err != nil {
					return err
				}
				for _, f := range filters {
					all = append(all, fmt.Sprintf("filter %s %s", a.Name, f.(*netlink.BpfFilter).Name))
				}
			}
		}
		for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			addrs, err := netlink.AddrList(nil, f)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				all = append(all, fmt.Sprintf("address %d %v", a.LinkIndex, a.IPNet))
			}
			rules, err := netlink.RuleList(f)
			if err != nil {
				return err
			}
			for _, r := range rules {
				all = append(all, fmt.Sprintf("rule %d %v table %d by %d", f, r, r.Table, r.Protocol))
			}
			routes, err := netlink.RouteListFiltered(f, &netlink.Route{}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				all = append(all, fmt.Sprintf("route %d %v dev %d table %d", f, r.Dst, r.LinkIndex, r.Table))
			}
		}
		return nil
	}))
	slices.Sort(all)
	return all
}

// Every call can be made again, also by an agent that finds what another has left in the middle;
// and Clear leaves nothing, whatever it finds.
func TestNothingIsLeft(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			w := newWorld(t, first)
			// Its neighbours have been asked, so that no route or address is still to come.
			w.near.reaches(t, w.left, w.left.v6)
			w.far.reaches(t, w.new, w.new.v6)
			left, fresh := w.left.state(t), w.new.state(t)
			half := map[string]func() error{
				"nothing":  func() error { return nil },
				"a device": func() error { return w.half(w.left, w.lease.Old[0], w.lease.New, leftMAC) },
				"all of another lease": func() error {
					return Hold(w.left.path(), w.of(w.left, w.far, 8))
				},
				"all": func() error { return Hold(w.left.path(), w.lease) },
			}
			for found, leave := range half {
				must(t, leave())
				must(t, Hold(w.left.path(), w.lease))
				must(t, Forward(w.left.path(), w.lease, nil, time.Hour))
				must(t, Hold(w.left.path(), w.lease))
				must(t, ClearLeft(w.left.path()))
				must(t, ClearLeft(w.left.path()))
				if diff := cmp.Diff(left, w.left.state(t)); diff != "" {
					t.Errorf("in the old sandbox, where %s was found: %s", found, diff)
				}
			}
			for found, leave := range map[string]func() error{
				"nothing":  func() error { return nil },
				"a device": func() error { return w.half(w.new, w.lease.New, w.lease.Old[0], newMAC) },
				"all of another lease": func() error {
					return Arrive(w.new.path(), Lease{Old: []netip.Addr{w.near.like(w.lease.New)}, New: w.lease.New, Network: 8})
				},
				"all": func() error { return Arrive(w.new.path(), w.lease) },
			} {
				must(t, leave())
				must(t, Arrive(w.new.path(), w.lease))
				must(t, Open(w.new.path(), w.lease, time.Hour))
				must(t, Arrive(w.new.path(), w.lease))
				must(t, ClearNew(w.new.path()))
				must(t, ClearNew(w.new.path()))
				if diff := cmp.Diff(fresh, w.new.state(t)); diff != "" {
					t.Errorf("in the new sandbox, where %s was found: %s", found, diff)
				}
			}
			w.near.reaches(t, w.left, w.left.v4)
			w.far.reaches(t, w.new, w.new.v4)
			must(t, ClearLeft("/proc/self/fd/none"))
			must(t, ClearNew("/proc/self/fd/none"))
		})
	}
}

// half is what an agent leaves that dies in the middle.
func (w *world) half(p pod, here, there netip.Addr, mac net.HardwareAddr) error {
	s, err := enter(p.path())
	if err != nil {
		return err
	}
	defer s.leave()
	_, err = s.makeTunnel(w.lease, here, there, 1400, mac)
	return err
}

// A pod on the host's network, and addresses that are not there, are told apart from the rest.
func TestRefused(t *testing.T) {
	w := newWorld(t, "IPv4")
	for name, err := range map[string]error{
		"the agent's own namespace":       Hold("/proc/self/ns/net", w.lease),
		"the old address is not there":    Hold(w.near.path(), w.lease),
		"the new address is not there":    Arrive(w.far.path(), w.lease),
		"the old address is there":        Arrive(w.left.path(), Lease{Old: []netip.Addr{w.left.v4}, New: w.left.v4.Next()}),
		"forwarded without a hold":        Forward(w.left.path(), w.lease, nil, time.Hour),
		"opened before it has arrived":    Open(w.new.path(), w.lease, time.Hour),
		"a lease that leads nowhere":      Hold(w.left.path(), Lease{Old: w.lease.Old}),
		"a namespace that is not there":   Hold("/proc/self/fd/none", w.lease),
		"cleared, the agent's own":        ClearLeft("/proc/self/ns/net"),
		"cleared, what is no namespace":   ClearNew("/proc/self/status"),
		"the new address is the client's": Arrive(w.new.path(), Lease{Old: w.lease.Old, New: w.far.v4}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// Probe succeeds where the tunnel will work, and nowhere else.
func TestProbe(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			w := newWorld(t, first)
			nonce := Nonce{1, 2, 3}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			answered := make(chan error, 1)
			go func() { answered <- Answer(ctx, w.left.path(), w.lease, nonce) }()
			if err := Probe(ctx, w.new.path(), w.lease, nonce); err != nil {
				t.Error(err)
			}
			short, stop := context.WithTimeout(ctx, 5*again)
			if err := Probe(short, w.new.path(), w.lease, Nonce{4}); err == nil {
				t.Error("a probe with another nonce was answered")
			}
			stop()
			must(t, netspace.In(w.router, func() error {
				return netlink.RouteAdd(&netlink.Route{Dst: host(w.lease.New), Type: 6 /* blackhole */})
			}))
			short, stop = context.WithTimeout(ctx, 5*again)
			err := Probe(short, w.new.path(), w.lease, nonce)
			stop()
			if err == nil || !strings.Contains(err.Error(), w.lease.Old[0].String()) {
				t.Errorf("got %v where nothing comes back, want an error that names %v", err, w.lease.Old[0])
			}
			cancel()
			must(t, <-answered)
			must(t, Hold(w.left.path(), w.lease)) // the port is free again
		})
	}
}
