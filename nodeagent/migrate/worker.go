package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
)

// machine is handoff.Source or handoff.Target.
type machine interface {
	Step(now time.Time, e handoff.Event) []handoff.Action
	Record() handoff.Record
	Done() bool
	Holding() bool
}

// worker drives one side of one move. Its fields belong to the goroutine of run, but for
// the mailbox and holding.
type worker struct {
	d       *Driver
	move    Move
	role    Role
	log     *slog.Logger
	box     *mailbox
	holding atomic.Bool

	// ctx is run's: what ends after it is not looked at any more, for an action that was cut
	// short tells nothing.
	ctx     context.Context
	machine machine
	// objects holds PodMigrations by version: a compare-and-swap starts from one of them.
	objects  map[string]*v1alpha1.PodMigration
	versions []string
	// cancel ends the dump, the transfer or the pass that is under way.
	cancel context.CancelFunc
	// breakOff ends the restore that is under way, and returns when it has ended; nil: there was none.
	breakOff func()
	// gone: the record was deleted. Nobody can decide about the move any more, and what is held
	// stays held.
	gone bool
	// heard is when the record was last seen; asking: it is being read because that is long ago.
	heard  time.Time
	asking bool
	// counted: the outcome has been told.
	counted bool
	// arrived: the note for drover-runc is written.
	arrived bool

	// judgement is the guard's.
	judgement   judgement
	connections connections
	steps       []v1alpha1.TimelineEntry
	dumped      Dumped
	// sent is what the transfer took; told: its progress is being written.
	sent     *Progress
	told     bool
	frozenAt time.Time
	ackedAt  time.Time
}

func newWorker(d *Driver, m Move, role Role) *worker {
	return &worker{
		d: d, move: m, role: role, box: newMailbox(), objects: map[string]*v1alpha1.PodMigration{},
		connections: connections{settled: make(chan struct{})},
		log:         d.ports.Log.With("migration", m.Namespace+"/"+m.Name, "epoch", m.Epoch, "role", string(role)),
	}
}

func (w *worker) post(e handoff.Event) { w.box.put(letter{event: e}) }

// see posts a PodMigration from the watch.
func (w *worker) see(pm *v1alpha1.PodMigration) {
	w.box.put(letter{handoff.Event{Kind: handoff.Seen, Record: RecordOf(pm)}, func() { w.keep(pm) }})
}

// keep remembers an object for the next compare-and-swap.
func (w *worker) keep(pm *v1alpha1.PodMigration) {
	v := pm.ResourceVersion
	if w.objects[v] == nil {
		w.versions = append(w.versions, v)
	}
	w.objects[v] = pm
	w.learn(pm)
	if len(w.versions) > 32 {
		delete(w.objects, w.versions[0])
		w.versions = w.versions[1:]
	}
	if s := findStep(&pm.Status, StepFrozen, w.d.cfg.Node); s != nil && w.frozenAt.IsZero() {
		w.frozenAt = s.At.Time // from before the agent restarted
	}
}

// run lasts until the side is done, the record is gone, or ctx ends. A dump that has not frozen
// anything yet, and what is being sent, end with it.
func (w *worker) run(ctx context.Context) {
	w.ctx = ctx
	defer func() {
		if w.role == RoleSource && w.cancel != nil {
			w.cancel()
		}
	}()
	if !w.build(ctx) {
		return
	}
	for {
		letters, err := w.box.take(ctx)
		if err != nil {
			return
		}
		for _, l := range letters {
			if l.before != nil {
				l.before()
			}
			if w.gone {
				w.log.Warn(errNoRecord.Error())
				return
			}
			w.step(ctx, l.event)
		}
		if w.machine.Done() && w.leave() {
			if w.role == RoleTarget {
				w.tidyTarget(ctx)
			}
			if w.d.dismiss(w) {
				return
			}
		}
	}
}

// build reads the record, then what there is on the node, and makes the machine.
func (w *worker) build(ctx context.Context) bool {
	pm := w.read(ctx)
	if pm == nil {
		return false
	}
	w.keep(pm)
	r := RecordOf(pm)
	w.counted = finished(r, w.role)
	for {
		m, err := w.facts(ctx, r)
		if err == nil {
			w.machine = m
			break
		}
		w.log.Error("cannot tell what there is of the move on this node; trying again", "err", err)
		if !w.pause(ctx, w.d.cfg.Tick) {
			return false
		}
	}
	w.step(ctx, handoff.Event{Kind: handoff.Seen, Record: r})
	return true
}

// errNoRecord: nobody can decide about the move any more.
var errNoRecord = errors.New("the record of the move is gone")

// get reads the record from the API server itself.
func (w *worker) get(ctx context.Context) (*v1alpha1.PodMigration, error) {
	ctx, done := context.WithTimeout(ctx, w.d.cfg.CallTimeout)
	defer done()
	pm, err := w.d.ports.Records.Get(ctx, w.move.Namespace, w.move.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w: %w", errNoRecord, err)
	case err == nil && string(pm.UID) != w.move.UID:
		return nil, fmt.Errorf("%w: another PodMigration has its name", errNoRecord)
	}
	return pm, err
}

