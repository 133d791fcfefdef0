package measure

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/internal/model"
)

// flight is one probe that is on its way.
type flight struct {
	to   netip.Addr
	path int // which of the senders it left by
	sent time.Time
}

// flights are all probes on their way, by nonce and in the order in which they were sent.
type flights struct {
	byNonce  map[uint64]flight
	inOrder  []uint64
	sequence uint64
}

// probe sends probes to the peers, each round in another order and at uneven times, so that
// nodes do not fall into step with each other or with something periodic on the way. A few leave
// together, so that the agent is woken less often.
func (r *Routes) probe(ctx context.Context, senders []sender, meter *routetime.Meter) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		addresses := r.addresses()
		mathrand.Shuffle(len(addresses), func(i, j int) {
			addresses[i], addresses[j] = addresses[j], addresses[i]
		})
		together, pause := spread(len(addresses), r.config.Interval)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
			if meter != nil {
				// Run closes the meter once ctx is over, whether this has seen that or not.
				if err := r.take(meter); ctx.Err() != nil {
					return nil
				} else if err != nil {
					return err
				}
			}
			r.expire(time.Now(), meter)
			together = min(together, len(addresses))
			for _, to := range addresses[:together] {
				r.send(to, senders, meter)
			}
			addresses = addresses[together:]
			timer.Reset(r.config.Pace.wait(time.Now(), pause))
			if len(addresses) == 0 {
				break
			}
		}
	}
}

// spread says how many of some probes are to leave together, and with which pause between, so that
// all leave within the interval.
func spread(probes int, interval time.Duration) (together int, pause time.Duration) {
	times := max(1, (probes+mostTogether-1)/mostTogether)
	together = (probes + times - 1) / times
	return together, max(leastPause*time.Duration(together), interval/time.Duration(times))
}

func (r *Routes) addresses() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.routes))
}

// send sends one probe to an address, by the next of the senders.
func (r *Routes) send(to netip.Addr, senders []sender, meter *routetime.Meter) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	nonce := binary.NativeEndian.Uint64(random[:])
	if meter != nil {
		// Without the announcement (its table is full) the answer is timed in user space.
		if err := meter.Expect(nonce, to); err != nil {
			r.config.Log.Debug("probe is not stamped by the kernel", "peer", to, "error", err)
		}
	}
	r.mu.Lock()
	path := 0
	if route := r.routes[to]; route != nil {
		path = route.turn % len(senders)
		route.turn++
	}
	r.flights.sequence++
	packet := routetime.Packet{Kind: routetime.Probe, Nonce: nonce, Sequence: r.flights.sequence}
	r.flights.inOrder = append(r.flights.inOrder, nonce)
	r.flights.byNonce[nonce] = flight{to, path, time.Now()}
	r.mu.Unlock()

	var buf [routetime.PacketSize]byte
	err := senders[path](packet.Append(buf[:0]), to)
	if err == nil {
		return
	}
	r.config.Log.Debug("probe was not sent", "peer", to, "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flights.byNonce, nonce)
	if route := r.routes[to]; route != nil {
		route.failed++
	}
	forget(meter, nonce)
}

// expire counts the probes that have been away for too long.
func (r *Routes) expire(now time.Time, meter *routetime.Meter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := 0
	for _, nonce := range r.flights.inOrder {
		f, away := r.flights.byNonce[nonce]
		if away && now.Sub(f.sent) < probeTimeout {
			break
		}
		gone++
		if !away {
			continue
		}
		delete(r.flights.byNonce, nonce)
		if route := r.routes[f.to]; route != nil {
			route.lost++
		}
		forget(meter, nonce)
	}
	r.flights.inOrder = slices.Delete(r.flights.inOrder, 0, gone)
}

func forget(meter *routetime.Meter, nonce uint64) {
	if meter != nil {
		_ = meter.Forget(nonce) // at worst a slot of its table is lost
	}
}

// land takes in one answer, and tells whether it was waited for.
func (r *Routes) land(nonce uint64, from netip.Addr, stamp model.Stamp, rtt func(sent time.Time) time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, away := r.flights.byNonce[nonce]
	if !away || f.to != from {
		return false
	}
	delete(r.flights.byNonce, nonce)
	if route := r.routes[from]; route != nil {
		route.answered++
		route.quiet = quiet{since: time.Now(), turn: route.turn}
		took := rtt(f.sent)
		route.window.Add(time.Now(), took, stamp, f.path)
		route.trips.observe(took, stamp)
	}
	return true
}

// sampler is the routetime.Meter as far as it is one.
type sampler interface {
	Samples() (samples []routetime.Sample, bad []error, err error)
}

// take takes in what the kernel has measured since it was last asked. It has the times already:
// to be woken for each would cost more, and make none better.
func (r *Routes) take(meter sampler) error {
	samples, bad, err := meter.Samples()
	if err != nil {
		return fmt.Errorf("measure routes: %w", err)
	}
	r.pass(bad)
	for _, s := range samples {
		stamp := model.StampKernel
		if s.Answered != routetime.AnsweredByKernel {
			stamp = model.StampUser // the peer's processor is part of this time
		}
		r.land(s.Nonce, s.Peer, stamp, func(time.Time) time.Duration { return s.RTT })
	}
	return nil
}

// pass counts what the kernel told that cannot be a sample. Only the first is logged: what is
// wrong once may be so many times a second.
func (r *Routes) pass(bad []error) {
	if len(bad) == 0 {
		return
	}
	first := false
	r.refuse(func(c *refusals) {
		first = c.impossible == 0
		c.impossible += uint64(len(bad))
	})
	if first {
		r.config.Log.Error("the kernel's programs tell what cannot be: it is passed over, and counted from now on", "error", bad[0])
	}
}

// receive answers the probes and takes in the answers that no kernel program has handled,
// here or there, until the socket is closed.
func (r *Routes) receive(conn *net.UDPConn, meter *routetime.Meter) error {
	var buf [routetime.PacketSize + 1]byte
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf[:])
		now := time.Now()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("measure routes: receive on %s: %w", conn.LocalAddr(), err)
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		packet, err := routetime.Parse(buf[:n])
		switch {
		case err != nil:
			r.refuse(func(c *refusals) { c.malformed++ })
		case packet.Kind == routetime.Probe:
			r.answer(packet, from, conn)
		case r.land(packet.Nonce, from.Addr(), model.StampUser, now.Sub):
			forget(meter, packet.Nonce)
		default:
			r.refuse(func(c *refusals) { c.unknown++ })
		}
	}
}

// answer turns a member's probe round: one to routetime.Port, from one of the ports that
// probes come from.
func (r *Routes) answer(packet routetime.Packet, from netip.AddrPort, conn *net.UDPConn) {
	r.mu.Lock()
	_, member := r.routes[from.Addr()]
	r.mu.Unlock()
	to := conn.LocalAddr().(*net.UDPAddr).Port
	if !member || to != routetime.Port || from.Port() < routetime.Port || from.Port() >= routetime.Port+routetime.Paths {
		r.refuse(func(c *refusals) { c.stranger++ })
		return
	}
	packet.Kind = routetime.AnsweredByUser
	var buf [routetime.PacketSize]byte
	if _, err := conn.WriteToUDPAddrPort(packet.Append(buf[:0]), from); err != nil {
		r.config.Log.Debug("probe was not answered", "peer", from, "error", err)
	}
}

func (r *Routes) refuse(count func(*refusals)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count(&r.refused)
}
