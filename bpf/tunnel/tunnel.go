// Package tunnel holds the kernel programs at both ends of the tunnel that carries the old
// address of a pod that has moved, and what an agent may change while they run. A pod that has moved
// more than once has a tunnel for each old address.
//
// They are filters of clsact with direct action. Such a filter is the kernel's: it works on when
// nobody is there who attached it, and goes with its device. That needs cls_bpf and
// bpf_redirect_neigh, Linux 5.10 or newer, CAP_BPF and CAP_NET_ADMIN.
//
// Known limits. An answer that leaves in fragments from a UDP socket that is bound to no address
// has the new address as its source; through a tunnel over IPv6 one that is larger than the tunnel
// lets it be is lost. Of such sockets' peers 16,384 are remembered.
package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -target bpfel tunnel tunnel.bpf.c

// Most is how many tunnels can end where a pod is.
const Most = 4

// Config is what the programs of one sandbox are loaded with.
type Config struct {
	// Ends are the tunnels that end there; where the pod has left, the first alone. The zero End: none.
	Ends [Most]End
	// Here is the sandbox's address as an end of them, Port the UDP port to which they send.
	Here netip.Addr
	Port uint16
	// Uplink is the index of the sandbox's device; From and To are the hardware addresses of the
	// tunnels' devices.
	Uplink   int
	From, To net.HardwareAddr
}

// End is of one tunnel.
type End struct {
	// Old is the pod's old address, at most one a family.
	Old []netip.Addr
	// There is the other end, Tunnel the index of the tunnel's device here.
	There  netip.Addr
	Tunnel int
	// Network is the tunnel's VXLAN network identifier: nothing of another's is taken from There.
	Network uint32
}

// Programs are loaded and not attached to anything, or not only by this.
type Programs struct{ objects tunnelObjects }

// Load loads the programs. All that are attached from one Programs share the leases of its ends, which
// are held.
func Load(c Config) (*Programs, error) {
	spec, err := loadTunnel()
	if err != nil {
		return nil, err
	}
	var ends [Most]tunnelEnd
	for i, e := range c.Ends {
		if e.Tunnel == 0 {
			continue
		}
		ends[i].There, ends[i].Tunnel = words(e.There), uint32(e.Tunnel)
		ends[i].Network = binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, e.Network<<8))
		for _, a := range e.Old {
			if a.Is4() {
				ends[i].Old4 = words(a)
			} else {
				ends[i].Old6 = words(a)
			}
		}
	}
	values := map[string]any{
		"ends": ends, "here": words(c.Here), "port": bigEndian(c.Port), "uplink": uint32(c.Uplink),
		"frame": [12]byte(append(append([]byte{}, c.To...), c.From...)),
	}
	for name, value := range values {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s of the tunnel's programs: %w", name, err)
		}
	}
	p := new(Programs)
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			return nil, fmt.Errorf("load the tunnel's programs: %+v", verifier)
		}
		return nil, fmt.Errorf("load the tunnel's programs: %w", err)
	}
	return p, nil
}

// Close lets go of the programs; what is attached stays.
func (p *Programs) Close() error { return p.objects.Close() }

// words is an address as the programs have it: in network byte order, IPv4 in the last word.
func words(a netip.Addr) (w tunnelAddress) {
	if a.Is4() {
		b := a.As4()
		w.Word[3] = binary.NativeEndian.Uint32(b[:])
		return w
	}
	b := a.As16()
	for i := range w.Word {
		w.Word[i] = binary.NativeEndian.Uint32(b[i*4:])
	}
	return w
}

func bigEndian(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}
