package address

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// onward is a world in which the pod moves on, with the addresses of all places that it has left.
type onward struct {
	*world
	// places are where the pod was, the last where it is or is to be.
	places []pod
	next   uint32
}

// movedOnce is a world in which the pod has moved once.
func movedOnce(t *testing.T, first string) *onward {
	t.Helper()
	w := moved(t, first)
	return &onward{w, []pod{w.left, w.new}, w.lease.Network}
}

// to adds a place on that bridge, and gives the leases of all addresses of before by it: the newest, of where the pod is
// now, first.
func (o *onward) to(t *testing.T, bridge, number int) (all []Lease) {
	t.Helper()
	p := o.pod(t, bridge, number)
	for _, q := range []pod{o.now(), o.near, o.far} {
		meet(t, q, p)
	}
	o.next += Most
	for i, old := range slices.Backward(o.places) {
		all = append(all, o.of(old, p, o.next+uint32(len(o.places)-1-i)))
	}
	o.places = append(o.places, p)
	return all
}

// now is where the pod is.
func (o *onward) now() pod { return o.places[len(o.places)-1] }

// before is where it was then.
func (o *onward) before() pod { return o.places[len(o.places)-2] }

// holder is the sandbox that has the lease's addresses.
func (o *onward) holder(l Lease) pod {
	return o.places[slices.IndexFunc(o.places, func(p pod) bool { return p.like(l.Old[0]) == l.Old[0] })]
}

// move takes the pod on.
func (o *onward) move(t *testing.T, all []Lease) {
	t.Helper()
	must(t, Hold(o.before().path(), all[0]))
	must(t, Arrive(o.now().path(), all...))
	for _, l := range all {
		must(t, Open(o.now().path(), l, time.Hour))
	}
	must(t, Forward(o.before().path(), all[0], nil, time.Hour))
	for _, l := range all[1:] {
		must(t, Turn(o.holder(l).path(), l, nil, time.Hour))
	}
}

// talks fails unless both clients reach the pod by every address, and it knows them by theirs.
func (o *onward) talks(t *testing.T, addresses ...netip.Addr) {
	t.Helper()
	o.reach(t, o.now(), addresses...)
}

// A pod that moves again and again is reached by every address that it ever had, also where it comes back
// to the network of one that holds one of them.
func TestMoveOn(t *testing.T) {
	for _, first := range firsts {
		t.Run("tunnels over "+first, func(t *testing.T) {
			o := movedOnce(t, first)
			for i, bridge := range []int{1, 0, 1} {
				all := o.to(t, bridge, 5+i)
				o.move(t, all)
				want := []netip.Addr{o.now().v4, o.now().v6}
				for _, l := range all {
					want = append(want, l.Old...)
				}
				o.talks(t, want...)
			}
		})
	}
}

// A peer gets its answer from the address that it has asked last, whichever of all it is.
func TestUDPMovedOn(t *testing.T) {
	o := movedOnce(t, "IPv4")
	o.move(t, o.to(t, 1, 5))
	server := o.now().udp(t, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	for _, client := range []pod{o.near, o.far} {
		for _, a := range []netip.Addr{client.v4, client.v6} {
			c := client.udp(t, netip.AddrPortFrom(a, ours))
			for _, i := range []int{0, 1, 2, 1, 0} {
				asked := netip.AddrPortFrom(o.places[i].like(a), port)
				send(t, c, asked, "ask")
				receive(t, server, netip.AddrPortFrom(a, ours), "ask")
				send(t, server, netip.AddrPortFrom(a, ours), "answer")
				receive(t, c, asked, "answer")
			}
		}
	}
}

// While the pod is held to move on nobody who connects by its first address is refused; and when the move
// is given up all is as it was before it.
func TestMoveOnGivenUp(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			o := movedOnce(t, first)
			all := o.to(t, 1, 5)
			o.near.reaches(t, o.before(), o.before().v6)
			o.far.reaches(t, o.now(), o.now().v6)
			holder, source, target := o.left.state(t), o.before().state(t), o.now().state(t)
			must(t, Hold(o.before().path(), all[0]))
			must(t, Arrive(o.now().path(), all...))
			a := o.lease.Old[0]
			tap := o.before().tap(t)
			done := make(chan error, 1)
			go func() {
				c, err := o.near.dial(netip.AddrPortFrom(a, port))
				if err == nil {
					err = exchange(c)
				}
				done <- err
			}()
			seen(t, tap, func(p []byte) bool { return len(p) > o.lease.overhead() && isSYN(p[o.lease.overhead():]) })
			o.before().echo(t, netip.AddrPortFrom(a, port))
			select {
			case err := <-done:
				t.Fatalf("the connection came to what is held: %v", err)
			default:
			}
			must(t, ClearNew(o.now().path()))
			must(t, ClearLeft(o.before().path()))
			if err := <-done; err != nil {
				t.Errorf("the connection by the first address: %v", err)
			}
			for what, p := range map[string]struct {
				was []string
				pod pod
			}{"holder": {holder, o.left}, "source": {source, o.before()}, "target": {target, o.now()}} {
				if diff := cmp.Diff(p.was, p.pod.state(t)); diff != "" {
					t.Errorf("the sandbox of the %s is another: %s", what, diff)
				}
			}
			o.places = o.places[:2]
			o.talks(t, o.lease.Old[1], o.new.v4, o.new.v6)
		})
	}
}

