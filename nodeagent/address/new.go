package address

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/tunnel"
)

// owner marks rules as Drover's (rtnetlink's protocol of who has made it). Routes go with the
// tunnel's device, or are in a table of Drover's own.
const owner = 0xd7

// The tables of routes, and the rules that lead there. The kernel's rule for its own addresses has
// priority 0; a tunnel's own packets go to an address that is the sandbox's own by now.
const (
	tableOut  = 7473 // to tunnels' other ends
	tableBack = 7474 // from an old address: this and the next, by the lease's place

	priorityOut   = 5
	priorityLocal = 10
	priorityBack  = 11
)

// settling is how long the kernel may take to put an address to use.
const settling = 5 * time.Second

// Arrive gives the old addresses of all leases to the sandbox at path, so that sockets can be restored to
// them. Until Open nothing leaves from them and nothing comes to them; it never does but by the tunnels.
func Arrive(path string, all ...Lease) error {
	if err := valid(all); err != nil {
		return err
	}
	s, err := enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := s.arrive(all); err != nil {
		return fmt.Errorf("bring %v to %s: %w", all, path, err)
	}
	return nil
}

func (s *sandbox) arrive(all []Lease) error {
	if is, err := s.arrived(all); is || err != nil {
		return err
	}
	if err := s.clearNew(); err != nil {
		return err
	}
	uplink, err := s.holder(all[0].New)
	if err != nil {
		return err
	}
	c := tunnel.Config{Here: all[0].New, Port: Port, Uplink: uplink.Attrs().Index, From: newMAC, To: leftMAC}
	var ways []*netlink.Route
	for _, l := range all {
		for _, a := range l.Old {
			if link, err := s.holder(a); err == nil {
				return fmt.Errorf("%s has the address %v already", link.Attrs().Name, a)
			}
		}
		way, err := s.way(l)
		if err != nil {
			return err
		}
		ways = append(ways, way)
	}
	outside, err := s.outside()
	if err != nil {
		return err
	}
	var tunnels []netlink.Link
	for _, l := range all {
		link, err := s.makeTunnel(l, l.New, l.Old[0], uplink.Attrs().MTU-l.overhead(), newMAC)
		if err != nil {
			return err
		}
		tunnels = append(tunnels, link)
		c.Ends[l.place()] = tunnel.End{Old: l.Old, There: l.Old[0], Tunnel: link.Attrs().Index, Network: l.Network}
	}
	programs, err := tunnel.Load(c)
	if err != nil {
		return err
	}
	defer programs.Close()
	if err := programs.AttachNew(s.Handle, outside, tunnels); err != nil {
		return err
	}
	for i, l := range all {
		if err := s.lead(l, ways[i], tunnels[i]); err != nil {
			return err
		}
	}
	if err := s.moveLocal(family(all[0].New)); err != nil {
		return err
	}
	for i, l := range all {
		for _, a := range l.Old {
			if err := s.add(a, tunnels[i]); err != nil {
				return fmt.Errorf("give %v to %s: %w", a, l.device(), err)
			}
		}
	}
	for i, l := range all {
		if err := s.complete(tunnels[i], l); err != nil {
			return err
		}
	}
	return nil
}

// arrived tells that the sandbox is the new end of these leases and of no other.
func (s *sandbox) arrived(all []Lease) (bool, error) {
	for _, l := range all {
		if _, err := s.end(l); errors.Is(err, ErrNoEnd) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	there, err := s.ends(false)
	return len(there) == len(all), err
}

// outside are the devices by which anybody but the pod itself can send something here: the tunnel's
// socket is bound to no address. The filters read Ethernet.
func (s *sandbox) outside() ([]netlink.Link, error) {
	all, err := s.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the devices: %w", err)
	}
	return slices.DeleteFunc(all, func(d netlink.Link) bool { return d.Attrs().EncapType != "ether" }), nil
}

