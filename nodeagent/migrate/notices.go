package migrate

import (
	"slices"
	"time"

	"github.com/drover-project/drover/internal/handoff"
)

var _ Notices = (*Driver)(nil)

// find calls f for every worker that fits.
func (d *Driver) find(fits func(*worker) bool, f func(*worker)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := false
	for _, w := range d.workers {
		if fits(w) {
			f(w)
			found = true
		}
	}
	return found
}

func isTarget(podUID string) func(*worker) bool {
	return func(w *worker) bool { return w.role == RoleTarget && w.move.Target.UID == podUID }
}

// RecordGone ends the work on a move. A PodMigration that was deleted never comes back.
func (d *Driver) RecordGone(migrationUID string) {
	d.find(func(w *worker) bool { return w.move.UID == migrationUID }, func(w *worker) {
		w.box.put(letter{before: func() { w.gone = true }})
	})
}

// PodDeleted tells the moves of the pod, from either end.
func (d *Driver) PodDeleted(podUID string) {
	d.find(func(w *worker) bool { return w.move.Source.UID == podUID || w.move.Target.UID == podUID }, func(w *worker) {
		which := "the replacement"
		if w.move.Source.UID == podUID {
			which = "the source pod"
		}
		w.post(handoff.Event{Kind: handoff.Unwanted, Reason: which + " is being deleted"})
	})
}

// CreateWaits remembers the wrapper and tells the move that its pod belongs to.
func (d *Driver) CreateWaits(c Create) {
	d.started(func() {
		d.mu.Lock()
		same := func(o Create) bool { return o.ID == c.ID }
		d.creates[c.PodUID] = append(slices.DeleteFunc(d.creates[c.PodUID], same), c)
		d.mu.Unlock()
		d.adopt(c)
	})
}

func (d *Driver) adopt(c Create) {
	e := handoff.Event{Kind: handoff.WaiterCame, ID: c.ID, Name: c.Name, Deadline: c.Deadline}
	if d.find(isTarget(c.PodUID), func(w *worker) { w.post(e) }) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spawn(func() { d.lookUp(c) })
}

func (d *Driver) adoptAll(podUID string) {
	d.mu.Lock()
	all := slices.Clone(d.creates[podUID])
	d.mu.Unlock()
	for _, c := range all {
		d.adopt(c)
	}
}

// lookUp finds the move of a create for which no watch has brought one yet. As long as it
// is not found the create waits: an unknown move is never a reason to start a container.
func (d *Driver) lookUp(c Create) {
	for d.ctx.Err() == nil && d.waits(c) {
		pm, err := d.ports.Records.Get(d.ctx, c.Namespace, c.Migration)
		if err == nil && string(pm.Status.Target.PodUID) == c.PodUID && pm.Status.Target.Node == d.cfg.Node {
			d.start(pm, RoleTarget)
			d.tellWaits(c)
			return
		}
		if err != nil {
			d.ports.Log.Warn("a create waits for a move that cannot be read", "pod", c.Namespace+"/"+c.Pod, "migration", c.Migration, "err", err)
		}
		select {
		case <-d.ctx.Done():
		case <-time.After(d.cfg.Tick):
		}
	}
}

// waits tells that the wrapper is connected.
func (d *Driver) waits(c Create) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waitsLocked(c)
}

func (d *Driver) waitsLocked(c Create) bool {
	return slices.ContainsFunc(d.creates[c.PodUID], func(o Create) bool { return o.ID == c.ID })
}

// tellWaits tells the move that the wrapper waits, unless its end was told before.
func (d *Driver) tellWaits(c Create) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.waitsLocked(c) {
		return
	}
	for _, w := range d.workers {
		if isTarget(c.PodUID)(w) {
			w.post(handoff.Event{Kind: handoff.WaiterCame, ID: c.ID, Name: c.Name, Deadline: c.Deadline})
		}
	}
}

// CreateEnded forgets the wrapper and tells its move.
func (d *Driver) CreateEnded(podUID, id string) {
	d.started(func() {
		d.mu.Lock()
		left := slices.DeleteFunc(d.creates[podUID], func(o Create) bool { return o.ID == id })
		if d.creates[podUID] = left; len(left) == 0 {
			delete(d.creates, podUID)
		}
		d.mu.Unlock()
		d.find(isTarget(podUID), func(w *worker) { w.post(handoff.Event{Kind: handoff.WaiterGone, ID: id}) })
	})
}

// ImagesComplete tells the move that its images are here.
func (d *Driver) ImagesComplete(migrationUID string) {
	d.find(func(w *worker) bool { return w.role == RoleTarget && w.move.UID == migrationUID },
		func(w *worker) { w.post(handoff.Event{Kind: handoff.Images}) })
}

// RestoreHeld tells the move that its copy is restored and held.
func (d *Driver) RestoreHeld(podUID, id string) {
	d.find(isTarget(podUID), func(w *worker) { w.post(handoff.Event{Kind: handoff.Held, ID: id}) })
}

// RestoreEnded tells the move that its restore failed, or that CRIU died while it held.
func (d *Driver) RestoreEnded(podUID, id string, err error) {
	reason := "the restore ended"
	if err != nil {
		reason = err.Error()
	}
	d.find(isTarget(podUID), func(w *worker) {
		w.post(handoff.Event{Kind: handoff.HookGone, ID: id, Reason: reason})
	})
}

// ContainerEnded tells the move whose container has no process left.
func (d *Driver) ContainerEnded(id string) {
	d.find(func(*worker) bool { return true }, func(w *worker) {
		if w.role == RoleTarget || w.move.moves(id) {
			w.post(handoff.Event{Kind: handoff.Died, ID: id})
		}
	})
}
