package migrate

import (
	"context"
	"errors"
	"time"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Found is what a node finds of its side of a move, for people who have to decide.
type Found struct {
	Node string `json:"node"`
	Role Role   `json:"role"`
	// Driven: the agent works on this side of the move now.
	Driven bool `json:"driven"`
	// Alive: there are processes. Frozen: they are held by their control group. Busy: CRIU
	// dumps or restores them.
	Alive  bool `json:"alive"`
	Frozen bool `json:"frozen"`
	Busy   bool `json:"busy"`
	// Fence is the epoch of the fence that keeps the pod's container from being started; 0: none.
	Fence uint64 `json:"fence"`
	// Images: complete on the target's disk. Begun: the target's copy was about to run, in this
	// boot. Arrived: it ran and that is acknowledged. Creates that wait on the target.
	Images  bool `json:"images,omitempty"`
	Begun   bool `json:"begun,omitempty"`
	Arrived bool `json:"arrived,omitempty"`
	Creates int  `json:"creates,omitempty"`
	// Transfer is how far the images are, on the source while they are sent.
	Transfer *Progress `json:"transfer,omitempty"`
	// HeldSince is since when this agent has held it; zero: it does not.
	HeldSince time.Time `json:"heldSince,omitzero"`
	// BootID of the running kernel.
	BootID string `json:"bootID"`
	// Problem is what could not be looked at.
	Problem string `json:"problem,omitempty"`
}

// Look finds what there is of the move on this node, at each end that it is. It changes
// nothing, and needs no API server.
func (d *Driver) Look(ctx context.Context, pm *v1alpha1.PodMigration) []Found {
	var all []Found
	r := RecordOf(pm)
	for _, role := range []Role{RoleSource, RoleTarget} {
		if nodeOf(r, role) == d.cfg.Node {
			all = append(all, d.lookAt(ctx, pm, role))
		}
	}
	return all
}

func (d *Driver) lookAt(ctx context.Context, pm *v1alpha1.PodMigration, role Role) Found {
	f := Found{Node: d.cfg.Node, Role: role, BootID: d.cfg.BootID}
	d.mu.Lock()
	w := d.workers[side{string(pm.UID), role}]
	d.mu.Unlock()
	if f.Driven = w != nil; f.Driven {
		f.HeldSince = d.holdings.of(w)
	}
	m := MoveOf(pm)
	var errs []error
	pod := m.Source
	if role == RoleSource {
		facts, err := d.ports.Checkpointer.Inspect(ctx, m)
		f.Alive, f.Frozen, f.Busy = facts.Alive, facts.Frozen, facts.Dumping
		f.Transfer = d.ports.Sender.Progress(m)
		errs = append(errs, err)
	} else {
		pod = m.Target
		errs = append(errs, d.lookAtCopy(ctx, m, &f))
	}
	fenced, err := d.ports.Fences.Check(pod.UID)
	if fenced != nil {
		f.Fence = fenced.Epoch
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		f.Problem = err.Error()
	}
	return f
}

func (d *Driver) lookAtCopy(ctx context.Context, m Move, f *Found) error {
	c, err := d.ports.Runtime.Inspect(ctx, m)
	f.Alive, f.Frozen, f.Busy, f.Creates = c.Alive, c.Frozen, c.Restoring, len(c.Creates)
	for _, p := range c.Passed {
		f.Frozen = p.Frozen && (f.Frozen || !f.Alive)
		f.Alive = f.Alive || p.Alive
	}
	dir, err2 := d.ports.Images.Complete(ctx, m)
	f.Images = dir != ""
	var err3, err4 error
	f.Begun, err3 = d.ports.Marks.Begun(m)
	f.Arrived, err4 = d.ports.Arrivals.Check(m.Target.UID, m.Name)
	return errors.Join(err, err2, err3, err4)
}
