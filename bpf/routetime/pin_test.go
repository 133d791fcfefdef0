package routetime

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/pin/pintest"
)

// newPins gives a directory in a BPF file system of the test's own.
func newPins(t *testing.T) string {
	t.Helper()
	return filepath.Join(pintest.FS(t), "routetime")
}

func (n *node) addresses() []netip.Addr { return []netip.Addr{n.v4, n.v6} }

// pinned opens a meter for the node that pins in dir.
func (n *node) pinned(t *testing.T, dir string) *Meter {
	t.Helper()
	m, err := OpenPinned(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.close(t, m) })
	return m
}

func (n *node) close(t *testing.T, m *Meter) {
	t.Helper()
	n.in(t, m.Close)
}

// programs counts those on the node's device: of tcx, or of clsact where that is not.
func (n *node) programs(t *testing.T) int {
	t.Helper()
	count := 0
	n.in(t, func() error {
		device, err := netlink.LinkByIndex(n.index)
		if err != nil {
			return err
		}
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			if q, err := link.QueryPrograms(link.QueryOptions{Target: n.index, Attach: at}); err == nil {
				count += len(q.Programs)
			}
		}
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			if filters, err := netlink.FilterList(device, parent); err == nil {
				count += len(filters)
			}
		}
		return nil
	})
	return count
}

// A node whose agent restarts is measured by its peers all the while, and nothing is there twice.
func TestPinned(t *testing.T) {
	dir := newPins(t)
	a, b := vethPair(t)
	ours := a.meter(t, b)
	a.attach(t, ours)
	socket := a.socket(t, a.v4)

	first := b.pinned(t, dir)
	if err := first.SetMembers(b.addresses(), a.addresses()); err != nil {
		t.Fatal(err)
	}
	b.attach(t, first)
	if err := first.Expect(7, a.v4); err != nil {
		t.Fatal(err)
	}
	b.close(t, first)
	if s := measure(t, ours, socket, b.v4, 1); s.Answered != AnsweredByKernel {
		t.Errorf("answered by %d while the agent was away, want the kernel", s.Answered)
	}

	second := b.pinned(t, dir)
	b.attach(t, second)
	if n := b.programs(t); n != 1 {
		t.Errorf("%d programs are on the device, want one", n)
	}
	if err := second.Expect(7, a.v4); err != nil {
		t.Errorf("a probe of the agent before is still waited for: %v", err)
	}
	measure(t, ours, socket, b.v4, 2)
	if got := stats(t, second).Answered; got != 2 {
		t.Errorf("%d probes are counted as answered, want those of both agents, 2", got)
	}
	if err := second.SetMembers(b.addresses(), nil); err != nil { // it knows who was a member before
		t.Fatal(err)
	}
	send(t, socket, b.v4, probe(3))
	send(t, socket, b.v4, probe(4))
	if got := stats(t, second); got.Answered != 2 || got.Stranger == 0 {
		t.Errorf("answered %d, strangers %d: who is no member any more must get no answer", got.Answered, got.Stranger)
	}
	b.close(t, second)

	third := b.pinned(t, dir) // its peers are elsewhere now
	b.in(t, func() error { return third.SetInterfaces(nil) })
	if n := b.programs(t); n != 0 {
		t.Errorf("%d programs are still on the device", n)
	}
}

// Agents from before had a program at the egress, too, which every packet of the node paid for.
func TestEgressOfOlderVersionGoes(t *testing.T) {
	nothing, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Name: "older", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1 /* next */), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer nothing.Close()
	for name, older := range map[string]func(dir string, index int) error{
		"tcx": func(dir string, index int) error {
			l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: nothing, Attach: ebpf.AttachTCXEgress})
			if errors.Is(err, ebpf.ErrNotSupported) {
				return nil // before Linux 6.6: clsact alone
			}
			if err != nil {
				return err
			}
			links := filepath.Join(dir, "links-0123456789abcdef")
			return errors.Join(os.MkdirAll(links, 0o700), l.Pin(filepath.Join(links, fmt.Sprint("egress-", index))), l.Close())
		},
		"clsact": func(_ string, index int) error {
			return errors.Join(
				netlink.QdiscAdd(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
					LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}),
				netlink.FilterAdd(&netlink.BpfFilter{Fd: nothing.FD(), Name: filterName, DirectAction: true,
					FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS,
						Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newPins(t)
			_, b := vethPair(t)
			b.in(t, func() error { return older(dir, b.index) })
			b.attach(t, b.pinned(t, dir))
			if n := b.programs(t); n != 1 {
				t.Errorf("%d programs are on the device, want the one at the ingress", n)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "links-*", "egress-*")); err != nil || len(left) > 0 {
				t.Errorf("pins left behind: %v (%v)", left, err)
			}
		})
	}
}

// The device of a pinned link may have gone, and its index be another's.
func TestPinnedDeviceReplaced(t *testing.T) {
	dir := newPins(t)
	_, b := vethPair(t)
	first := b.pinned(t, dir)
	b.attach(t, first)
	b.close(t, first)
	_, other := vethPair(t) // the same index in another namespace
	if other.index != b.index {
		t.Fatalf("index %d, want %d", other.index, b.index)
	}
	b.in(t, func() error {
		device, err := netlink.LinkByIndex(b.index)
		if err != nil {
			return err
		}
		return netlink.LinkDel(device)
	})
	second := other.pinned(t, dir)
	other.attach(t, second)
	if n := other.programs(t); n != 1 {
		t.Errorf("%d programs are on the new device, want one", n)
	}
}

// Every mode of XDP goes on, and is not taken for another's.
func TestPinnedXDP(t *testing.T) {
	for mode, nodes := range map[string]func() *node{
		"native":  func() *node { return tapNodes(t, 0, "a", "b")[1] },
		"generic": func() *node { _, b := vethPair(t); return b },
	} {
		t.Run(mode, func(t *testing.T) {
			b, dir := nodes(), newPins(t)
			for range 2 {
				m := b.pinned(t, dir)
				if err := b.reflect(t, m); err != nil {
					t.Fatal(err)
				}
				if got := m.Reflecting(b.index); got != mode {
					t.Errorf("mode %q, want %q", got, mode)
				}
				b.close(t, m)
			}
			m := b.pinned(t, dir)
			b.in(t, func() error { return m.SetReflectors(nil) })
			b.in(t, func() error {
				device, err := netlink.LinkByIndex(b.index)
				if err == nil && device.Attrs().Xdp != nil && device.Attrs().Xdp.Attached {
					t.Error("the program is still there")
				}
				return err
			})
		})
	}
}

// Filters of clsact, where there is no tcx, are in no BPF file system, and are found again.
func TestPinnedClsact(t *testing.T) {
	dir := newPins(t)
	_, b := vethPair(t)
	first := b.pinned(t, dir)
	b.in(t, func() (err error) {
		first.attached[b.index], err = first.attachClsact(b.index)
		return err
	})
	b.close(t, first)
	if n := b.programs(t); n != 1 {
		t.Errorf("%d programs are on the device while the agent is away, want one", n)
	}
	second := b.pinned(t, dir)
	b.in(t, func() error { return second.SetInterfaces(nil) })
	if n := b.programs(t); n != 0 {
		t.Errorf("%d programs are still on the device", n)
	}
}
