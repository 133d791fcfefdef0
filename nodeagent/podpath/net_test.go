package podpath

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/drover-project/drover/hack/lab/fabric"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/netspace"
)

// overlay is a few nodes on the lab's fabric. Each is a network namespace with two devices:
// eth0 is the node path; over eth1 goes a VXLAN that joins the nodes' bridges for pods.
type overlay struct {
	fabric  *fabric.Switch
	spaces  map[model.NodeID]netns.NsHandle
	address map[model.NodeID]netip.Addr // of eth0
	pods    byte                        // how many were made
}

func ipv4(b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{10, b, c, d}) }

func newOverlay(t *testing.T, nodes ...model.NodeID) *overlay {
	t.Helper()
	o := &overlay{spaces: map[model.NodeID]netns.NsHandle{}, address: map[model.NodeID]netip.Addr{}}
	var ports []fabric.Port
	for i, id := range nodes {
		last := byte(i + 1)
		o.address[id], o.spaces[id] = ipv4(233, 0, last), netspace.Make(t)
		err := netspace.In(o.spaces[id], func() error {
			for net, name := range []string{"eth0", "eth1"} {
				file, err := fabric.OpenTAP(name, macOf(byte(net), last))
				if err != nil {
					return err
				}
				ports = append(ports, fabric.Port{Name: string(id) + "-" + name, File: file})
				if err := netspace.Up(name, netip.PrefixFrom(ipv4(233+byte(net), 0, last), 16)); err != nil {
					return err
				}
			}
			return vxlan(2, last, len(nodes))
		})
		if err != nil {
			t.Fatalf("make node %s: %v", id, err)
		}
	}
	o.fabric = netspace.Connect(t, 0, ports)
	return o
}

func macOf(net, last byte) net.HardwareAddr { return []byte{2, 0, 0, 0, net, last} }

// vxlan joins a bridge to those of all other nodes (head-end replication, as flannel has it).
func vxlan(network, last byte, nodes int) error {
	eth1, err := netlink.LinkByName("eth1")
	if err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	tunnel := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan0"}, VxlanId: 7, Port: 4789,
		SrcAddr: ipv4(234, 0, last).AsSlice(), VtepDevIndex: eth1.Attrs().Index}
	if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkAdd(tunnel)); err != nil {
		return err
	}
	errs := []error{netlink.LinkSetMaster(tunnel, bridge), netlink.LinkSetUp(tunnel), netlink.LinkSetUp(bridge)}
	for other := byte(1); int(other) <= nodes; other++ {
		if other == last {
			continue
		}
		errs = append(errs, netlink.NeighAppend(&netlink.Neigh{LinkIndex: tunnel.Attrs().Index, Family: 7, // AF_BRIDGE
			Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
			IP: ipv4(234, 0, other).AsSlice(), HardwareAddr: make(net.HardwareAddr, 6)}))
	}
	return errors.Join(errs...)
}

// pod is a process in a network namespace of its own that a node's bridge leads to.
type pod struct {
	Companion
	process *exec.Cmd
}

// pod makes one with a new address, as a CNI plugin does.
func (o *overlay) pod(t *testing.T, on model.NodeID) *pod {
	t.Helper()
	o.pods++
	p := &pod{Companion: Companion{Pod: "drover-system/drover-path-" + string(on), Address: ipv4(244, 0, o.pods),
		Container: string(on) + "-0123456789ab-" + string('0'+rune(o.pods))}}
	space, host := netspace.Make(t), "veth"+string('0'+rune(o.pods))
	err := netspace.In(o.spaces[on], func() error {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: host}, PeerName: "eth0", PeerNamespace: netlink.NsFd(space)}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(pair, bridge), netlink.LinkSetUp(pair))
	})
	if err == nil {
		err = netspace.In(space, func() error {
			p.process = exec.Command("sleep", "infinity")
			return errors.Join(netspace.Up("eth0", netip.PrefixFrom(p.Address, 16)), p.process.Start())
		})
	}
	if err != nil {
		t.Fatalf("make a pod on %s: %v", on, err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *pod) kill() {
	p.process.Process.Kill()
	p.process.Wait() // how it ended is known
}

// until waits for something that must come; how long it takes is not what is tested.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for patience := time.After(30 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("in vain: %s", what)
		}
	}
}
