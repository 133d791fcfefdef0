package routetime

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// The index of a device that is gone may become another's, which has no program yet.
func TestIndexReused(t *testing.T) {
	for name, attach := range map[string]func(m *Meter, index int) error{
		"tcx": func(m *Meter, index int) error { return m.SetInterfaces([]int{index}) },
		"clsact": func(m *Meter, index int) (err error) {
			m.attached[index], err = m.attachClsact(index)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := vethPair(t)
			ma, mb := a.meter(t, b), b.meter(t, a)
			b.attach(t, mb)
			a.in(t, func() error {
				if err := attach(ma, a.index); err != nil {
					return err
				}
				if !ma.attached[a.index].on(a.index) || ma.attached[a.index].on(b.index+a.index+1) {
					t.Error("it is not told on which device the programs are")
				}
				return ma.SetReflectors([]int{a.index})
			})
			c := a.socket(t, a.v4)
			measure(t, ma, c, b.v4, 1)
			a.in(t, func() error {
				device, err := netlink.LinkByIndex(a.index)
				if err != nil {
					return err
				}
				if err := netlink.LinkDel(device); err != nil {
					return err
				}
				return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: a.index},
					PeerName: "eth0", PeerNamespace: netlink.NsFd(b.ns)})
			})
			a.in(t, func() error {
				if ma.attached[a.index].on(a.index) || ma.reflecting[a.index].on(a.index) {
					t.Error("the programs are said to be on a device that never got them")
				}
				return nil
			})
			a.up(t)
			b.up(t)
			a.attach(t, ma)
			b.attach(t, mb)
			a.in(t, func() error {
				err := ma.SetReflectors([]int{a.index})
				if !ma.attached[a.index].on(a.index) {
					t.Error("the programs are not on the new device")
				}
				if !ma.reflecting[a.index].on(a.index) {
					t.Error("the reflector is not on the new device")
				}
				return err
			})
			measure(t, ma, c, b.v4, 2)
		})
	}
}
