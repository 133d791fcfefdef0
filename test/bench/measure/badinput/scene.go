package badinput

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/measure"
	"github.com/drover-project/drover/test/netspace"
)

// patience ends a run that hangs; nothing is measured by it.
const patience = 30 * time.Second

// scene is a node under attack and the network namespace that its peer was in and the
// attacker is: the ends of a veth pair.
type scene struct {
	link
	node, peer netns.NsHandle
	routes     *measure.Routes
	meter      *routetime.Meter
	stop       []func() error

	socket   int // of the attacker, for whole frames, both ways
	device   unix.SockaddrLinklayer
	answered []uint64 // nonces of the node's probes that had an answer
}

func newScene(v6 bool) (*scene, error) {
	s := &scene{node: netns.None(), peer: netns.None(), socket: -1}
	s.link.node, s.link.peer, s.link.stranger = address(v6, 1), address(v6, 2), address(v6, 3)
	for _, ns := range []*netns.NsHandle{&s.node, &s.peer} {
		var err error
		if *ns, err = netspace.New(); err != nil {
			s.close()
			return nil, err
		}
	}
	err := netspace.In(s.node, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"},
			PeerName: "eth0", PeerNamespace: netlink.NsFd(s.peer)})
	})
	if err == nil {
		err = netspace.In(s.node, func() (err error) { s.nodeMAC, _, err = up(s.link.node); return err })
	}
	if err == nil {
		err = netspace.In(s.peer, func() (err error) {
			var index int
			if s.attackerMAC, index, err = up(s.link.peer); err != nil {
				return err
			}
			return s.listen(index)
		})
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("connect two network namespaces: %w", err)
	}
	return s, nil
}

// up gives eth0 its address.
func up(a netip.Addr) (net.HardwareAddr, int, error) {
	device, err := netlink.LinkByName("eth0")
	if err != nil {
		return nil, 0, err
	}
	return device.Attrs().HardwareAddr, device.Attrs().Index, netspace.Up("eth0", netip.PrefixFrom(a, a.BitLen()-8))
}

// listen opens the attacker's socket, in the namespace of the calling thread.
func (s *scene) listen(index int) (err error) {
	const everything = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00) // in network order
	s.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(everything))
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	s.device = unix.SockaddrLinklayer{Protocol: everything, Ifindex: index}
	return unix.Bind(s.socket, &s.device)
}

func (s *scene) close() {
	for _, stop := range s.stop {
		_ = stop()
	}
	if s.socket >= 0 {
		unix.Close(s.socket)
	}
	for _, ns := range []netns.NsHandle{s.node, s.peer} {
		if ns.IsOpen() {
			ns.Close()
		}
	}
}

// start runs a Routes until the function that it gives is called, which returns its error.
func start(ns netns.NsHandle, r *measure.Routes) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- netspace.In(ns, func() error { return r.Run(ctx) }) }()
	var err error
	done := false
	return func() error {
		if cancel(); !done {
			err, done = <-ended, true
		}
		return err
	}
}

// warmUp lets node and peer measure each other, then has the peer fall silent: the node's
// figures stand still, while its probes go on.
func (s *scene) warmUp(ctx context.Context) error {
	s.routes = routes(s.link.node, func() (*routetime.Meter, error) {
		m, err := routetime.Open()
		s.meter = m
		return m, err
	})
	peer := routes(s.link.peer, routetime.Open)
	both := map[model.NodeID]netip.Addr{"node": s.link.node, "peer": s.link.peer}
	s.routes.SetPeers(both)
	s.stop = append(s.stop, start(s.node, s.routes))
	stopPeer := start(s.peer, peer)
	s.stop = append(s.stop, stopPeer)
	// The peer answers only when the node's kernel is ready, which measures everything then.
	if err := wait(ctx, "programs on the node's device", func() bool { return s.routes.Stamp() == model.StampKernel }); err != nil {
		return err
	}
	peer.SetPeers(both)
	if err := wait(ctx, "50 round trips measured in the kernel", func() bool {
		t := s.routes.Snapshot()["peer"]
		return t.Samples >= 50 && t.Stamp == model.StampKernel
	}); err != nil {
		return err
	}
	if err := stopPeer(); err != nil {
		return fmt.Errorf("the peer: %w", err)
	}
	if err := wait(ctx, "an end of measuring", func() bool {
		f, counted, err := s.figures()
		return err == nil && f.Answered == counted.Measured && f.Trips == f.Answered
	}); err != nil {
		return err
	}
	var err error
	if s.answered, err = s.seen(routetime.AnsweredByKernel); err == nil && len(s.answered) == 0 {
		err = errors.New("the attacker has seen no answer that it could replay")
	}
	return err
}

// seen takes what has come by on the wire and gives the nonces of one kind of packet.
func (s *scene) seen(kind routetime.Kind) ([]uint64, error) {
	var nonces []uint64
	headers := etherSize + 20 + 8
	if s.link.node.Is6() {
		headers += 20
	}
	for buf := make([]byte, 2048); ; {
		n, from, err := unix.Recvfrom(s.socket, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return nonces, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look at the wire: %w", err)
		}
		// Answers of the peer are seen on their way out, probes of the node on their way in.
		l, is := from.(*unix.SockaddrLinklayer)
		if !is || n < headers || (l.Pkttype == unix.PACKET_OUTGOING) != (kind != routetime.Probe) {
			continue
		}
		if p, err := routetime.Parse(buf[headers:n]); err == nil && p.Kind == kind {
			nonces = append(nonces, p.Nonce)
		}
	}
}

// underWay gives nonces of the node's latest probes: those seen before, if there are none.
func (s *scene) underWay(before []uint64) ([]uint64, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		now, err := s.seen(routetime.Probe)
		if err != nil || len(now) > 0 {
			return now[max(0, len(now)-10):], err
		}
		if len(before) > 0 {
			return before, nil
		}
		runtime.Gosched()
	}
	return nil, errors.New("the node sends no probes")
}

// agentShare is the part of a core that the process takes by itself.
func (s *scene) agentShare(ctx context.Context, during time.Duration) (float64, error) {
	_, before, err := cpuTimes()
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(during):
	}
	_, after, err := cpuTimes()
	return float64(after-before) / float64(during), err
}

// figures are the node's.
func (s *scene) figures() (figures, routetime.Stats, error) {
	counted, err := s.meter.Stats()
	if err != nil {
		return figures{}, counted, err
	}
	f := figures{Routes: s.routes.Snapshot(), Measured: counted.Measured}
	registry := prometheus.NewRegistry()
	if err := registry.Register(s.routes); err != nil {
		return f, counted, err
	}
	families, err := registry.Gather()
	for _, family := range families {
		for _, m := range family.GetMetric() {
			switch family.GetName() {
			case "drover_route_time_round_trip_seconds":
				f.Trips += m.GetHistogram().GetSampleCount()
				f.TripSeconds += m.GetHistogram().GetSampleSum()
			case "drover_route_probes_total":
				for _, l := range m.GetLabel() {
					switch l.GetValue() {
					case "answered":
						f.Answered += uint64(m.GetCounter().GetValue())
					case "failed":
						f.Failed += uint64(m.GetCounter().GetValue())
					}
				}
			}
		}
	}
	return f, counted, err
}

// wait waits for something that must come; how long it takes is not what is measured.
func wait(ctx context.Context, what string, holds func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !holds(); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return fmt.Errorf("waited %v in vain for %s", patience, what)
		case <-tick.C:
		}
	}
	return nil
}
