package controller

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// settleAborted takes the replacement away and waits until the source runs on and
// nothing is left on the target.
func (r *Reconciler) settleAborted(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	if p := f.replacement(m); p != nil {
		return r.remove(ctx, p)
	}
	if why := unsettled(m, f, r.Config); why != nil {
		return r.await(ctx, m, f, why)
	}
	if err := r.release(ctx, m, f.source(m)); err != nil {
		return ctrl.Result{}, err
	}
	s := &m.Status
	setCondition(m, f.Now, v1alpha1.ConditionDecided, true, word(s.DecisionReason, "Aborted"), s.DecisionMessage)
	message := fmt.Sprintf("aborted by %s: %s", s.DecisionBy, s.DecisionMessage)
	if p := f.source(m); p != nil && p.DeletionTimestamp == nil {
		message += "; " + afterwards(m, f, p)
	}
	return r.finish(ctx, m, f, Refusal{word(s.DecisionReason, "Aborted"), message})
}

// unsettled tells which side has not said yet that it is done after an abort. Before a
// create waits the source touches nothing and the target has nothing: then an agent that
// is away is not waited for long.
func unsettled(m *v1alpha1.PodMigration, f Facts, c Config) *Refusal {
	s, t := &m.Status.Source, &m.Status.Target
	if !everWaited(m) && (t.Node == "" || sinceDecided(m, f.Now) > c.SettleDeadline) {
		return nil
	}
	if !s.Released && f.source(m) != nil && f.SourceNode != nil {
		return refuse("WaitingForSource", "the agent on node %s has not let pod %s go on yet", s.Node, s.PodName)
	}
	// A node that has booted since keeps nothing of the attempt alive.
	if !t.Cleaned && f.TargetNode != nil && !targetBooted(m, f) {
		return refuse("WaitingForTarget", "the agent on node %s has not cleared the attempt away yet", t.Node)
	}
	return nil
}

// settleReturned ends a move whose target died after the commit: the source has its pod back.
func (r *Reconciler) settleReturned(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	if p := f.replacement(m); p != nil {
		return r.remove(ctx, p)
	}
	source := f.source(m)
	if !m.Status.Source.Released && source != nil && f.SourceNode != nil {
		return r.await(ctx, m, f, refuse("WaitingForSource", "the agent on node %s has not let pod %s go on yet", m.Status.Source.Node, m.Status.Source.PodName))
	}
	if err := r.release(ctx, m, source); err != nil {
		return ctrl.Result{}, err
	}
	message := fmt.Sprintf("committed, then the target was proven dead (%s)", m.Status.ReturnProof)
	if source != nil {
		message += ": " + afterwards(m, f, source)
	}
	return r.finish(ctx, m, f, Refusal{"Returned", message})
}

// afterwards says how the source pod goes on once it was let go: with its memory, or without, if
// its processes ended meanwhile.
func afterwards(m *v1alpha1.PodMigration, f Facts, source *corev1.Pod) string {
	s := &m.Status.Source
	if sourceBooted(m, f) {
		return fmt.Sprintf("node %s was booted during the move: the memory of pod %s is lost, and its containers start anew there, as after any boot", s.Node, s.PodName)
	}
	var ended []string
	for _, c := range s.Containers {
		if movable.RunningID(source, c.Name) != c.ID {
			ended = append(ended, c.Name)
		}
	}
	if len(ended) > 0 {
		return fmt.Sprintf("pod %s is on node %s again, but what ran in its containers (%s) ended during the move, and their memory is lost",
			s.PodName, s.Node, strings.Join(ended, ", "))
	}
	return fmt.Sprintf("pod %s runs on on node %s", s.PodName, s.Node)
}

// sourceBooted tells that the source's node runs another kernel than when the move began.
func sourceBooted(m *v1alpha1.PodMigration, f Facts) bool {
	return booted(f.SourceNode, m.Status.Source.BootID)
}

// targetBooted is the same of the target's.
func targetBooted(m *v1alpha1.PodMigration, f Facts) bool {
	return booted(f.TargetNode, m.Status.Target.BootID)
}