// While what is for an address is turned from one place to another nothing of it comes to the stack of the
// sandbox that holds it, one that dies in the middle is made good by the next, and none leads back.
func TestTurnIsSilent(t *testing.T) {
	o := movedOnce(t, "IPv4")
	all := o.to(t, 1, 5)
	a := o.left.v4
	victim := o.left.udp(t, netip.AddrPortFrom(a, port))
	stop := make(chan struct{})
	var sending sync.WaitGroup
	c := o.near.udp(t, netip.AddrPortFrom(o.near.v4, ours))
	sending.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = c.WriteToUDPAddrPort([]byte("for the pod"), netip.AddrPortFrom(a, port))
			}
		}
	})
	must(t, Arrive(o.now().path(), all...))
	places, last := []pod{o.now(), o.before()}, all[1]
	for i := range 20 {
		l := o.of(o.left, places[i%2], all[1].Network+uint32(i)*Most)
		died := func(l Lease, completed bool) {
			s, err := enter(o.left.path())
			must(t, err)
			defer s.leave()
			link, err := s.makeTunnel(l, l.Old[0], l.New, 1400, leftMAC)
			must(t, err)
			if completed {
				must(t, s.complete(link, l))
			}
		}
		if i == 10 {
			died(l, false)
		}
		must(t, Turn(o.left.path(), l, nil, time.Hour))
		if i == 11 { // before it has removed what was there
			died(last, true)
		}
		must(t, Turn(o.left.path(), l, nil, time.Hour))
		if err := Turn(o.left.path(), o.lease, nil, time.Hour); !errors.Is(err, ErrMovedOn) {
			t.Errorf("turned back: %v", err)
		}
		if all, err := leases(o.left.path(), true); err != nil || len(all) != 1 || all[0].String() != l.String() {
			t.Errorf("it is an end of %v, %v; want of %v alone", all, err, l)
		}
		last = l
	}
	close(stop)
	sending.Wait()
	must(t, ClearLeft(o.left.path()))
	send(t, c, netip.AddrPortFrom(a, port), "for the sandbox")
	receive(t, victim, netip.AddrPortFrom(o.near.v4, ours), "for the sandbox")
	if err := Turn(o.left.path(), all[1], nil, time.Hour); !errors.Is(err, ErrNoEnd) {
		t.Errorf("turned what is no end: %v", err)
	}
	must(t, Hold(o.left.path(), o.lease))
	if err := Turn(o.left.path(), o.of(o.near, o.now(), 9), nil, time.Hour); !errors.Is(err, ErrNoEnd) {
		t.Errorf("turned what is the end of another address: %v", err)
	}
}

// What came for an address while the pod was held is kept where it is leased, and goes to the new place
// before what comes later.
func TestKeepAndTurn(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			o := movedOnce(t, first)
			all := o.to(t, 1, 5)
			must(t, Hold(o.before().path(), all[0]))
			k, err := Keep(o.left.path(), all[1], 1<<20)
			must(t, err)
			tap := o.left.tap(t)
			must(t, Arrive(o.now().path(), all...))
			var servers, clients []*net.UDPConn
			for _, a := range all[1].Old {
				servers = append(servers, o.now().udp(t, netip.AddrPortFrom(a, port)))
				c := o.near.udp(t, netip.AddrPortFrom(o.near.like(a), ours))
				for _, text := range []string{"one", "two"} {
					send(t, c, netip.AddrPortFrom(a, port), text)
				}
				seen(t, tap, bears("two"))
				clients = append(clients, c)
			}
			must(t, Open(o.now().path(), all[1], time.Hour))
			must(t, Turn(o.left.path(), all[1], k, time.Hour))
			for i, a := range all[1].Old {
				send(t, clients[i], netip.AddrPortFrom(a, port), "later")
				for _, text := range []string{"one", "two", "later"} {
					receive(t, servers[i], netip.AddrPortFrom(o.near.like(a), ours), text)
				}
			}
		})
	}
}

