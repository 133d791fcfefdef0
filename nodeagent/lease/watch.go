package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Spans of a lease.
const (
	// quiet is for how long nothing may have used an old address before its lease is left.
	quiet = 30 * time.Second
	// brief is the same where the pod has several old addresses: there are not to be more of them than it can
	// have, because it moves fast.
	brief = 3 * time.Second
	// talks is for how long a UDP peer counts after it has sent something.
	talks = 2 * time.Minute
	// early is how long before the kernel closes a lease its connections are ended.
	early = 2 * time.Second
)

// Config is what a Watch needs.
type Config struct {
	Node string
	Ends *Ends
	// List gives all PodMigrations, as they were heard of last; they are not changed.
	List    func(context.Context) ([]v1alpha1.PodMigration, error)
	Records migrate.Records
	Fences  migrate.Fences
	// Interval is how often everything is looked at. Default 1 s.
	Interval time.Duration
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	Log *slog.Logger
}

// Watch looks after the leases at whose ends this node is, and takes away what no move or lease
// names.
type Watch struct {
	cfg  Config
	soon chan struct{}
	// busy is when something used the old address last, seen the connections that the last look found,
	// over the leases that have ended here, until the record says so: by the seat; of this agent's life
	// alone.
	busy map[string]time.Time
	seen map[string][]uint64
	over map[string]end
	// forwards are the tunnels into which the sources' sandboxes send on, holds those that are held again:
	// by the PodMigration's UID, as far as that has been done in this life.
	forwards map[string]string
	holds    map[string]bool
	// answers are the probes for earlier addresses that are being answered, by the seat; keeps for which
	// moves what comes for one is kept, by the UID of the PodMigration that has left it.
	answers   map[string]answering
	answering sync.WaitGroup
	keeps     map[string]string
}

// end is why a lease is over; left: this node is the target, and has closed its end.
type end struct {
	reason, message string
	left            bool
}

// NewWatch makes a Watch. It starts nothing.
func NewWatch(c Config) *Watch {
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Watch{cfg: c, soon: make(chan struct{}, 1), busy: map[string]time.Time{}, seen: map[string][]uint64{}, over: map[string]end{},
		forwards: map[string]string{}, holds: map[string]bool{}, answers: map[string]answering{}, keeps: map[string]string{}}
}

// Changed tells that a PodMigration has changed: what waits for that is done at once. It returns at once.
func (w *Watch) Changed() {
	select {
	case w.soon <- struct{}{}:
	default:
	}
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	defer w.answering.Wait()
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	look := w.look
	for {
		if err := look(ctx); err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn("cannot look after all leases of addresses, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			look = w.look
		case <-w.soon:
			look = w.follow
		}
	}
}

func (w *Watch) look(ctx context.Context) error {
	all, err := w.cfg.List(ctx)
	if err != nil {
		return err
	}
	p := pictureOf(all)
	errs := []error{w.holder(ctx, all, p)}
	for i := range all {
		if pm := &all[i]; pm.Status.Target.Node == w.cfg.Node && arrived(pm) {
			errs = append(errs, w.target(ctx, pm, p))
		}
	}
	return errors.Join(append(errs, w.sweep(ctx, p))...)
}

// follow does what waits for a record to say something.
func (w *Watch) follow(ctx context.Context) error {
	all, err := w.cfg.List(ctx)
	if err != nil {
		return err
	}
	return w.holder(ctx, all, pictureOf(all))
}

// arrived tells that the pod runs on the target and has its old address, or had it.
func arrived(pm *v1alpha1.PodMigration) bool {
	s := &pm.Status
	return s.Connections != nil && s.Connections.State == v1alpha1.ConnectionsKept && s.Target.Resumed
}

// leased tells that the pod's old address is a lease.
func leased(pm *v1alpha1.PodMigration) bool { return arrived(pm) && !pm.Status.Connections.LeaseEnded }

