// Package address lets a pod that has moved keep its old address, and with it its connections:
// by a tunnel between the sandbox that it has left, which still has the address from the
// cluster's network, and the sandbox that it is in now. Nothing of a node is changed, only of
// these two network namespaces; what is there works on when no agent lives, and every call can be
// made again, by another agent too. docs/decisions/0034 tells why, and in which order.
//
// A pod that moves on has several old addresses, each with its tunnel: the sandbox that holds one is
// turned to the newest place. So a sandbox can be the new end of several tunnels, and become the old
// end of one more; what it is to the several stays as it is then, so that the pod can go on there.
//
// Linux 5.10 or newer with VXLAN and cls_bpf is needed.
package address

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-project/drover/bpf/tunnel"
)

// Port is the UDP port of all tunnels at both ends.
const Port = 7473

// Most is how many tunnels a sandbox can be the new end of.
const Most = tunnel.Most

// mark begins the names of all devices that are Drover's.
const mark = "drover"

// The hardware addresses of the tunnel's devices are made up, and of local meaning.
var (
	leftMAC = net.HardwareAddr{2, 'd', 'r', 'o', 'v', 1}
	newMAC  = net.HardwareAddr{2, 'd', 'r', 'o', 'v', 2}
)

// Lease is an old address and where it leads.
type Lease struct {
	// Old is the pod's old address, and its other one where the cluster has both families. The
	// tunnel is between Old[0] and New.
	Old []netip.Addr
	// New is the address of the new pod, of the family of Old[0].
	New netip.Addr
	// Network is the tunnel's VXLAN network identifier, of 24 bits. In one sandbox each has its own, and
	// those of several that it is the new end of differ in their remainders by Most. A later move's is larger,
	// modulo 1<<24, by less than half of that.
	Network uint32
}

// device is the name of the tunnel's in both sandboxes, bridge of one in the old sandbox whose only port
// that is.
func (l Lease) device() string { return fmt.Sprintf("%s%06x", mark, l.Network) }
func (l Lease) bridge() string { return fmt.Sprintf("%sb%06x", mark, l.Network) }

// place is that of the lease among those of a new sandbox.
func (l Lease) place() int { return int(l.Network % Most) }

// Valid tells what is wrong with a lease, which comes from another node.
func (l Lease) Valid() error {
	if len(l.Old) == 0 || len(l.Old) > 2 {
		return fmt.Errorf("a lease of %d old addresses %v: want one, or one of each family", len(l.Old), l.Old)
	}
	for _, a := range append(slices.Clone(l.Old), l.New) {
		if !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("lease %v: %v cannot be the address of a pod", l, a)
		}
	}
	switch {
	case len(l.Old) == 2 && l.Old[0].Is4() == l.Old[1].Is4():
		return fmt.Errorf("lease %v: two old addresses of one family", l)
	case l.New.Is4() != l.Old[0].Is4():
		return fmt.Errorf("lease %v: the new address %v is of another family than %v", l, l.New, l.Old[0])
	case slices.Contains(l.Old, l.New):
		return fmt.Errorf("lease %v: the new address is the old one", l)
	case l.Network >= 1<<24:
		return fmt.Errorf("lease %v: the network %#x has more than 24 bits", l, l.Network)
	}
	return nil
}

// valid tells what is wrong with leases of one pod.
func valid(all []Lease) error {
	if len(all) == 0 || len(all) > Most {
		return fmt.Errorf("%d leases %v: want 1 to %d", len(all), all, Most)
	}
	for i, l := range all {
		if err := l.Valid(); err != nil {
			return err
		}
		for _, o := range all[:i] {
			switch {
			case l.New != o.New:
				return fmt.Errorf("leases %v and %v lead to two places", l, o)
			case l.place() == o.place():
				return fmt.Errorf("leases %v and %v: their networks have one remainder by %d", l, o, Most)
			case slices.ContainsFunc(l.Old, func(a netip.Addr) bool { return slices.Contains(o.Old, a) }):
				return fmt.Errorf("leases %v and %v are of one address", l, o)
			}
		}
	}
	return nil
}

// String is how the tunnel's device is marked: "drover OLD[,OLD] NEW NETWORK".
func (l Lease) String() string {
	var old []string
	for _, a := range l.Old {
		old = append(old, a.String())
	}
	return fmt.Sprintf("%s %s %v %06x", mark, strings.Join(old, ","), l.New, l.Network)
}

// parse reads such a mark; ErrNoEnd: it is none, for the end is not complete.
func parse(text string) (l Lease, err error) {
	words := strings.Split(text, " ")
	if len(words) != 4 || words[0] != mark {
		return Lease{}, ErrNoEnd
	}
	for _, a := range strings.Split(words[1], ",") {
		old, err := netip.ParseAddr(a)
		if err != nil {
			return Lease{}, fmt.Errorf("the mark %q of the tunnel: %w", text, err)
		}
		l.Old = append(l.Old, old)
	}
	network, err := strconv.ParseUint(words[3], 16, 32)
	if err == nil {
		l.Network = uint32(network)
		l.New, err = netip.ParseAddr(words[2])
	}
	if err == nil {
		err = l.Valid()
	}
	return l, err
}

// after tells that the lease is of a later move than another of the same pod.
func (l Lease) after(o Lease) bool { return int32((l.Network-o.Network)<<8) > 0 }

// overhead is what the tunnel adds to a packet: IP, UDP, VXLAN, Ethernet.
func (l Lease) overhead() int {
	if l.New.Is4() {
		return 20 + 8 + 8 + 14
	}
	return 40 + 8 + 8 + 14
}

// ErrNoEnd: the sandbox is no end of this lease's tunnel.
var ErrNoEnd = errors.New("the tunnel of this lease does not end here")

// ErrMovedOn: what comes for the address is sent on to where the pod has come by a later move.
var ErrMovedOn = errors.New("the pod has moved on since")
