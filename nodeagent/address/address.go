// Package address lets a pod that has moved keep its old address, and with it its connections:
// by a tunnel between the sandbox that it has left, which still has the address from the
// cluster's network, and the sandbox that it is in now. Nothing of a node is changed, only of
// these two network namespaces; what is there works on when no agent lives, and every call can be
// made again, by another agent too. docs/decisions/0034 tells why, and in which order.
//
// Linux 5.10 or newer with VXLAN and cls_bpf is needed.
package address

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Port is the UDP port of the tunnel at both ends.
const Port = 7473

// device is the tunnel's in both sandboxes, bridge one in the old sandbox whose only port that is.
const (
	device = "drover0"
	bridge = "drover1"
)

// network is the tunnel's VXLAN network identifier.
const network = 0x647276

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
}

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
	}
	return nil
}

// String is how the tunnel's device is marked: "drover OLD[,OLD] NEW".
func (l Lease) String() string {
	var old []string
	for _, a := range l.Old {
		old = append(old, a.String())
	}
	return fmt.Sprintf("drover %s %v", strings.Join(old, ","), l.New)
}

// parse reads such a mark; ErrNoEnd: it is none, for the end is not complete.
func parse(mark string) (l Lease, err error) {
	words := strings.Split(mark, " ")
	if len(words) != 3 || words[0] != "drover" {
		return Lease{}, ErrNoEnd
	}
	for _, a := range strings.Split(words[1], ",") {
		old, err := netip.ParseAddr(a)
		if err != nil {
			return Lease{}, fmt.Errorf("the mark %q of the tunnel: %w", mark, err)
		}
		l.Old = append(l.Old, old)
	}
	l.New, err = netip.ParseAddr(words[2])
	if err == nil {
		err = l.Valid()
	}
	return l, err
}

// overhead is what the tunnel adds to a packet: IP, UDP, VXLAN, Ethernet.
func (l Lease) overhead() int {
	if l.New.Is4() {
		return 20 + 8 + 8 + 14
	}
	return 40 + 8 + 8 + 14
}

// ErrNoEnd: the sandbox is no end of this lease's tunnel.
var ErrNoEnd = errors.New("the tunnel of this lease does not end here")
