package address

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/drover-project/drover/bpf/tunnel"
)

// Hold lets nothing into the sandbox at path, which the pod is about to leave, nor out of it, but
// for neighbours' questions: nobody is refused, what is sent is lost, and TCP sends it again. Its
// old addresses stay its own. Already there and forwarding: it is held again.
func Hold(path string, l Lease) error {
	s, err := l.enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := s.hold(l); err != nil {
		return fmt.Errorf("hold what is for %v in %s: %w", l.Old, path, err)
	}
	return nil
}

func (s *sandbox) hold(l Lease) error {
	if lease, err := s.leftLease(l); err == nil {
		defer lease.Close()
		return lease.SetLeft(tunnel.Held, 0)
	}
	return s.part(l)
}

// part makes the sandbox an end of this lease's tunnel which the pod has left, held. Where it is that of
// another tunnel there is no moment in which anything comes to the sandbox's own stack.
func (s *sandbox) part(l Lease) error {
	p, err := s.begin(l)
	if err != nil {
		return err
	}
	defer p.programs.Close()
	return p.complete(s)
}

// Parting is a sandbox that the pod is about to leave: nothing comes in any more, and what the pod says
// goes out.
type Parting struct {
	path     string
	lease    Lease
	uplink   netlink.Link
	tunnel   netlink.Link
	programs *tunnel.Programs
}

// Part keeps what comes from the sandbox at path until the pod is frozen, and the Parting held. A pod that runs
// on meanwhile ends what it is at: were its last words kept in, what it closes after them would be in no dump, and
// its peer never hear them.
func Part(path string, l Lease) (*Parting, error) {
	s, err := l.enter(path)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	p, err := s.begin(l)
	if err != nil {
		return nil, fmt.Errorf("keep what is for %v from %s: %w", l.Old, path, err)
	}
	p.path = path
	return p, nil
}

// Hold is as the Hold of a sandbox. Whether it fails or not, the Parting is used up.
func (p *Parting) Hold() error {
	defer p.programs.Close()
	s, err := enter(p.path)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := p.complete(s); err != nil {
		return fmt.Errorf("hold what is for %v in %s: %w", p.lease.Old, p.path, err)
	}
	return nil
}

// Close lets go of it; what there is in the sandbox is ClearLeft's.
func (p *Parting) Close() error { return p.programs.Close() }

func (s *sandbox) begin(l Lease) (*Parting, error) {
	if err := s.remove(l.isOf); err != nil {
		return nil, err
	}
	uplink, err := s.holder(l.Old[0])
	if err != nil {
		return nil, err
	}
	for _, a := range l.Old {
		if other, err := s.holder(a); err != nil {
			return nil, err
		} else if other.Attrs().Index != uplink.Attrs().Index {
			return nil, fmt.Errorf("%v is of %s and %v of %s: one device must have both", l.Old[0], uplink.Attrs().Name, a, other.Attrs().Name)
		}
	}
	// Whole packets of the uplink come this far: VXLAN makes fragments of them or says to the sender
	// that they are too large.
	link, err := s.makeTunnel(l, l.Old[0], l.New, uplink.Attrs().MTU, leftMAC)
	if err != nil {
		return nil, err
	}
	if err := s.bridge(l, link); err != nil {
		return nil, err
	}
	programs, err := tunnel.Load(tunnel.Config{Ends: [Most]tunnel.End{{Old: l.Old, There: l.New, Tunnel: link.Attrs().Index, Network: l.Network}},
		Here: l.Old[0], Port: Port, Uplink: uplink.Attrs().Index, From: leftMAC, To: newMAC})
	if err != nil {
		return nil, err
	}
	if err := programs.AttachLeftIn(s.Handle, uplink, link); err != nil {
		return nil, errors.Join(err, programs.Close())
	}
	return &Parting{lease: l, uplink: uplink, tunnel: link, programs: programs}, nil
}