// Where an address was left, and a socket has it still, a probe is answered by the filters' leave.
func TestProbeWhereFiltersAre(t *testing.T) {
	w := moved(t, "IPv4")
	stray := w.new.udp(t, netip.AddrPortFrom(w.left.v4, ours))
	must(t, Leave(w.new.path(), w.lease))
	if _, err := stray.WriteToUDPAddrPort([]byte("stray"), netip.AddrPortFrom(w.far.v4, port)); err == nil {
		t.Fatal("nothing keeps the stray socket silent: the filters are gone")
	}
	l, nonce := w.of(w.new, w.far, 8), Nonce{1}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answers, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- Answer(answers, w.new.path(), l, nonce) }()
	if err := Probe(ctx, w.far.path(), l, nonce); err != nil {
		t.Error(err)
	}
	stop()
	must(t, <-ended)
}

// Where the sandboxes are ends of tunnels already, a probe is answered as elsewhere, also where one is held.
func TestProbeMovedOn(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			o := movedOnce(t, first)
			all := o.to(t, 1, 5)
			nonce := Nonce{1, 2, 3}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var answering sync.WaitGroup
			answers, stop := context.WithCancel(ctx)
			for _, l := range all {
				at := o.holder(l).path()
				answering.Go(func() {
					if err := Answer(answers, at, l, nonce); err != nil {
						t.Error(err)
					}
				})
			}
			for i, l := range append(all, all...) {
				if i == len(all) {
					must(t, Hold(o.left.path(), o.lease))
				}
				if err := Probe(ctx, o.now().path(), l, nonce); err != nil {
					t.Error(err)
				}
				short, stop := context.WithTimeout(ctx, 5*again)
				if err := Probe(short, o.now().path(), l, Nonce{4}); err == nil || !strings.Contains(err.Error(), l.Old[0].String()) {
					t.Errorf("a probe with another nonce: %v, want an error that names %v", err, l.Old[0])
				}
				stop()
			}
			stop()
			answering.Wait()
			o.move(t, all)
			o.talks(t, slices.Concat(all[0].Old, all[1].Old)...)
		})
	}
}

// Each address is left for itself: its connections end, those by the others go on, and with the last
// nothing remains.
func TestLeaveOneOfSeveral(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			o := movedOnce(t, first)
			all := o.to(t, 1, 5)
			o.far.reaches(t, o.now(), o.now().v6)
			fresh := o.now().state(t)
			o.move(t, all)
			accepted := served(t, o.now())
			ends := map[int][]*net.TCPConn{}
			for i, l := range all {
				for _, a := range l.Old {
					c, err := o.far.dial(netip.AddrPortFrom(a, port))
					must(t, err)
					defer c.Close()
					end := <-accepted
					defer end.Close()
					ends[i] = append(ends[i], c, end)
				}
				u := o.far.udp(t, netip.AddrPortFrom(o.far.like(l.Old[0]), 0))
				send(t, u, netip.AddrPortFrom(l.Old[0], ours), "of a peer")
			}
			for _, l := range all {
				eventually(t, "its connections and its peer are not counted", func() bool {
					u, err := Used(o.now().path(), l, time.Minute)
					must(t, err)
					return len(u.Connections) == len(l.Old) && u.Peers == 1
				})
			}
			for i, l := range all {
				must(t, Leave(o.now().path(), l))
				for j, c := range ends[i] {
					must(t, c.SetReadDeadline(time.Now().Add(patience)))
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNABORTED) {
						t.Errorf("lease %d, end %d hears %v", i, j, err)
					}
				}
				if _, err := Used(o.now().path(), l, 0); !errors.Is(err, ErrNoEnd) {
					t.Errorf("of a lease that was left: %v", err)
				}
				if i == 0 {
					o.goOn(t, ends[1])
				}
			}
			if diff := cmp.Diff(fresh, o.now().state(t)); diff != "" {
				t.Error("something is left:", diff)
			}
		})
	}
}

// goOn fails unless what goes in at one of two ends comes out at the other.
func (o *onward) goOn(t *testing.T, ends []*net.TCPConn) {
	t.Helper()
	for i := range ends {
		from, to := ends[i], ends[i^1]
		_, err := from.Write([]byte("on"))
		must(t, err)
		must(t, to.SetReadDeadline(time.Now().Add(patience)))
		buf := make([]byte, 2)
		if _, err := io.ReadFull(to, buf); err != nil || string(buf) != "on" {
			t.Errorf("%v to %v: %q, %v", from.LocalAddr(), to.LocalAddr(), buf, err)
		}
	}
}

// The kernel ends each lease in its time.
func TestDeadlineOfEach(t *testing.T) {
	o := movedOnce(t, "IPv4")
	all := o.to(t, 1, 5)
	o.move(t, all)
	peer := o.far.udp(t, netip.AddrPortFrom(o.far.v4, port))
	for i, over := range all {
		must(t, Open(o.now().path(), over, time.Nanosecond))
		late, on := o.now().udp(t, netip.AddrPortFrom(over.Old[0], 0)), o.now().udp(t, netip.AddrPortFrom(all[1-i].Old[0], ours))
		_, _ = late.WriteToUDPAddrPort([]byte("late"), netip.AddrPortFrom(o.far.v4, port))
		send(t, on, netip.AddrPortFrom(o.far.v4, port), "in time")
		receive(t, peer, netip.AddrPortFrom(all[1-i].Old[0], ours), "in time")
		must(t, Open(o.now().path(), over, time.Hour))
		on.Close()
	}
}