// target leaves what has ended elsewhere, and ends leases that nothing uses any more, or whose time is
// over.
func (w *Watch) target(ctx context.Context, pm *v1alpha1.PodMigration, p picture) error {
	m := migrate.MoveOf(pm)
	_, at, missing := w.cfg.Ends.noted(m.UID, migrate.RoleTarget)
	if missing == nil {
		// The pod is about to leave, or has left: nothing is to be seen of what uses its addresses.
		if _, err := address.Left(at); !errors.Is(err, address.ErrNoEnd) {
			return err
		}
	} else if !errors.Is(missing, errGone) {
		return missing
	}
	var errs []error
	for i := range leases(m) {
		s := seat{pm, m, i}
		if p.newest[s.uid()].UID != pm.UID {
			continue // it has moved on
		}
		switch ended, left := p.over(s); {
		case left:
		case ended:
			errs = append(errs, w.leave(ctx, s, at, missing))
		default:
			errs = append(errs, w.judge(ctx, s, at, missing))
		}
	}
	return errors.Join(errs...)
}

// leave closes this end of a lease that has ended elsewhere, and says so in the record: until then
// nobody else may be given the address.
func (w *Watch) leave(ctx context.Context, s seat, at string, missing error) error {
	if missing == nil {
		if err := address.Leave(at, s.lease()); err != nil {
			return err
		}
	}
	return w.write(ctx, s.pm, arrived, func(c *v1alpha1.ConnectionsStatus) { s.say(c, end{left: true}) })
}

// judge ends a lease that lives if it is time.
func (w *Watch) judge(ctx context.Context, s seat, at string, err error) error {
	now, key := w.cfg.Now(), s.key()
	if why, is := w.over[key]; is {
		return w.end(ctx, s, why)
	}
	var u address.Use
	if err == nil {
		u, err = address.Used(at, s.lease(), talks)
	}
	switch {
	case errors.Is(err, errGone), errors.Is(err, address.ErrNoEnd):
		return w.end(ctx, s, end{v1alpha1.ReasonTargetGone, fmt.Sprintf("the sandbox on node %s is no end of the tunnel any more: %v", w.cfg.Node, err), true})
	case err != nil:
		return err // the kernel closes it by itself
	}
	if u.Held && s.i > 0 {
		if d := s.left(now); d > early {
			return w.cfg.Ends.openEarlier(ctx, at, s, d)
		}
	}
	// One that comes and goes between two looks is none that was taken along: kubelet's probes of the
	// old pod are such, and would have the lease never end.
	lasts := slices.ContainsFunc(u.Connections, func(c uint64) bool { return slices.Contains(w.seen[key], c) })
	w.seen[key] = u.Connections
	if s.serves() || lasts || u.Peers > 0 || w.busy[key].IsZero() {
		w.busy[key] = now
	}
	var why end
	switch {
	case u.Left <= early:
		why = end{v1alpha1.ReasonLeaseOver, fmt.Sprintf("%v is over; %d connections and %d peers still used %v", s.span(), len(u.Connections), u.Peers, s.lease().Old), true}
	case now.Sub(w.busy[key]) >= s.quiet():
		why = end{v1alpha1.ReasonLastConnection, fmt.Sprintf("for %v no connection has used %v", s.quiet(), s.lease().Old), true}
	default:
		return nil
	}
	if err := address.Leave(at, s.lease()); err != nil {
		return err
	}
	w.over[key] = why
	return w.end(ctx, s, why)
}

// end says in the record that the lease is over. What it is not told now is tried again.
func (w *Watch) end(ctx context.Context, s seat, why end) error {
	err := w.write(ctx, s.pm, func(pm *v1alpha1.PodMigration) bool { return arrived(pm) && !s.ended(pm.Status.Connections) },
		func(c *v1alpha1.ConnectionsStatus) { s.say(c, why) })
	if err == nil {
		w.cfg.Log.Info("the lease of an address is over", "migration", s.pm.Namespace+"/"+s.pm.Name, "addresses", s.lease().Old, "reason", why.reason, "message", why.message)
	}
	return err
}

// write changes the record as it is now, if it is still so.
func (w *Watch) write(ctx context.Context, pm *v1alpha1.PodMigration, still func(*v1alpha1.PodMigration) bool, change func(*v1alpha1.ConnectionsStatus)) error {
	now, err := w.cfg.Records.Get(ctx, pm.Namespace, pm.Name)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	if now.UID != pm.UID || !still(now) {
		return nil
	}
	change(now.Status.Connections)
	if _, outcome, err := w.cfg.Records.UpdateStatus(ctx, now); outcome != handoff.OK {
		return fmt.Errorf("say in the record of move %s/%s what has become of its address: %w", pm.Namespace, pm.Name, err)
	}
	return nil
}
