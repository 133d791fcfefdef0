// Package tunnel holds the kernel programs at both ends of the tunnel that carries the old
// address of a pod that has moved, and what an agent may change while they run.
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

// Config is what the programs of one end are loaded with.
type Config struct {
	// Old is the pod's old address, at most one a family.
	Old []netip.Addr
	// Here and There are the tunnel's ends, Port the UDP port to which it sends.
	Here, There netip.Addr
	Port        uint16
	// Uplink is the index of the sandbox's device, Tunnel that of the tunnel's; From and To are
	// the hardware addresses of the tunnel's devices.
	Uplink, Tunnel int
	From, To       net.HardwareAddr
}

// Programs are loaded and not attached to anything, or not only by this.
type Programs struct{ objects tunnelObjects }

// Load loads the programs. All that are attached from one Programs share one lease, which is held.
func Load(c Config) (*Programs, error) {
	spec, err := loadTunnel()
	if err != nil {
		return nil, err
	}
	values := map[string]any{
		"here": words(c.Here), "there": words(c.There), "port": bigEndian(c.Port),
		"uplink": uint32(c.Uplink), "tunnel": uint32(c.Tunnel),
		"frame": [12]byte(append(append([]byte{}, c.To...), c.From...)),
	}
	for _, a := range c.Old {
		name := "old6"
		if a.Is4() {
			name = "old4"
		}
		values[name] = words(a)
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