// read gets the record, however long that takes; nil: it is gone.
func (w *worker) read(ctx context.Context) *v1alpha1.PodMigration {
	for {
		pm, err := w.get(ctx)
		if err == nil {
			return pm
		}
		if errors.Is(err, errNoRecord) {
			w.log.Warn(errNoRecord.Error())
			return nil
		}
		w.log.Warn("cannot read the record of the move; what is held stays held", "err", err)
		if !w.pause(ctx, w.d.cfg.Tick) {
			return nil
		}
	}
}

// pause waits; false when ctx has ended.
func (w *worker) pause(ctx context.Context, span time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(span):
		return true
	}
}

// step feeds the machine and carries out what it asks for.
func (w *worker) step(ctx context.Context, e handoff.Event) {
	if e.Kind == handoff.Held && w.role == RoleTarget {
		w.note(StepRestored, w.d.cfg.Now())
	}
	w.comes(e)
	w.listen(ctx, e)
	before := w.machine.Record()
	actions := w.machine.Step(w.d.cfg.Now(), e)
	w.holding.Store(w.stands())
	w.d.holdings.set(w, w.stands())
	if e.Kind != handoff.Tick || len(actions) > 0 {
		w.log.Debug("step", "event", e.Kind, "op", e.Op, "outcome", e.Outcome, "reason", e.Reason, "actions", len(actions))
	}
	w.follow(before, w.machine.Record())
	for _, a := range actions {
		w.do(ctx, a)
	}
	w.weigh(ctx)
	w.forward(ctx)
	if w.machine.Done() && !w.counted && finished(w.machine.Record(), w.role) {
		w.counted = true
		w.report()
	}
}

// stands tells that the pod stands still for what is held here. A source that is not ended yet once the copy
// runs is held, too, but the pod runs.
func (w *worker) stands() bool { return w.machine.Holding() && !w.machine.Record().Target.Resumed }

// silence is for how long a worker that holds something goes without seeing the record before
// it asks for it: a watch may take a minute to come back after the API server has.
const silence = 3 * time.Second

// listen reads the record when something is held and the watch has been silent for long.
func (w *worker) listen(ctx context.Context, e handoff.Event) {
	now := w.d.cfg.Now()
	switch {
	case e.Kind == handoff.Seen, e.Kind == handoff.Read && e.Outcome == handoff.OK, e.Kind == handoff.Wrote && e.Outcome == handoff.OK:
		w.heard = now
	case e.Kind == handoff.Tick && w.machine.Holding() && !w.asking && now.Sub(w.heard) >= silence:
		w.asking = true
		w.start(ctx, w.ask)
	}
}

// ask reads the record as it is now.
func (w *worker) ask(ctx context.Context) letter {
	pm, err := w.get(ctx)
	switch {
	case errors.Is(err, errNoRecord):
		return letter{handoff.Event{Kind: handoff.Tick}, func() { w.gone = true }}
	case err != nil:
		w.log.Warn("cannot read the record of the move; what is held stays held", "err", err)
		return letter{handoff.Event{Kind: handoff.Tick}, func() { w.asking, w.heard = false, w.d.cfg.Now() }}
	}
	return letter{handoff.Event{Kind: handoff.Seen, Record: RecordOf(pm)}, func() { w.asking = false; w.keep(pm) }}
}

// follow notes what has become known by the last step.
func (w *worker) follow(before, now handoff.Record) {
	if before.Decision != now.Decision {
		w.log.Info("decided", "decision", now.Decision)
	}
	// Once the machine is done: no fence is left, and no create waits that it has to answer.
	if w.role == RoleTarget && now.Target.Resumed && w.machine.Done() && !w.arrived {
		w.arrived = w.arrive()
	}
	if now.Target.Resumed && w.ackedAt.IsZero() {
		w.ackedAt = w.d.cfg.Now()
		if f := w.frozenFor(); w.role == RoleSource && f > 0 && !now.Source.Ended {
			w.d.metrics.wasFrozen(f)
		}
	}
}

func (w *worker) frozenFor() time.Duration {
	if w.frozenAt.IsZero() || w.ackedAt.IsZero() {
		return 0
	}
	return w.ackedAt.Sub(w.frozenAt)
}

func (w *worker) report() {
	r := w.machine.Record()
	o := Moved
	switch {
	case r.Returned:
		o = Returned
	case r.Lost:
		o = Lost
	case r.Decision == handoff.Aborted:
		o = Aborted
	}
	w.d.metrics.ended(w.role, o)
	w.log.Info("the move has ended on this node", "outcome", string(o))
	if w.d.cfg.Ended != nil {
		w.d.cfg.Ended(Report{Move: w.move, Role: w.role, Outcome: o, Record: r})
	}
}

// leave is false if wrappers are still connected, for they may yet need an answer, or if the
// arrival is not noted yet.
func (w *worker) leave() bool {
	if w.role == RoleSource {
		return true
	}
	if w.machine.Record().Target.Resumed && !w.arrived {
		return false
	}
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	return len(w.d.creates[w.move.Target.UID]) == 0
}

// note adds a step to this node's part of the timeline; it is written with the next change.
func (w *worker) note(step string, at time.Time) {
	w.steps = append(w.steps, v1alpha1.TimelineEntry{Step: step, By: w.d.cfg.Node, At: metav1.NewMicroTime(at)})
}
