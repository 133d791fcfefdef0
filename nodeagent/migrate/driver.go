package migrate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/processors"
)

// Role is the side of a move that a node is.
type Role string

// The roles, as the record's decisionBy and the metrics spell them.
const (
	RoleSource Role = "source"
	RoleTarget Role = "target"
)

// Outcome is how a move ended.
type Outcome string

// The outcomes.
const (
	Moved    Outcome = "moved"
	Aborted  Outcome = "aborted"
	Returned Outcome = "returned"
	Lost     Outcome = "lost"
)

// Report tells how a move ended on this node.
type Report struct {
	Move    Move
	Role    Role
	Outcome Outcome
	Record  handoff.Record
}

// Config of a Driver. The zero value of a span of time means its default.
type Config struct {
	// Node is this Node's name, BootID the running kernel's, as in
	// /proc/sys/kernel/random/boot_id and status.nodeInfo.bootID.
	Node, BootID string
	// Handoff holds the machines' spans; DefaultConfig if zero.
	Handoff handoff.Config
	// Tick is how often what failed is tried again and proofs are looked for. Default 1 s.
	Tick time.Duration
	// Grace is how long wrappers and hooks get to call again after the agent's start, before
	// they count as gone. Default 3 s.
	Grace time.Duration
	// ProbeTime is how long a target asks whether the network carries the connections. Default 3 s.
	ProbeTime time.Duration
	// CallTimeout is after how long a call to the API server counts as lost. Default 10 s.
	CallTimeout time.Duration
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Ended is told every move that ended here; it must return at once. May be nil.
	Ended func(Report)
}

func (c Config) withDefaults() Config {
	span := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	if c.Handoff == (handoff.Config{}) {
		c.Handoff = handoff.DefaultConfig()
	}
	span(&c.Tick, time.Second)
	span(&c.Grace, 3*time.Second)
	span(&c.ProbeTime, 3*time.Second)
	span(&c.CallTimeout, 10*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Ports are what a Driver works with. All but Guard and Addresses are needed; without Addresses
// connections are closed.
type Ports struct {
	Records      Records
	Cluster      Cluster
	Checkpointer Checkpointer
	Sender       Sender
	Images       Images
	Runtime      Runtime
	Fences       Fences
	Arrivals     Arrivals
	Marks        Marks
	Guard        Guard
	Addresses    Addresses
	Log          *slog.Logger
}

// Driver drives all moves of one node. It implements Notices; notices that come before
// Run wait for it.
type Driver struct {
	cfg      Config
	ports    Ports
	metrics  metrics
	holdings *holdings

	mu      sync.Mutex
	ctx     context.Context // nil before Run
	began   time.Time
	stopped bool // nothing is begun any more
	early   []func()
	workers map[side]*worker
	creates map[string][]Create // by pod UID: wrappers that are connected
	wg      sync.WaitGroup
}

// side names one side of one move.
type side struct {
	uid  string
	role Role
}

// New makes a Driver. It starts nothing.
func New(cfg Config, p Ports) *Driver {
	if p.Addresses == nil {
		p.Addresses = stay{}
	}
	d := &Driver{cfg: cfg.withDefaults(), ports: p, workers: map[side]*worker{}, creates: map[string][]Create{}}
	d.holdings = &holdings{now: d.cfg.Now, since: map[*worker]time.Time{}}
	d.metrics = newMetrics(d.held, d.holdings)
	return d
}

// Register makes the Driver's metrics known.
func (d *Driver) Register(r prometheus.Registerer) error { return d.metrics.register(r) }

// Run drives until ctx ends, then waits for all workers. What is held stays held.
func (d *Driver) Run(ctx context.Context) error {
	d.mu.Lock()
	if d.ctx != nil {
		d.mu.Unlock()
		return fmt.Errorf("the driver of node %s was started twice", d.cfg.Node)
	}
	d.ctx, d.began = ctx, d.cfg.Now()
	early := d.early
	d.early = nil
	d.mu.Unlock()
	for _, f := range early {
		f()
	}
	ticker := time.NewTicker(d.cfg.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			d.mu.Lock()
			d.stopped = true
			d.mu.Unlock()
			d.wg.Wait()
			return nil
		case <-ticker.C:
			d.all(handoff.Event{Kind: handoff.Tick})
		}
	}
}

// started runs f now, or when Run is called.
func (d *Driver) started(f func()) {
	d.mu.Lock()
	if d.ctx == nil {
		d.early = append(d.early, f)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	f()
}

func (d *Driver) all(e handoff.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.workers {
		w.post(e)
	}
}

func (d *Driver) held() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0.0
	for _, w := range d.workers {
		if w.holding.Load() {
			n++
		}
	}
	return n
}

// Observe takes in a PodMigration as a watch or a list showed it.
func (d *Driver) Observe(pm *v1alpha1.PodMigration) {
	d.started(func() { d.observe(pm) })
}

func (d *Driver) observe(pm *v1alpha1.PodMigration) {
	for _, role := range []Role{RoleSource, RoleTarget} {
		if !d.tell(pm, role) && d.concerns(pm, role) {
			d.start(pm, role)
		}
	}
}

// tell has the worker of one side see a PodMigration, if there is one.
func (d *Driver) tell(pm *v1alpha1.PodMigration, role Role) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.workers[side{string(pm.UID), role}]
	if w != nil {
		w.see(pm)
	}
	return w != nil
}

