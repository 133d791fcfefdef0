package address

import (
	"fmt"
	"slices"
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
	if lease, err := s.lease(l); err == nil {
		defer lease.Close()
		return lease.SetLeft(tunnel.Held, 0)
	}
	if err := s.clear(); err != nil {
		return err
	}
	uplink, err := s.holder(l.Old[0])
	if err != nil {
		return err
	}
	for _, a := range l.Old {
		if other, err := s.holder(a); err != nil {
			return err
		} else if other.Attrs().Index != uplink.Attrs().Index {
			return fmt.Errorf("%v is of %s and %v of %s: one device must have both", l.Old[0], uplink.Attrs().Name, a, other.Attrs().Name)
		}
	}
	rest, err := s.LinkList()
	if err != nil {
		return fmt.Errorf("list the devices: %w", err)
	}
	rest = slices.DeleteFunc(rest, func(other netlink.Link) bool { return other.Attrs().Index == uplink.Attrs().Index })
	// Whole packets of the uplink come this far: VXLAN makes fragments of them or says to the sender
	// that they are too large.
	link, err := s.makeTunnel(l.Old[0], l.New, uplink.Attrs().MTU, leftMAC)
	if err != nil {
		return err
	}
	if err := s.bridge(link); err != nil {
		return err
	}
	programs, err := tunnel.Load(tunnel.Config{Old: l.Old, Here: l.Old[0], There: l.New, Port: Port,
		Uplink: uplink.Attrs().Index, Tunnel: link.Attrs().Index, From: leftMAC, To: newMAC})
	if err != nil {
		return err
	}
	defer programs.Close()
	if err := programs.AttachLeft(s.Handle, uplink, link, rest); err != nil {
		return err
	}
	return s.complete(link, l)
}

// bridge makes the tunnel's device the port of a bridge that is down and does nothing: to what comes
// from a bridge VXLAN answers when it is too large (net/ipv4/ip_tunnel_core.c, skb_tunnel_check_pmtu).
func (s *sandbox) bridge(port netlink.Link) error {
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
// the network. It is held until then. Only when the new end is open, and nothing of the pod is
// left in the old sandbox, may it be called. What was kept until then, if anything, goes first.
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

func (s *sandbox) forward(l Lease, kept *Kept, d time.Duration) error {
	lease, err := s.lease(l)
	if err != nil {
		return err
	}
	defer lease.Close()
	if does, err := lease.Forwards(); does || err != nil {
		return err
	}
	if kept != nil {
		// Its answers have to come back, and nothing newer may come before it.
		if err := lease.SetLeft(tunnel.Back, d); err != nil {
			return err
		}
		if err := kept.send(s); err != nil {
			return err
		}
	}
	return lease.SetLeft(tunnel.Forward, d)
}
