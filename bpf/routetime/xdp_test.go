package routetime

import (
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

func (n *node) reflect(t *testing.T, m *Meter) error {
	t.Helper()
	var err error
	n.in(t, func() error { err = m.SetReflectors([]int{n.index}); return nil })
	return err
}

// A veth is reflected on in generic mode, a TAP by its driver, with the same result.
func TestXDP(t *testing.T) {
	for mode, net := range map[string]func() (*node, *node){
		"generic": func() (*node, *node) { return vethPair(t) },
		"native":  func() (*node, *node) { n := tapNodes(t, 0, "a", "b"); return n[0], n[1] },
	} {
		t.Run(mode, func(t *testing.T) {
			a, b := net()
			ma, mb := a.meter(t, b), b.meter(t, a)
			a.attach(t, ma)
			b.attach(t, mb)
			if err := b.reflect(t, mb); err != nil {
				t.Fatal(err)
			}
			if got := mb.Reflecting(b.index); got != mode {
				t.Errorf("mode %q, want %q", got, mode)
			}
			var nonce uint64
			for i, from := range []netip.Addr{a.v4, a.v6} {
				for _, port := range []uint16{Port, Port + 3} {
					nonce++
					c := a.socketAt(t, netip.AddrPortFrom(from, port))
					measure(t, ma, c, []netip.Addr{b.v4, b.v6}[i], nonce)
					c.Close()
				}
			}
			if got, want := stats(t, mb), (Stats{AnsweredXDP: nonce}); got != want {
				t.Errorf("b counted %+v, want %+v", got, want)
			}

			// A stranger's probe goes on to tc, which drops and counts it.
			if err := mb.SetMembers([]netip.Addr{b.v4, b.v6}, nil); err != nil {
				t.Fatal(err)
			}
			c := a.socket(t, a.v4)
			send(t, c, b.v4, probe(99))
			for end := time.Now().Add(patience); stats(t, mb).Stranger == 0 && time.Now().Before(end); {
				runtime.Gosched() // it is on its way
			}
			if err := mb.SetMembers([]netip.Addr{b.v4, b.v6}, []netip.Addr{a.v4, a.v6}); err != nil {
				t.Fatal(err)
			}
			b.in(t, func() error { return mb.SetReflectors(nil) })
			if got := mb.Reflecting(b.index); got != "" {
				t.Errorf("mode %q after it was detached", got)
			}
			measure(t, ma, c, b.v4, 100)
			if got, want := stats(t, mb), (Stats{AnsweredXDP: nonce, Answered: 1, Stranger: 1}); got != want {
				t.Errorf("b counted %+v, want %+v", got, want)
			}
		})
	}
}

// What XDP turns round has the right checksums: a TAP's frames have theirs verified.
func TestXDPAnswerHasValidChecksums(t *testing.T) {
	nodes := tapNodes(t, 0, "a", "b")
	a, b := nodes[0], nodes[1]
	mb := b.meter(t, a)
	if err := b.reflect(t, mb); err != nil {
		t.Fatal(err)
	}
	answersAreValid(t, a, b)
	if got, want := stats(t, mb), (Stats{AnsweredXDP: 4}); got != want {
		t.Errorf("b counted %+v, want %+v", got, want)
	}
}

// Another's program is never replaced, however it is attached, and tc goes on answering.
func TestXDPLeavesOthers(t *testing.T) {
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Name: "others", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Close()
	info, err := pass.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	for name, attach := range map[string]func(index int) error{
		"by link": func(index int) error {
			l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: index, Flags: link.XDPGenericMode})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
		"by netlink": func(index int) error {
			device, err := netlink.LinkByIndex(index)
			if err != nil {
				return err
			}
			return netlink.LinkSetXdpFd(device, pass.FD())
		},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := tapNodes(t, 0, "a", "b")
			a, b := nodes[0], nodes[1]
			ma, mb := a.meter(t, b), b.meter(t, a)
			a.attach(t, ma)
			b.attach(t, mb)
			b.in(t, func() error { return attach(b.index) })
			err := b.reflect(t, mb)
			if err == nil || !strings.Contains(err.Error(), "eth0: it has a program already") {
				t.Errorf("error %v, want one that says so", err)
			}
			if mb.Reflecting(b.index) != "" || !mb.Attached(b.index) {
				t.Errorf("reflecting %q, attached %v", mb.Reflecting(b.index), mb.Attached(b.index))
			}
			// What was not seen in time is refused by the kernel.
			b.in(t, func() error {
				if l, err := link.AttachXDP(link.XDPOptions{Program: mb.objects.RoutetimeXdp, Interface: b.index}); err == nil {
					t.Error("the kernel let a link replace another's program")
					l.Close()
				}
				device, err := netlink.LinkByIndex(b.index)
				if err != nil {
					return err
				}
				if x := device.Attrs().Xdp; x == nil || x.ProgId != uint32(id) {
					t.Errorf("program on the device: %+v, want %d", x, id)
				}
				return nil
			})
			measure(t, ma, a.socket(t, a.v4), b.v4, 1)
			if got, want := stats(t, mb), (Stats{Answered: 1}); got != want {
				t.Errorf("b counted %+v, want %+v", got, want)
			}
		})
	}
}