// dismiss takes a worker that has nothing to do out of the list, unless it was told something meanwhile:
// whatever comes later is for another one.
func (d *Driver) dismiss(w *worker) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !w.box.empty() {
		return false
	}
	delete(d.workers, side{w.move.UID, w.role})
	return true
}

// concerns tells that this node has something to do as that side of the move.
func (d *Driver) concerns(pm *v1alpha1.PodMigration, role Role) bool {
	r := RecordOf(pm)
	if r.Epoch == 0 || d.cfg.Node != nodeOf(r, role) {
		return false
	}
	if role == RoleSource {
		// Nothing is touched before the target waits.
		return !finished(r, role) && (r.Target.Waiting || r.Decision != handoff.Undecided)
	}
	if r.Target.PodUID == "" {
		return false
	}
	if r.Target.Resumed && !r.Needed() {
		// A crash may have come between the acknowledgement and the note of the arrival.
		there, err := d.ports.Arrivals.Check(r.Target.PodUID, pm.Name)
		return err == nil && !there
	}
	return !finished(r, role)
}

func nodeOf(r handoff.Record, role Role) string {
	if role == RoleSource {
		return r.Source.Node
	}
	return r.Target.Node
}

// start makes the worker of one side, unless there is one.
func (d *Driver) start(pm *v1alpha1.PodMigration, role Role) *worker {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := side{string(pm.UID), role}
	if w := d.workers[key]; w != nil {
		return w
	}
	w := newWorker(d, MoveOf(pm), role)
	d.workers[key] = w
	d.spawn(func() {
		done := processors.Use()
		w.run(d.ctx)
		done()
		d.holdings.set(w, false)
		d.mu.Lock()
		if d.workers[key] == w {
			delete(d.workers, key)
		}
		again := role == RoleTarget && len(d.creates[w.move.Target.UID]) > 0 && d.ctx.Err() == nil
		d.mu.Unlock()
		if again {
			d.adoptAll(w.move.Target.UID)
		}
	})
	return w
}

// spawn runs f in a goroutine that Run waits for; never once Run is about to return. The
// lock is held.
func (d *Driver) spawn(f func()) {
	if d.stopped {
		return
	}
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		f()
	}()
}

// graceLeft is how long wrappers and hooks still have to call again.
func (d *Driver) graceLeft() time.Duration {
	return d.cfg.Grace - d.cfg.Now().Sub(d.began)
}