// booted tells that a node says so. One whose object was made anew says nothing until kubelet has.
func booted(n *corev1.Node, was string) bool {
	return n != nil && was != "" && n.Status.NodeInfo.BootID != "" && n.Status.NodeInfo.BootID != was
}

// settleLost ends a move whose target is gone since its copy was starting. Both pods go, as
// pods do whose node is gone, and the owner makes a new one.
func (r *Reconciler) settleLost(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	if source := f.source(m); source != nil {
		return r.removeSource(ctx, m, f, source)
	}
	if p := f.replacement(m); p != nil {
		if done, result, err := r.startCold(ctx, m, f, p); !done || err != nil {
			return result, err
		}
		return r.remove(ctx, p)
	}
	if c := coldStart(m); c != nil {
		return r.finish(ctx, m, f, *refuse("TargetLost", "the memory of pod %s is lost: %s; %s", m.Status.Source.PodName, m.Status.LostMessage, c.Message))
	}
	return r.finish(ctx, m, f, *refuse("TargetLost", "the memory of pod %s is lost: %s; its owner starts anew", m.Status.Source.PodName, m.Status.LostMessage))
}

// awaitResume: committed, not acknowledged. The target resumes, or the source's agent
// proves it dead; the controller does neither. Only if both sides are gone is it over.
func (r *Reconciler) awaitResume(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	sourceLost := f.source(m) == nil || f.SourceNode == nil
	targetLost := m.Status.Target.Failed || f.TargetNode == nil
	if sourceLost && targetLost {
		if p := f.replacement(m); p != nil {
			if done, result, err := r.startCold(ctx, m, f, p); !done || err != nil {
				return result, err
			}
			return r.remove(ctx, p)
		}
		if c := coldStart(m); c != nil {
			return r.finish(ctx, m, f, *refuse("BothGone", "committed, then target %s failed (%s): %s", m.Status.Target.Node, m.Status.Target.FailedMessage, c.Message))
		}
		return r.finish(ctx, m, f, *refuse("BothGone",
			"committed, then target %s failed (%s) and the source is gone: the memory of pod %s is lost",
			m.Status.Target.Node, m.Status.Target.FailedMessage, m.Status.Source.PodName))
	}
	if changed, err := r.forfeit(ctx, m, f); changed || err != nil {
		return ctrl.Result{RequeueAfter: again}, err
	}
	return r.await(ctx, m, f, refuse("WaitingForTarget", "committed; the agent on node %s has not acknowledged yet", m.Status.Target.Node))
}

// await says in the record for whom it waits, once, and looks again.
func (r *Reconciler) await(ctx context.Context, m *v1alpha1.PodMigration, f Facts, why *Refusal) (ctrl.Result, error) {
	if setCondition(m, f.Now, v1alpha1.ConditionComplete, false, why.Reason, why.Message) {
		if err := r.save(ctx, m); err != nil {
			return ctrl.Result{}, err
		}
	}
	return r.wait()
}

// remove deletes this very pod object, at once: what runs of it is ended by the agent.
func (r *Reconciler) remove(ctx context.Context, p *corev1.Pod) (ctrl.Result, error) {
	if p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds == 0 {
		return r.wait() // somebody's finalizer holds the object
	}
	uid := p.UID
	err := r.Writer.Delete(ctx, p, client.GracePeriodSeconds(0), client.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return ctrl.Result{}, fmt.Errorf("delete pod %s/%s (UID %s): %w", p.Namespace, p.Name, uid, err)
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// sweep removes a replacement that appeared after its move had ended without a commit:
// its creation had been asked for by a controller that was then cut off.
func (r *Reconciler) sweep(ctx context.Context, m *v1alpha1.PodMigration) error {
	if m.Status.Decision == v1alpha1.Commit {
		return nil
	}
	var f Facts
	if err := r.lookReplacement(ctx, m, &f); err != nil {
		return err
	}
	p := f.replacement(m)
	if p == nil || p.Labels[v1alpha1.LabelReplacement] == "" {
		return nil
	}
	_, err := r.remove(ctx, p)
	return err
}

// word is s, or the default where nobody gave a reason: a condition needs one.
func word(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