func (p *Parting) complete(s *sandbox) error {
	rest, err := s.LinkList()
	if err != nil {
		return fmt.Errorf("list the devices: %w", err)
	}
	rest = slices.DeleteFunc(rest, func(other netlink.Link) bool {
		return other.Attrs().Index == p.uplink.Attrs().Index || strings.HasPrefix(other.Attrs().Name, mark) && isLeft(other)
	})
	if err := p.programs.AttachLeftOut(s.Handle, p.uplink, rest); err != nil {
		return err
	}
	if err := s.complete(p.tunnel, p.lease); err != nil {
		return err
	}
	return s.only(p.lease)
}

// only removes the tunnels that the sandbox was turned from.
func (s *sandbox) only(l Lease) error {
	return s.remove(func(d netlink.Link) bool { return isLeft(d) && !l.isOf(d) })
}

// isOf tells of a device of Drover's that it is of this lease's tunnel.
func (l Lease) isOf(d netlink.Link) bool {
	return d.Attrs().Name == l.device() || d.Attrs().Name == l.bridge()
}

// bridge makes the tunnel's device the port of a bridge that is down and does nothing: to what comes
// from a bridge VXLAN answers when it is too large (net/ipv4/ip_tunnel_core.c, skb_tunnel_check_pmtu).
func (s *sandbox) bridge(l Lease, port netlink.Link) error {
	bridge := l.bridge()
	err := s.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge, TxQLen: -1}})
	if err != nil {
		return fmt.Errorf("make the bridge %s: %w", bridge, err)
	}
	master, err := s.LinkByName(bridge)
	if err != nil {
		return err
	}
	if err := s.LinkSetMaster(port, master); err != nil {
		return fmt.Errorf("make %s a port of %s: %w", port.Attrs().Name, bridge, err)
	}
	return nil
}

// Forward sends what is for the old addresses on to the new sandbox, and what comes back out into
// the network. It is held until then. Only when the new end is open, and nothing of the pod runs
// in the old sandbox any more, may it be called. What was kept until then, if anything, goes first, and is used
// up; after an error it is not.
// After d the kernel holds it again, for the new address may soon be somebody else's; called again,
// it is not sent on for longer.
func Forward(path string, l Lease, kept *Kept, d time.Duration) error {
	s, err := enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := s.forward(l, kept, d); err != nil {
		return fmt.Errorf("forward what is for %v from %s: %w", l.Old, path, err)
	}
	return nil
}

// Turn sends what is for the old addresses, in the sandbox at path that the pod has left, on to another
// new sandbox than it was sent to so far, for the pod has moved on. Only when the new end is open may it
// be called. Apart from that it is as Forward is. ErrNoEnd: the sandbox is no old end of these addresses;
// ErrMovedOn: it sends to where the pod has come later, and goes on to.
func Turn(path string, to Lease, kept *Kept, d time.Duration) error {
	s, err := to.enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := s.turn(to, kept, d); err != nil {
		return fmt.Errorf("turn what is for %v in %s to %v: %w", to.Old, path, to.New, err)
	}
	return nil
}

func (s *sandbox) turn(to Lease, kept *Kept, d time.Duration) error {
	all, err := s.ends(true)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(l Lease) bool { return slices.Equal(l.Old, to.Old) }) {
		return fmt.Errorf("%w: it is that of %v", ErrNoEnd, all)
	}
	if i := slices.IndexFunc(all, func(l Lease) bool { return l.after(to) }); i >= 0 {
		return fmt.Errorf("%w, to %v", ErrMovedOn, all[i])
	}
	switch _, err := s.end(to); {
	case errors.Is(err, ErrNoEnd):
		if err := s.part(to); err != nil {
			return err
		}
	case err != nil:
		return err
	default: // one that died may not have come to that
		if err := s.only(to); err != nil {
			return err
		}
	}
	return s.forward(to, kept, d)
}

func (s *sandbox) forward(l Lease, kept *Kept, d time.Duration) error {
	lease, err := s.leftLease(l)
	if err != nil {
		return err
	}
	defer lease.Close()
	does, err := lease.Forwards()
	if err != nil || does && kept == nil {
		return err
	}
	if does {
		return kept.Close()
	}
	if kept != nil {
		// Its answers have to come back, and nothing newer may come before it.
		if err := lease.SetLeft(tunnel.Back, d); err != nil {
			return err
		}
		if err := kept.send(s, l); err != nil {
			return err
		}
	}
	return lease.SetLeft(tunnel.Forward, d)
}
