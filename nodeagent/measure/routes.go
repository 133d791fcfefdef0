package measure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
)

const (
	// RouteInterval is the usual time between two probes to one peer.
	RouteInterval = 200 * time.Millisecond
	// RouteWindow is how long a sample counts. It holds 50 samples at RouteInterval.
	RouteWindow = 10 * time.Second

	// probeTimeout is after how long a probe counts as lost.
	probeTimeout = 2 * time.Second
	// settle is how long a change of devices or routes waits for others, to be looked at once.
	settle = 250 * time.Millisecond
	// mostTogether is how many probes are sent at once, each to another peer. The last of them
	// waits for the others at the device: 264 bytes, 2 µs at 1 Gbit/s.
	mostTogether = 4
	// leastPause for each probe bounds those of one node to 1000 a second: with more than 200
	// peers the time between two probes to one peer grows.
	leastPause = time.Millisecond
	// resolveInterval is how often the devices towards the peers are looked up again without
	// being told of a change: that a program was detached, for one, is not told.
	resolveInterval = 5 * time.Second
)

// RoutesConfig is what a Routes works with.
type RoutesConfig struct {
	// Address is this node's own address, the one that peers probe.
	Address netip.Addr
	// Interval between two probes to one peer, and Window for which a sample counts:
	// RouteInterval and RouteWindow.
	Interval, Window time.Duration
	// Pace, if not nil, is when probes leave, shared with others.
	Pace *Pace
	// Open loads the kernel programs: routetime.Open. When it fails, probes are stamped
	// in user space.
	Open func() (*routetime.Meter, error)
	// XDP asks for probes to be turned round by an XDP program where a device has none yet.
	XDP bool
	Log *slog.Logger
}

// Routes measures the route time to every peer. It sends probes from the routetime.Paths
// ports of Address that begin with routetime.Port to the latter port of the peers, and
// answers theirs. A Routes is also a prometheus.Collector.
type Routes struct {
	config  RoutesConfig
	changed chan struct{} // the peers have

	resolveInterval time.Duration

	mu      sync.Mutex
	peers   map[model.NodeID]netip.Addr
	routes  map[netip.Addr]*route
	flights flights
	meter   *routetime.Meter // nil without the kernel's help
	sockets []*net.UDPConn
	stamp   model.Stamp
	xdp     int // devices that XDP reflects on
	refused refusals
}

// route is what is known of the way to one address.
type route struct {
	window                 *linkstate.Window
	trips                  roundTrips
	turn                   int // counts its probes: they take the source ports in turn
	quiet                  quiet
	answered, lost, failed uint64
}

// refusals counts datagrams on the socket that nobody gets an answer to, and what the kernel
// told of answers that cannot be.
type refusals struct{ malformed, stranger, unknown, impossible uint64 }

// NewRoutes makes a Routes without peers; Run starts it.
func NewRoutes(config RoutesConfig) *Routes {
	config.Address = config.Address.Unmap()
	if config.Pace == nil {
		config.Pace = &Pace{}
	}
	return &Routes{
		config:  config,
		changed: make(chan struct{}, 1),

		resolveInterval: resolveInterval,

		routes:  map[netip.Addr]*route{},
		flights: flights{byNonce: map[uint64]flight{}},
		stamp:   model.StampUser,
	}
}

