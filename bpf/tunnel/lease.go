package tunnel

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNone: no programs of Drover's are attached there.
var ErrNone = errors.New("no end of a tunnel is here")

// Lease is what an agent may change at one end of a tunnel while the programs run.
type Lease struct {
	state, peers *ebpf.Map
	end          uint32 // of the programs' ends
}

// FindLeft finds the lease of the end that the pod has left, by the tunnel's device; ErrNone: it is none.
func FindLeft(h *netlink.Handle, tunnel netlink.Link) (*Lease, error) {
	return find(h, tunnel, back, 0)
}

// FindNew finds that of one that the pod is in now; end is its place among the programs' ends.
func FindNew(h *netlink.Handle, tunnel netlink.Link, end int) (*Lease, error) {
	return find(h, tunnel, from, end)
}

func find(h *netlink.Handle, tunnel netlink.Link, filter string, end int) (*Lease, error) {
	filters, err := h.FilterList(tunnel, uint32(In))
	if err != nil {
		return nil, fmt.Errorf("list the filters of %s: %w", tunnel.Attrs().Name, err)
	}
	for _, f := range filters {
		if named(f, filter) {
			return leaseOf(ebpf.ProgramID(f.(*netlink.BpfFilter).Id), end)
		}
	}
	return nil, ErrNone
}

func leaseOf(id ebpf.ProgramID, end int) (*Lease, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("find the program of a tunnel's end: %w", err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("look at the program of a tunnel's end: %w", err)
	}
	ids, _ := info.MapIDs()
	l := &Lease{end: uint32(end)}
	for _, id := range ids {
		if err := l.take(id); err != nil {
			return nil, errors.Join(fmt.Errorf("find the maps of a tunnel's end: %w", err), l.Close())
		}
	}
	if l.state == nil {
		return nil, errors.Join(fmt.Errorf("the program of a tunnel's end has no map %slease", mark), l.Close())
	}
	return l, nil
}

// take keeps the map if it is one of those that are asked for.
func (l *Lease) take(id ebpf.MapID) error {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return err
	}
	info, err := m.Info()
	if err != nil {
		return errors.Join(err, m.Close())
	}
	switch info.Name {
	case mark + "lease":
		l.state = m
	case mark + "peers":
		l.peers = m
	default:
		return m.Close()
	}
	return nil
}

// Close lets go of the maps.
func (l *Lease) Close() error { return errors.Join(l.state.Close(), l.peers.Close()) }

// Left is how far the end is open that the pod has left.
type Left uint64

// Held lets nothing through, Back what the tunnel brings back, Forward everything.
const (
	Held Left = iota
	Back
	Forward
)

// SetLeft opens the end that the pod has left for so long from now on, or holds it. The kernel
// holds it then.
func (l *Lease) SetLeft(to Left, d time.Duration) error {
	if to == Held {
		return l.set(tunnelLease{})
	}
	return l.open(to, d)
}

// Forwards tells that the end that the pod has left was opened for everything, and not held since
// but by the kernel.
func (l *Lease) Forwards() (bool, error) {
	state, err := l.read()
	return Left(state.Left) == Forward, err
}

// Open opens the end that the pod is in now for so long from now on. The kernel closes it
// then; 0 closes it at once.
func (l *Lease) Open(d time.Duration) error { return l.open(Held, d) }

// Shut closes the end that the pod is in now for good: from its other end, whose address may be somebody
// else's from now on, nothing is taken for a tunnel's any more.
func (l *Lease) Shut() error { return l.set(tunnelLease{Over: 1}) }

func (l *Lease) open(to Left, d time.Duration) error {
	state := tunnelLease{Left: uint64(to)}
	if d > 0 {
		now, err := sinceBoot()
		if err != nil {
			return err
		}
		state.Until = uint64(now + d)
	}
	return l.set(state)
}

// Left is for how long packets are let through at the end that the pod is in now; 0: they are not. opened: it
// is not held, or was closed by the kernel.
func (l *Lease) Left() (d time.Duration, opened bool, _ error) {
	state, err := l.read()
	if err != nil {
		return 0, false, err
	}
	now, err := sinceBoot()
	return max(0, time.Duration(state.Until)-now), state.Until != 0, err
}

// Peers is how many have sent datagrams to the old address in the last so long.
func (l *Lease) Peers(within time.Duration) (int, error) {
	now, err := sinceBoot()
	if err != nil {
		return 0, err
	}
	var peer tunnelPeer
	var asked tunnelAsked
	n, all := 0, l.peers.Iterate()
	for all.Next(&peer, &asked) {
		if asked.End == uint64(l.end) && now-time.Duration(asked.At) <= within {
			n++
		}
	}
	// One that is broken off because peers come and go has seen the others at least.
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return 0, fmt.Errorf("list the peers of an old address: %w", err)
	}
	return n, nil
}

// sinceBoot is the clock by which the programs go.
func sinceBoot() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the time since boot: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

func (l *Lease) read() (state tunnelLease, err error) {
	if err = l.state.Lookup(l.end, &state); err != nil {
		err = fmt.Errorf("read until when an address is leased: %w", err)
	}
	return state, err
}

func (l *Lease) set(state tunnelLease) error {
	if err := l.state.Put(l.end, state); err != nil {
		return fmt.Errorf("change the lease of an address: %w", err)
	}
	return nil
}
