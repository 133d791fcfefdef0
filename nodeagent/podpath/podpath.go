// Package podpath measures the pod path from this node: through all that the cluster's network
// puts between pods, whatever that is. It follows the node's companion, a pod that does nothing
// but be in that network, and measures from the companion's network namespace with its address.
// No device of the node is touched, and nothing of the agent runs in the companion.
package podpath

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/measure"
)

// Companion is this node's pod in the pod network. The zero Companion is none.
type Companion struct {
	// Pod is its namespace/name.
	Pod string
	// Container is the runtime's ID of a container of it that runs.
	Container string
	// Address is the pod's.
	Address netip.Addr
}

// Config is what a Path works with.
type Config struct {
	// Proc is where processes are seen, and Processes lists those of a container by PID.
	Proc      string
	Processes func(container string) ([]int, error)
	// Routes makes what measures from an address; its Run is called in the companion's
	// network namespace.
	Routes func(netip.Addr) *measure.Routes
	Log    *slog.Logger
}

// Path is the pod path from this node to the others. It is also a prometheus.Collector.
type Path struct {
	config Config
	wake   chan struct{}

	mu     sync.Mutex
	wanted Companion
	peers  map[model.NodeID]netip.Addr
	now    *session // nil: nothing is measured
}

// session is the measuring from one process's network namespace.
type session struct {
	companion Companion
	process   process.Process
	routes    *measure.Routes
	cancel    context.CancelFunc
	ended     chan error
	// steady: it was found running by a later look. One that cannot listen ends at once.
	steady bool
}

// New makes a Path without a companion; Run starts it.
func New(config Config) *Path {
	return &Path{config: config, wake: make(chan struct{}, 1)}
}

// Follow says who the companion is and which addresses are probed and answered. It is to be
// called again and again: each time Run looks whether the companion is still the same.
func (p *Path) Follow(c Companion, peers map[model.NodeID]netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted, p.peers = c, peers
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Snapshot gives the address that is measured from, by which the others reach it, and the
// route time to every peer that has answered within the window. The address is not valid
// while nothing is measured.
func (p *Path) Snapshot() (netip.Addr, map[model.NodeID]model.RouteTime) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil || !p.now.steady {
		return netip.Addr{}, nil
	}
	return p.now.companion.Address, p.now.routes.Snapshot()
}

// Run measures until ctx ends, then returns nil. A companion that is not there or cannot be
// measured from is no error, but logged; the next Follow tries again.
func (p *Path) Run(ctx context.Context) error {
	told := ""
	for {
		select {
		case <-ctx.Done():
			if err := p.stop(); err != nil {
				p.config.Log.Warn("the pod path was not left in order", "error", err)
			}
			return nil
		case <-p.wake:
		}
		trouble := ""
		if err := p.look(ctx); err != nil {
			trouble = err.Error()
		}
		if trouble != "" && trouble != told {
			p.config.Log.Warn("the pod path is not measured, trying again", "error", trouble)
		}
		told = trouble
	}
}

// look holds the session against what is wanted.
func (p *Path) look(ctx context.Context) error {
	p.mu.Lock()
	s, wanted, peers := p.now, p.wanted, p.peers
	p.mu.Unlock()
	if s != nil && s.companion == wanted && s.process.Alive() && len(s.ended) == 0 {
		s.routes.SetPeers(peers)
		p.mu.Lock()
		defer p.mu.Unlock()
		if !s.steady {
			p.config.Log.Info("the pod path is measured", "from", wanted.Address, "of", wanted.Pod)
		}
		s.steady = true
		return nil
	}
	if err := p.stop(); err != nil {
		return err
	}
	if wanted == (Companion{}) {
		return nil
	}
	s, err := p.start(ctx, wanted, peers)
	if err != nil {
		return fmt.Errorf("enter the network of pod %s, which is to measure the pod path: %w", wanted.Pod, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = s
	return nil
}

// stop ends the session, and returns the error that it has ended with by itself.
func (p *Path) stop() error {
	p.mu.Lock()
	s := p.now
	p.now = nil
	p.mu.Unlock()
	if s == nil {
		return nil
	}
	s.cancel()
	return <-s.ended
}

// start begins to measure from the companion.
func (p *Path) start(ctx context.Context, c Companion, peers map[model.NodeID]netip.Addr) (*session, error) {
	who, ns, err := p.namespace(c.Container)
	if err != nil {
		return nil, err
	}
	s := &session{companion: c, process: who, routes: p.config.Routes(c.Address), ended: make(chan error, 1)}
	s.routes.SetPeers(peers)
	ctx, s.cancel = context.WithCancel(ctx)
	go func() {
		defer ns.Close()
		s.ended <- inside(ns, func() error { return s.routes.Run(ctx) })
	}()
	return s, nil
}

// Describe is for prometheus.Registerer.
func (p *Path) Describe(ch chan<- *prometheus.Desc) { p.config.Routes(netip.Addr{}).Describe(ch) }

// Collect is for prometheus.Registerer. Counters begin anew with a companion.
func (p *Path) Collect(ch chan<- prometheus.Metric) {
	p.mu.Lock()
	s := p.now
	p.mu.Unlock()
	if s != nil {
		s.routes.Collect(ch)
	}
}