// SetPeers says which nodes are probed and answered, with their addresses; all others are
// forgotten. The node itself and addresses that are none are left out.
func (r *Routes) SetPeers(peers map[model.NodeID]netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers = make(map[model.NodeID]netip.Addr, len(peers))
	kept := make(map[netip.Addr]*route, len(peers))
	for id, address := range peers {
		address = address.Unmap()
		if !address.IsValid() || address.IsUnspecified() || address == r.config.Address {
			continue
		}
		r.peers[id] = address
		if kept[address] = r.routes[address]; kept[address] == nil {
			size := int(r.config.Window / max(1, r.config.Interval))
			kept[address] = &route{window: linkstate.NewWindow(r.config.Window, size), trips: roundTrips{}, quiet: quiet{since: time.Now()}}
		}
	}
	same := maps.EqualFunc(kept, r.routes, func(_, _ *route) bool { return true })
	if r.routes = kept; same {
		return // they are said again and again
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Snapshot gives the route time to every peer that has answered within the window.
func (r *Routes) Snapshot() map[model.NodeID]model.RouteTime {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	known := make(map[model.NodeID]model.RouteTime, len(r.peers))
	for id, address := range r.peers {
		if t, ok := r.routes[address].window.RouteTime(now); ok {
			known[id] = t
		}
	}
	return known
}

// Stamp tells where probes are stamped now: in the kernel when its programs are on the
// devices towards all peers. Each route time has a Stamp of its own.
func (r *Routes) Stamp() model.Stamp {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stamp
}

// Run probes and answers until ctx ends, then returns nil. It works in the network namespace
// of the calling thread. An error means that the socket on routetime.Port could not be had,
// or one has failed; a kernel that refuses the programs is no error, but logged.
func (r *Routes) Run(ctx context.Context) error {
	if r.config.Interval <= 0 || r.config.Window < r.config.Interval {
		return fmt.Errorf("measure routes: interval %v and window %v: want 0 < interval <= window",
			r.config.Interval, r.config.Window)
	}
	if !r.config.Address.IsValid() || r.config.Address.IsUnspecified() {
		return fmt.Errorf("measure routes: address %v is not a node's own address", r.config.Address)
	}
	sockets, err := r.listen()
	if err != nil {
		return err
	}
	meter, err := r.config.Open()
	if err != nil {
		meter = nil
		r.config.Log.Warn("route times are stamped in user space: a busy node will look far away", "error", err)
	}
	r.use(sockets, meter)
	defer r.use(nil, nil)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	for _, conn := range sockets {
		group.Go(func() error { return r.receive(conn, meter) })
	}
	senders, closeSenders := r.senders(sockets, meter)
	defer closeSenders()
	group.Go(func() error { return r.probe(ctx, senders, meter) })
	// On this goroutine, as looking up and attaching belong to its thread's namespace.
	err = r.follow(ctx, meter)
	stop()
	for _, conn := range sockets {
		err = errors.Join(err, conn.Close())
	}
	if meter != nil {
		err = errors.Join(err, meter.Close())
	}
	return errors.Join(group.Wait(), err)
}

// listen opens the sockets that probes are sent from. The first is for peers' probes, too, and
// has to be had; without another a path may not be seen.
func (r *Routes) listen() ([]*net.UDPConn, error) {
	var sockets []*net.UDPConn
	for path := range uint16(routetime.Paths) {
		local := netip.AddrPortFrom(r.config.Address, routetime.Port+path)
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
		switch {
		case err == nil:
			if err := routetime.Filter(conn); err != nil {
				r.config.Log.Warn("what is no packet wakes the agent", "error", err)
			}
			sockets = append(sockets, conn)
		case path == 0:
			return nil, fmt.Errorf("measure routes: listen on udp %s: %w", local, err)
		default:
			r.config.Log.Warn("no probes are sent from a port: paths that it alone would take are not seen",
				"address", local, "error", err)
		}
	}
	return sockets, nil
}

// sender sends a packet to an address.
type sender func(packet []byte, to netip.Addr) error

// senders are what probes are sent by from the sockets' addresses: such that the kernel stamps them,
// where it can.
func (r *Routes) senders(sockets []*net.UDPConn, meter *routetime.Meter) (senders []sender, closeAll func()) {
	var stamped []*routetime.Sender
	for _, conn := range sockets {
		if meter != nil {
			s, err := routetime.NewSender(conn.LocalAddr().(*net.UDPAddr).AddrPort())
			if err == nil {
				stamped, senders = append(stamped, s), append(senders, s.Send)
				continue
			}
			r.config.Log.Warn("probes from a port are stamped in user space", "error", err)
		}
		senders = append(senders, func(packet []byte, to netip.Addr) error {
			_, err := conn.WriteToUDPAddrPort(packet, netip.AddrPortFrom(to, routetime.Port))
			return err
		})
	}
	return senders, func() {
		for _, s := range stamped {
			_ = s.Close() // nothing waits in it
		}
	}
}

func (r *Routes) use(sockets []*net.UDPConn, meter *routetime.Meter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sockets, r.meter, r.stamp, r.xdp = sockets, meter, model.StampUser, 0
}

// OpenRouteMeter gives what loads the kernel programs, for RoutesConfig.Open. They are pinned
// in a directory of a BPF file system; where that cannot be, they are not, and peers get no
// answer while the agent is away.
func OpenRouteMeter(pins string, log *slog.Logger) func() (*routetime.Meter, error) {
	return func() (*routetime.Meter, error) {
		return pinned(pins, log, "peers get no answer to probes while the agent is away", routetime.OpenPinned)
	}
}

// pinned loads programs with their pins, or else without.
func pinned[Meter any](pins string, log *slog.Logger, otherwise string, load func(pins string) (Meter, error)) (Meter, error) {
	m, err := load(pins)
	if pins == "" || err == nil {
		return m, err
	}
	m, bad := load("")
	if bad != nil {
		return m, errors.Join(err, bad)
	}
	log.Warn(otherwise, "error", err)
	return m, nil
}
