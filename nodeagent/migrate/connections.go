package migrate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/movable"
)

// Keep is the old address of a pod that asks to take its connections along.
type Keep struct {
	// Old are the source pod's addresses, the primary one first; New is the other end of the
	// tunnel to them, the replacement's own address of the same family. Not valid: not known yet.
	Old []netip.Addr
	New netip.Addr
	// For is how long after the move the old address is kept at most.
	For time.Duration
	// Earlier are addresses that the pod had before, and that go along, too.
	Earlier []Earlier
	// Until is when that is over, by the clock of drover-controller, which counts from when it saw that
	// the target runs. Zero: it has not yet.
	Until time.Time
}

// Earlier is an address that the pod has by the lease of an earlier move.
type Earlier struct {
	// UID and Migration are those of the PodMigration by which the pod left it, Node where it is held.
	UID, Migration, Node string
	// Old and For are as those of Keep.
	Old []netip.Addr
	For time.Duration
}

// Left is the move for whose Keep.For from now on the source may send on what comes for its old
// address: no later than the lease ends, whenever that begins. 0: no more.
func (m Move) Left(now time.Time) Move {
	if k := &m.Keep; !k.Until.IsZero() {
		k.For = max(0, min(k.For, k.Until.Sub(now)))
	}
	return m
}

// keepOf is what the record says; addresses that are none are left out, and no lease is made of them.
func keepOf(c *v1alpha1.ConnectionsStatus) (k Keep) {
	if c == nil {
		return Keep{}
	}
	k.Old = addressesOf(c.OldAddresses)
	for _, e := range c.Earlier {
		k.Earlier = append(k.Earlier, Earlier{UID: string(e.UID), Migration: e.Migration, Node: e.Node, Old: addressesOf(e.Addresses), For: e.KeepFor.Duration})
	}
	k.New, _ = netip.ParseAddr(c.NewAddress)
	k.For = c.KeepFor.Duration
	if c.Until != nil {
		k.Until = c.Until.Add(-v1alpha1.LeaseMargin)
	}
	return k
}

func addressesOf(texts []string) (all []netip.Addr) {
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// Addresses has old addresses go along. Every method but Answer and Probe returns soon, and may be
// called again, also by an agent that was restarted. docs/decisions/0034 tells what they do.
type Addresses interface {
	// Find finds the sandbox of m's target, for which a create waits, and gives its address of the
	// family of m.Keep.Old[0].
	Find(m Move) (netip.Addr, error)
	// Answer answers the probes of m's target until ctx ends, then returns nil. An error: this node
	// can have no part in it.
	Answer(ctx context.Context, m Move) error
	// Probe asks m's source, and who holds earlier addresses, until all that the network must carry has come
	// back, or ctx ends: then the error says what has not.
	Probe(ctx context.Context, m Move) error
	// Part keeps everything from the source's sandbox from now on, so that the pod, which runs, comes to the
	// end of what it is at.
	Part(m Move) error
	// Hold keeps all in it, too, when the pod is frozen.
	Hold(m Move) error
	// Arrive gives the old addresses to the target's sandbox, held.
	Arrive(m Move) error
	// Open lets packets of the old addresses through at the target, for m.Keep.For from now on; of earlier
	// ones for as long as they have, if their leases are found to live. Not found out soon: they follow.
	Open(ctx context.Context, m Move) error
	// Forward sends what comes to the source's sandbox on to the target's, for m.Keep.For at most. The source's
	// processes may be there still, frozen for good.
	Forward(m Move) error
	// Clear takes away what there is in the sandbox of m's pod on that side. Nothing there, or no
	// sandbox: nil.
	Clear(m Move, role Role) error
}

// Holding keeps what comes from a pod right before what it stands in front of freezes the pod, which then has to
// hold its address (checkpoint.Config.Frozen).
type Holding struct {
	Checkpointer
	Addresses Addresses
}

// Dump implements Checkpointer. When it fails the address may be held, or half.
func (h Holding) Dump(ctx context.Context, m Move) (Dumped, error) {
	if m.KeepsConnections {
		if err := h.Addresses.Part(m); err != nil {
			return Dumped{}, fmt.Errorf("keep what is for %v from the pod: %w", m.Keep.Old, err)
		}
	}
	return h.Checkpointer.Dump(ctx, m)
}

// errStay: no address of this node's pods goes along.
var errStay = errors.New("this node does not have addresses go along")

// stay is for agents without Addresses.
type stay struct{}

func (stay) Find(Move) (netip.Addr, error)      { return netip.Addr{}, errStay }
func (stay) Answer(context.Context, Move) error { return errStay }
func (stay) Probe(context.Context, Move) error  { return errStay }
func (stay) Part(Move) error                    { return errStay }
func (stay) Hold(Move) error                    { return errStay }
func (stay) Arrive(Move) error                  { return errStay }
func (stay) Open(context.Context, Move) error   { return errStay }
func (stay) Forward(Move) error                 { return errStay }
func (stay) Clear(Move, Role) error             { return nil }

// verdict is what this side has found out about the connections.
type verdict struct {
	state           v1alpha1.ConnectionsState
	reason, message string
}

func closed(reason string, err error) *verdict {
	return &verdict{v1alpha1.ConnectionsClosed, reason, err.Error()}
}

// record writes the verdict down if none is there yet. The source never says that they are kept.
func (v *verdict) record(s *v1alpha1.PodMigrationStatus, now time.Time) {
	c := s.Connections
	if v == nil || c == nil || c.State != v1alpha1.ConnectionsProbing {
		return
	}
	c.State, c.Reason, c.Message = v.state, v.reason, v1alpha1.Cut(v.message)
	is := metav1.ConditionFalse
	if v.state == v1alpha1.ConnectionsKept {
		is = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: v1alpha1.ConditionConnectionsKept, Status: is,
		Reason: v.reason, Message: c.Message, LastTransitionTime: metav1.NewTime(now)})
}

