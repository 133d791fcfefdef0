package controller

import (
	"context"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/drover-project/drover/api/v1alpha1"
)

// needsSource is handoff.Record.Needed: the copy may still ask for memory of the source's processes.
func needsSource(m *v1alpha1.PodMigration) bool {
	return m.Spec.PostCopy && !m.Status.Target.Loaded && !m.Status.Lost
}

// awaitLoaded waits for a word that all of the memory is there, and says it of a copy whose node is gone, as the
// source's, so that nobody is left who would. A deletion of the source's pod counts for both
// meanwhile; a replacement that goes has nothing left to ask for, and its agent says so.
func (r *Reconciler) awaitLoaded(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (ctrl.Result, error) {
	if changed, err := r.forfeit(ctx, m, f); changed || err != nil {
		return ctrl.Result{RequeueAfter: again}, err
	}
	if f.SourceNode == nil && f.TargetNode == nil {
		m.Status.Target.Loaded = true
		note(m, f.Now, stepLoaded, "nodes "+m.Status.Source.Node+" and "+m.Status.Target.Node+" are gone from the cluster: nobody asks for memory any more")
		return ctrl.Result{RequeueAfter: again}, r.save(ctx, m)
	}
	p := f.replacement(m)
	if p != nil && p.Labels[v1alpha1.LabelReplacement] != "" && deletedByUser(m) {
		why := deletedBefore(m)
		if setCondition(m, f.Now, v1alpha1.ConditionComplete, false, why.Reason, why.Message) {
			if err := r.save(ctx, m); err != nil {
				return ctrl.Result{}, err
			}
		}
		return r.remove(ctx, p)
	}
	if p == nil || p.DeletionTimestamp != nil {
		return r.wait()
	}
	return r.await(ctx, m, f, refuse("WaitingForMemory", "the pod runs on node %s; what is left of its memory comes from node %s, where pod %s is held until then",
		m.Status.Target.Node, m.Status.Source.Node, m.Status.Source.PodName))
}

// deletedBefore is why a replacement goes with its source.
func deletedBefore(m *v1alpha1.PodMigration) *Refusal {
	return refuse(ReasonPodTerminating, "moved to node %s, but pod %s was deleted before the owner had the replacement: a deletion counts for both",
		m.Status.Target.Node, m.Status.Source.PodName)
}

// forfeit says of a source's node that is gone that the memory is lost which the copy has not fetched.
func (r *Reconciler) forfeit(ctx context.Context, m *v1alpha1.PodMigration, f Facts) (changed bool, _ error) {
	s := &m.Status.Source
	if f.SourceNode != nil || s.Forfeited || !needsSource(m) {
		return false, nil
	}
	s.Forfeited = true
	note(m, f.Now, "MemoryLost", "node "+s.Node+" is gone from the cluster, and with it the memory that the copy had not fetched")
	return true, r.save(ctx, m)
}

// stepLoaded is the step of the timeline that says that all of the memory is there.
const stepLoaded = "MemoryLoaded"

// sinceWhole is how long ago the hand-over could begin: at the decision, or with postCopy when all of the memory was there.
func sinceWhole(m *v1alpha1.PodMigration, now time.Time) time.Duration {
	d := sinceDecided(m, now)
	for _, e := range m.Status.Timeline {
		if e.Step == stepLoaded {
			d = min(d, now.Sub(e.At.Time))
		}
	}
	return d
}