// way is the route to the tunnel's other end as it is before that address is this sandbox's own.
func (s *sandbox) way(l Lease) (*netlink.Route, error) {
	routes, err := s.RouteGet(l.Old[0].AsSlice())
	if err != nil {
		return nil, fmt.Errorf("find the route to %v: %w", l.Old[0], err)
	}
	r := routes[0]
	return &netlink.Route{Family: family(l.New), Dst: host(l.Old[0]), Gw: r.Gw, LinkIndex: r.LinkIndex, Table: tableOut,
		Flags: int(netlink.FLAG_ONLINK) * boolean(r.Gw != nil)}, nil
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// lead makes the routes and rules of one lease: the tunnel's packets out by the uplink although they are
// for an address of this sandbox, and what is from an old address into the tunnel.
func (s *sandbox) lead(l Lease, way *netlink.Route, link netlink.Link) error {
	if err := s.RouteReplace(way); err != nil {
		return fmt.Errorf("make the route %v: %w", way, err)
	}
	out := rule(family(l.New), priorityOut, tableOut)
	out.Src, out.Dst = host(l.New), host(l.Old[0])
	rules := []*netlink.Rule{out}
	table := tableBack + l.place()
	for _, a := range l.Old {
		all := netlink.Route{Family: family(a), Dst: everything(a), LinkIndex: link.Attrs().Index, Table: table, Scope: netlink.SCOPE_LINK}
		if a.Is6() {
			all.Scope = netlink.SCOPE_UNIVERSE
		}
		if err := s.RouteReplace(&all); err != nil {
			return fmt.Errorf("make the route %v: %w", all, err)
		}
		back := rule(family(a), priorityBack, table)
		back.Src = host(a)
		rules = append(rules, back)
	}
	for _, r := range rules {
		if err := s.RuleAdd(r); err != nil {
			return fmt.Errorf("make the rule %v: %w", r, err)
		}
	}
	return nil
}

// moveLocal puts the rule for the sandbox's own addresses behind those for tunnels' packets.
func (s *sandbox) moveLocal(family int) error {
	err := s.RuleAdd(rule(family, priorityLocal, unix.RT_TABLE_LOCAL))
	if err == nil {
		err = s.RuleDel(kernelsLocal(family))
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("move the rule for the sandbox's own addresses: %w", err)
	}
	return nil
}

func rule(family, priority, table int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.Protocol = family, priority, table, owner
	return r
}

// kernelsLocal is the rule that every namespace is born with.
func kernelsLocal(family int) *netlink.Rule {
	r := rule(family, 0, unix.RT_TABLE_LOCAL)
	r.Protocol = unix.RTPROT_KERNEL
	return r
}

func everything(a netip.Addr) *net.IPNet {
	n := host(a)
	for i := range n.Mask {
		n.IP[i], n.Mask[i] = 0, 0
	}
	return n
}

// add gives an old address to the tunnel's device. Nobody is asked whether it is free, for it is
// not, and no connection that the pod begins has it as its own.
func (s *sandbox) add(a netip.Addr, link netlink.Link) error {
	addr := &netlink.Addr{IPNet: host(a)}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
		addr.ValidLft = math.MaxUint32 // for ever; preferred for 0 s: not chosen
	}
	if err := s.AddrAdd(link, addr); err != nil {
		return err
	}
	// IPv6 makes the route that has packets delivered a moment later.
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		routes, err := s.RouteGet(a.AsSlice())
		if err == nil && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Since(begun) > settling {
			return errors.Join(fmt.Errorf("the kernel delivers nothing to it after %v", settling), err)
		}
	}
}

// unlead takes away the rules and routes of those old addresses, and with the last of them puts the
// kernel's own rule back.
func (s *sandbox) unlead(is func(old netip.Addr) bool) error {
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := s.RuleList(f)
		if err != nil {
			return fmt.Errorf("list the rules in %s: %w", s.path, err)
		}
		rules = slices.DeleteFunc(rules, func(r netlink.Rule) bool { return r.Protocol != owner })
		local := slices.IndexFunc(rules, func(r netlink.Rule) bool { return r.Priority == priorityLocal })
		left := 0
		for i, r := range rules {
			if i == local {
				continue
			}
			if !is(oldOf(r)) {
				left++
				continue
			}
			if err := s.unrule(r, f); err != nil {
				return err
			}
		}
		if local >= 0 && left == 0 {
			if err := s.RuleAdd(kernelsLocal(f)); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("put back the rule for the sandbox's own addresses: %w", err)
			}
			if err := s.unrule(rules[local], f); err != nil {
				return err
			}
		}
		routes, err := s.RouteListFiltered(f, &netlink.Route{Table: tableOut}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list the routes in %s: %w", s.path, err)
		}
		for _, r := range routes {
			if r.Dst != nil && !is(addr(r.Dst)) {
				continue
			}
			if err := s.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("remove the route %v: %w", r, err)
			}
		}
	}
	return nil
}

// oldOf is the old address for which a rule is.
func oldOf(r netlink.Rule) netip.Addr {
	if r.Dst != nil {
		return addr(r.Dst)
	}
	return addr(r.Src)
}

func addr(n *net.IPNet) netip.Addr {
	if n == nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	return a.Unmap()
}

func (s *sandbox) unrule(r netlink.Rule, family int) error {
	r.Family = family
	if err := s.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the rule %v: %w", r, err)
	}
	return nil
}

// Open lets packets of the old addresses through at the new end for so long from now on; called
// again, from then on. The kernel closes it by itself; 0 closes it at once.
func Open(path string, l Lease, d time.Duration) error {
	s, err := enter(path)
	if err != nil {
		return err
	}
	defer s.leave()
	lease, err := s.newLease(l)
	if err == nil {
		defer lease.Close()
		err = lease.Open(d)
	}
	if err != nil {
		return fmt.Errorf("open %s for %v: %w", path, l.Old, err)
	}
	return nil
}
