package measure

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/internal/model"
)

// logged keeps what was logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Asked for XDP, a node answers with it, or with tc where another's program is, and says which.
func TestRoutesXDP(t *testing.T) {
	for name, c := range map[string]struct {
		taken   bool
		outcome string
		devices float64
		says    string
	}{
		"free":  {false, "answered_xdp", 1, "(native)"},
		"taken": {true, "answered", 0, "eth0: it has a program already"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newRouteNet(t, "a", "b")
			if c.taken {
				in(t, n.spaces["b"], func() error {
					device, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
						Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()}})
					if err != nil {
						return err
					}
					defer pass.Close()
					l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: device.Attrs().Index})
					if err == nil {
						t.Cleanup(func() { l.Close() })
					}
					return err
				})
			}
			var log logged
			b := NewRoutes(RoutesConfig{Address: n.address["b"], Interval: 10 * time.Millisecond, Window: time.Second,
				Open: routetime.Open, XDP: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
			n.start(t, "b", b)
			until(t, "what became of XDP in the log", func() bool { return strings.Contains(log.String(), c.says) })
			a := n.run(t, "a", routetime.Open)
			before := metric(t, b, "drover_route_packets_total", "handler", "kernel", "outcome", c.outcome)
			until(t, c.outcome, func() bool {
				now := metric(t, b, "drover_route_packets_total", "handler", "kernel", "outcome", c.outcome)
				return now >= before+20 && a.Snapshot()["b"].Stamp == model.StampKernel && b.Stamp() == model.StampKernel
			})
			if got := metric(t, b, "drover_route_xdp_devices"); got != c.devices {
				t.Errorf("XDP on %v devices, want %v", got, c.devices)
			}
		})
	}
}
