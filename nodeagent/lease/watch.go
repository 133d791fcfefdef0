package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Spans of a lease.
const (
	// quiet is for how long nothing may have used an old address before its lease is left.
	quiet = 30 * time.Second
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
	cfg Config
	// busy is when something used the old address last, seen the connections that the last look found,
	// by the PodMigration's UID; of this agent's life alone.
	busy map[string]time.Time
	seen map[string][]uint64
	// forwards and holds are the sources' sandboxes for which that has been done in this life.
	forwards, holds map[string]bool
	// over are the leases that have ended here, until the record says so.
	over map[string]end
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
	return &Watch{cfg: c, busy: map[string]time.Time{}, seen: map[string][]uint64{}, forwards: map[string]bool{}, holds: map[string]bool{}, over: map[string]end{}}
}

// Run looks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn("cannot look after all leases of addresses, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Watch) look(ctx context.Context) error {
	all, err := w.cfg.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	recorded := map[string]*v1alpha1.PodMigration{}
	for i := range all {
		pm := &all[i]
		recorded[string(pm.UID)] = pm
		if ended(pm) && pm.Status.Target.Node == w.cfg.Node {
			errs = append(errs, w.leave(ctx, pm))
		}
		if !leased(pm) {
			continue
		}
		if pm.Status.Source.Node == w.cfg.Node && pm.Status.Source.Ended {
			errs = append(errs, w.source(ctx, pm))
		}
		if pm.Status.Target.Node == w.cfg.Node {
			errs = append(errs, w.target(ctx, pm))
		}
	}
	return errors.Join(append(errs, w.sweep(ctx, recorded))...)
}

// leased tells that the pod's old address is a lease.
func leased(pm *v1alpha1.PodMigration) bool {
	s := &pm.Status
	return s.Connections != nil && s.Connections.State == v1alpha1.ConnectionsKept && s.Target.Resumed && !s.Connections.LeaseEnded
}

// ended tells that the lease is over, and that the target has not said yet that it has left.
func ended(pm *v1alpha1.PodMigration) bool {
	c := pm.Status.Connections
	return c != nil && c.LeaseEnded && !c.TargetLeft
}

// leave closes this end of a lease that has ended elsewhere, and says so in the record: until then
// nobody else may be given the address.
func (w *Watch) leave(ctx context.Context, pm *v1alpha1.PodMigration) error {
	m := migrate.MoveOf(pm)
	_, at, err := w.cfg.Ends.noted(m.UID, migrate.RoleTarget)
	if err == nil {
		err = address.Leave(at, of(m))
	}
	if err != nil && !errors.Is(err, errGone) {
		return err
	}
	return w.write(ctx, pm, ended, func(c *v1alpha1.ConnectionsStatus) { c.TargetLeft = true })
}

// source has what comes for the address sent on, and the sandbox kept by a process that does
// nothing, as long as it is the sandbox that has the address.
func (w *Watch) source(ctx context.Context, pm *v1alpha1.PodMigration) error {
	m := migrate.MoveOf(pm)
	_, at, err := w.cfg.Ends.noted(m.UID, migrate.RoleSource)
	if err == nil {
		err = address.Stands(at, of(m))
	}
	if err != nil && !errors.Is(err, errGone) && !errors.Is(err, address.ErrNoEnd) {
		return err
	}
	if err != nil {
		return w.end(ctx, pm, end{v1alpha1.ReasonSourceChanged, fmt.Sprintf("the sandbox on node %s has the pod's old address no more: %v", w.cfg.Node, err), false})
	}
	if image := pm.Status.Connections.HolderImage; image != "" {
		f := fence.Fence{PodUID: m.Source.UID, Epoch: uint64(m.Epoch), Migration: m.Namespace + "/" + m.Name, Holder: image}
		if is, err := w.cfg.Fences.Check(f.PodUID); err != nil {
			return err
		} else if is == nil || *is != f {
			if err := w.cfg.Fences.Write(f); err != nil {
				return err
			}
		}
	}
	m = m.Left(w.cfg.Now())
	if w.forwards[m.UID] || m.Keep.For == 0 {
		return nil
	}
	if err := w.cfg.Ends.Forward(m); err != nil {
		return err
	}
	w.forwards[m.UID] = true
	return nil
}

// target ends the lease when nothing uses it any more, or its time is over.
func (w *Watch) target(ctx context.Context, pm *v1alpha1.PodMigration) error {
	m, now := migrate.MoveOf(pm), w.cfg.Now()
	if why, is := w.over[m.UID]; is {
		return w.end(ctx, pm, why)
	}
	_, at, err := w.cfg.Ends.noted(m.UID, migrate.RoleTarget)
	var u address.Use
	if err == nil {
		u, err = address.Used(at, of(m), talks)
	}
	switch {
	case errors.Is(err, errGone), errors.Is(err, address.ErrNoEnd):
		return w.end(ctx, pm, end{v1alpha1.ReasonTargetGone, fmt.Sprintf("the sandbox on node %s is no end of the tunnel any more: %v", w.cfg.Node, err), true})
	case err != nil:
		return err // the kernel closes it by itself
	}
	// One that comes and goes between two looks is none that was taken along: kubelet's probes of the
	// old pod are such, and would have the lease never end.
	lasts := slices.ContainsFunc(u.Connections, func(c uint64) bool { return slices.Contains(w.seen[m.UID], c) })
	w.seen[m.UID] = u.Connections
	if lasts || u.Peers > 0 || w.busy[m.UID].IsZero() {
		w.busy[m.UID] = now
	}
	var why end
	switch {
	case u.Left <= early:
		why = end{v1alpha1.ReasonLeaseOver, fmt.Sprintf("%v is over; %d connections and %d peers still used %v", m.Keep.For, len(u.Connections), u.Peers, m.Keep.Old), true}
	case now.Sub(w.busy[m.UID]) >= quiet:
		why = end{v1alpha1.ReasonLastConnection, fmt.Sprintf("for %v no connection has used %v", quiet, m.Keep.Old), true}
	default:
		return nil
	}
	if err := address.Leave(at, of(m)); err != nil {
		return err
	}
	w.over[m.UID] = why
	return w.end(ctx, pm, why)
}

// end says in the record that the lease is over. What it is not told now is tried again.
func (w *Watch) end(ctx context.Context, pm *v1alpha1.PodMigration, why end) error {
	err := w.write(ctx, pm, leased, func(c *v1alpha1.ConnectionsStatus) {
		c.LeaseEnded, c.LeaseReason, c.LeaseMessage = true, why.reason, v1alpha1.Cut(why.message)
		c.TargetLeft = why.left
	})
	if err == nil {
		w.cfg.Log.Info("the lease of an address is over", "migration", pm.Namespace+"/"+pm.Name, "reason", why.reason, "message", why.message)
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
		return fmt.Errorf("say in the record of move %s/%s that the lease of its address is over: %w", pm.Namespace, pm.Name, err)
	}
	return nil
}