// connections is a worker's part in what becomes of them. Its fields belong to the worker's
// goroutine, but for settled, which is closed once the record says it, and what is set before.
type connections struct {
	settled  chan struct{}
	keeps    bool
	keep     Keep
	required string // why a pod that wants them kept is not to be moved; "": it may be
	known    bool   // settled is closed, or about to be
	// address is the new sandbox's, of the target.
	address netip.Addr
	verdict *verdict
	writing bool
	// forwarding: what comes for the source's address is about to be sent on; forwarded: it is.
	forwarding, forwarded bool
	// stop ends what is being asked or answered, and returns when that has ended; nil: nothing was.
	stop func()
}

// learn takes in what the record says. keeps and the others are of what is final alone.
func (w *worker) learn(pm *v1alpha1.PodMigration) {
	c := pm.Status.Connections
	if w.connections.known || c != nil && c.State == v1alpha1.ConnectionsProbing {
		return
	}
	w.connections.known = true
	w.connections.keep = keepOf(c)
	w.connections.keeps = c != nil && c.State == v1alpha1.ConnectionsKept
	if c != nil && c.Required && !w.connections.keeps {
		w.connections.required = v1alpha1.Cut("the pod's open connections would be closed, and it is not to be moved then: " + c.Message)
	}
	stop := w.connections.stop
	if stop == nil {
		close(w.connections.settled)
		return
	}
	w.d.wg.Add(1)
	go func() {
		defer w.d.wg.Done()
		stop() // the tunnel takes the place of what answers
		close(w.connections.settled)
	}()
}

// moving is the move with what is known of its connections.
func (w *worker) moving() Move {
	m := w.move
	select {
	case <-w.connections.settled:
		m.KeepsConnections, m.Keep = w.connections.keeps, w.connections.keep
	default:
	}
	return m
}

// meet finds the address to which the connections are to go, when the create is announced.
func (w *worker) meet(pm *v1alpha1.PodMigration) {
	c := &w.connections
	if c.known || c.address.IsValid() || pm.Status.Connections == nil {
		return
	}
	var err error
	if c.address, err = w.d.ports.Addresses.Find(MoveOf(pm)); err != nil {
		c.verdict = closed(v1alpha1.ReasonUnable, fmt.Errorf("node %s: find the new sandbox's address: %w", w.d.cfg.Node, err))
	}
}

// newest is the record as it was heard of last; nil: it is not at hand.
func (w *worker) newest() *v1alpha1.PodMigration { return w.objects[w.machine.Record().Version] }

// weigh has the connections probed once the create waits, and what comes of it written down.
func (w *worker) weigh(ctx context.Context) {
	c, pm := &w.connections, w.newest()
	if c.known || pm == nil || !pm.Status.Target.Waiting || pm.Status.Decision != v1alpha1.Undecided {
		return
	}
	if c.stop == nil && c.verdict == nil {
		m := MoveOf(pm)
		switch {
		case !m.Keep.New.IsValid():
			// Its agent is of a version that knows nothing of this, and will not say so.
			c.verdict = closed(v1alpha1.ReasonUnable, fmt.Errorf("the agent of node %s says that the create waits, and not where", m.Target.Node))
		case w.role == RoleTarget:
			w.inquire(ctx, func(ctx context.Context) *verdict { return w.probe(ctx, m) })
		default:
			w.inquire(ctx, func(ctx context.Context) *verdict { return w.respond(ctx, m) })
		}
	}
	w.rule(pm)
}