// Nobody puts packets into any of the tunnels but the sandbox at its other end: no stranger, wherever he
// sends them, and not the sandbox that holds another of the pod's addresses.
func TestForgedMovedOn(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			o := movedOnce(t, first)
			all := o.to(t, 1, 5)
			o.move(t, all)
			own := o.now().udp(t, netip.AddrPortFrom(o.now().like(all[0].New), 7070))
			for i, l := range all {
				victim := o.now().udp(t, netip.AddrPortFrom(o.holder(l).v4, port))
				heard := func() {
					t.Helper()
					near := o.near.udp(t, netip.AddrPortFrom(o.near.v4, 0))
					send(t, near, netip.AddrPortFrom(o.holder(l).v4, port), "true")
					receive(t, victim, near.LocalAddr().(*net.UDPAddr).AddrPort(), "true")
				}
				heard()
				from, to := netip.AddrPortFrom(o.near.v4, ours), netip.AddrPortFrom(o.holder(l).v4, port)
				x := o.pod(t, 1, 20+i)
				meet(t, x, o.far)
				c := x.udp(t, netip.AddrPortFrom(x.like(l.New), ours))
				for _, at := range []netip.Addr{l.New, all[0].Old[0], all[1].Old[0]} {
					send(t, c, netip.AddrPortFrom(at, Port), l.wrapped(from, to, "forged"))
				}
				// Of the other's tunnel, and from where that ends in the name of this one.
				other := all[1-i]
				o.holder(other).inject(t, other, datagram(from, to, "forged"))
				theirs := o.holder(other).udp(t, netip.AddrPortFrom(other.Old[0], 0))
				for _, text := range []string{"forged", "forged" + strings.Repeat("x", 3000)} {
					send(t, theirs, netip.AddrPortFrom(l.New, Port), l.wrapped(from, to, text))
				}
				send(t, x.udp(t, netip.AddrPortFrom(x.like(l.New), 7071)), netip.AddrPortFrom(l.New, 7070), "after it")
				receive(t, own, netip.AddrPortFrom(x.like(l.New), 7071), "after it")
				heard()
				victim.Close()
			}
		})
	}
}

// Who is given an address that was left puts nothing into the tunnels of those that are still leased.
func TestForgedByNextOwner(t *testing.T) {
	for _, first := range firsts {
		t.Run(first, func(t *testing.T) {
			o := movedOnce(t, first)
			all := o.to(t, 1, 5)
			o.move(t, all)
			victim := o.now().udp(t, netip.AddrPortFrom(o.holder(all[0]).v4, port))
			own := o.now().udp(t, netip.AddrPortFrom(o.now().like(all[0].New), 7070))
			must(t, Leave(o.now().path(), all[1]))
			must(t, ClearLeft(o.left.path())) // it is anybody's now
			from, to := netip.AddrPortFrom(o.near.v4, ours), netip.AddrPortFrom(o.holder(all[0]).v4, port)
			x := o.left.udp(t, netip.AddrPortFrom(all[1].Old[0], ours))
			for _, text := range []string{"forged", "forged" + strings.Repeat("x", 3000)} {
				send(t, x, netip.AddrPortFrom(all[0].New, Port), all[0].wrapped(from, to, text))
			}
			send(t, x, netip.AddrPortFrom(all[0].New, 7070), "after it")
			receive(t, own, netip.AddrPortFrom(all[1].Old[0], ours), "after it")
			near := o.near.udp(t, netip.AddrPortFrom(o.near.v4, 0))
			send(t, near, to, "true")
			receive(t, victim, near.LocalAddr().(*net.UDPAddr).AddrPort(), "true")
		})
	}
}

// Leases that cannot be of one pod at one place.
func TestArriveRefused(t *testing.T) {
	o := movedOnce(t, "IPv4")
	all := o.to(t, 1, 5)
	same, elsewhere := all[1], all[1]
	same.Network += Most - 1
	elsewhere.New = o.far.v4
	for name, leases := range map[string][]Lease{
		"none":                         nil,
		"twice one place of a network": {all[0], same},
		"twice one address":            {all[0], {Old: all[0].Old, New: all[0].New, Network: all[1].Network}},
		"to two places":                {all[0], elsewhere},
		"more than there can be":       {all[0], all[1], all[0], all[1], all[0]},
	} {
		if err := Arrive(o.now().path(), leases...); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}