// inquire begins what ends in a verdict, or in none.
func (w *worker) inquire(ctx context.Context, f func(context.Context) *verdict) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	w.connections.stop = func() { cancel(); <-ended }
	w.start(ctx, func(ctx context.Context) letter {
		defer cancel()
		defer close(ended)
		v := f(ctx)
		return letter{handoff.Event{Kind: handoff.Tick}, func() { w.connections.verdict = v }}
	})
}

// probe is the target's word. The sandbox is made ready before it is given: what this kernel cannot
// do shows before anything is frozen.
func (w *worker) probe(ctx context.Context, m Move) *verdict {
	a := w.d.ports.Addresses
	ctx, done := context.WithTimeoutCause(ctx, w.d.cfg.ProbeTime, fmt.Errorf("not within %v", w.d.cfg.ProbeTime))
	defer done()
	if err := a.Probe(ctx, m); err != nil {
		return closed(v1alpha1.ReasonNotCarried, err)
	}
	if err := a.Arrive(m); err != nil {
		return closed(v1alpha1.ReasonUnable, fmt.Errorf("node %s: %w", w.d.cfg.Node, errors.Join(err, a.Clear(m, RoleTarget))))
	}
	return &verdict{v1alpha1.ConnectionsKept, v1alpha1.ReasonProbed,
		fmt.Sprintf("the network carries what is for %v on to %v, and back", m.Keep.Old, m.Keep.New)}
}

// respond answers the target until the record says what became of it.
func (w *worker) respond(ctx context.Context, m Move) *verdict {
	if err := w.d.ports.Addresses.Answer(ctx, m); err != nil && ctx.Err() == nil {
		return closed(v1alpha1.ReasonUnable, fmt.Errorf("node %s: %w", w.d.cfg.Node, err))
	}
	return nil
}

// rule writes the verdict down. Whoever has changed the record meanwhile comes first.
func (w *worker) rule(pm *v1alpha1.PodMigration) {
	c := &w.connections
	if c.verdict == nil || c.writing {
		return
	}
	c.writing = true
	next := pm.DeepCopy()
	c.verdict.record(&next.Status, w.d.cfg.Now())
	w.start(w.ctx, func(ctx context.Context) letter {
		ctx, cancel := context.WithTimeout(ctx, w.d.cfg.CallTimeout)
		defer cancel()
		now, outcome, err := w.d.ports.Records.UpdateStatus(ctx, next)
		if outcome != handoff.OK {
			w.log.Info("what becomes of the connections was not written; trying again", "outcome", string(outcome), "err", err)
			if outcome == handoff.Conflict && !apierrors.IsConflict(err) {
				w.pause(w.ctx, w.d.cfg.Tick) // nothing newer is there to be read
			}
			if now, err = w.get(ctx); err != nil {
				w.pause(w.ctx, w.d.cfg.Tick)
				return letter{handoff.Event{Kind: handoff.Tick}, func() { c.writing = false }}
			}
		}
		return letter{handoff.Event{Kind: handoff.Seen, Record: RecordOf(now)}, func() { c.writing = false; w.keep(now) }}
	})
}

// agreed waits until the record says what becomes of the connections. Nothing is frozen yet.
func (w *worker) agreed(ctx context.Context) (Move, letter, bool) {
	select {
	case <-ctx.Done():
		return Move{}, w.answer(handoff.OpDump, context.Cause(ctx)), false
	case <-w.connections.settled:
	}
	if why := w.connections.required; why != "" {
		l := w.answer(handoff.OpDump, errors.New(why))
		l.before = func() { w.judgement.against = movable.Finding{Reason: ReasonConnectionsNotKept, Message: why} }
		return Move{}, l, false
	}
	return w.moving(), letter{}, true
}

// ReasonConnectionsNotKept is of an abort for the sake of a pod whose connections must be kept.
const ReasonConnectionsNotKept = "ConnectionsNotKept"

// clearing gives what takes away what was done to this side's sandbox, for an action to call.
func (w *worker) clearing() func() error {
	a, stop := w.d.ports.Addresses, w.connections.stop
	return func() error {
		if stop != nil {
			stop() // it could do more after its end
		}
		return a.Clear(w.moving(), w.role)
	}
}
