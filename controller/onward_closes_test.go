package controller

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Without the switch a pod that has an old address still cannot take it along on its next move, which goes on
// without, or not at all; and the first lease ends with it.
func TestSecondMoveWithoutTheSwitch(t *testing.T) {
	for _, c := range []struct {
		story    string
		required bool
	}{{"lease", false}, {"lease of a bare pod", false}, {"lease", true}} {
		w := movesOn(t, c.story, fault{})
		w.r.Config.CarryEarlierAddresses = false
		w.closes(c.required, ReasonLeaseHeld)
	}
}

// A second move that cannot keep connections closes those of all addresses, or is refused if they are required; what
// holds the earlier ones goes.
func TestSecondMoveThatCloses(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*world)
		reason string
	}{
		"too many addresses": {func(w *world) { w.holds(mostEarlier) }, ReasonLeaseHeld},
		"by post-copy": {func(w *world) {
			m := w.record("move-2")
			m.Spec.PostCopy = true
			w.must(w.api.Update(context.Background(), m))
		}, ReasonPostCopy},
	} {
		for _, required := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, required %v", name, required), func(t *testing.T) {
				w := movesOn(t, "lease", fault{})
				c.before(w)
				w.closes(required, c.reason)
				for _, m := range w.moves() {
					if m.Name != "move-2" && leasing(&m) != required {
						t.Errorf("the lease of %s lives: %v", m.Name, leasing(&m))
					}
				}
			})
		}
	}
	t.Run("not carried", func(t *testing.T) {
		w := movesOn(t, "lease", fault{})
		w.notCarried = true
		w.closes(false, v1alpha1.ReasonNotCarried)
	})
	t.Run("not carried, required", func(t *testing.T) {
		w := movesOn(t, "lease", fault{})
		p := w.pod(newName)
		p.Annotations[v1alpha1.AnnotationKeepConnectionsRequired] = "true"
		w.must(w.api.Update(context.Background(), p))
		w.notCarried = true
		w.until("the second move has ended", func() bool { return v1alpha1.Finished(w.record("move-2")) })
		if m := w.record("move-2"); m.Status.Phase != v1alpha1.PhaseAborted || !leasing(w.move()) || w.pod(newName) == nil {
			t.Errorf("phase %s, %+v; the first lease: %+v", m.Status.Phase, m.Status.Conditions, w.move().Status.Connections)
		}
	})
}

// holds gives the pod that has the address of the first move as many more, as if by moves before that.
func (w *world) holds(many int) {
	w.t.Helper()
	ctx := context.Background()
	for i := range many {
		m, p := w.move(), w.pod(oldName)
		m.Name, m.UID, m.ResourceVersion = fmt.Sprintf("before-%d", i), types.UID(fmt.Sprintf("uid-before-%d", i)), ""
		p.Name, p.UID, p.ResourceVersion = fmt.Sprintf("holder-%d", i), types.UID(fmt.Sprintf("uid-holder-%d", i)), ""
		p.Labels[v1alpha1.LabelLease], p.OwnerReferences = string(m.UID), []metav1.OwnerReference{leaseOwner(m)}
		m.Spec.PodName, m.Status.Source.PodName, m.Status.Source.PodUID = p.Name, p.Name, p.UID
		status, of := *m.Status.DeepCopy(), *p.Status.DeepCopy()
		w.must(w.api.Create(ctx, m))
		w.must(w.api.Create(ctx, p))
		m.Status, p.Status = status, of
		w.must(w.api.Status().Update(ctx, m))
		w.must(w.api.Status().Update(ctx, p))
	}
}

// closes lets a second move that was just ordered come to its end: it is to close the pod's connections for that
// reason, or to be refused for it if they are required.
func (w *world) closes(required bool, reason string) {
	t := w.t
	t.Helper()
	if required {
		p := w.pod(newName)
		p.Annotations[v1alpha1.AnnotationKeepConnectionsRequired] = "true"
		w.must(w.api.Update(context.Background(), p))
	}
	w.until("the second move has ended", func() bool { return v1alpha1.Finished(w.record("move-2")) })
	second := w.record("move-2")
	if required {
		w.turn()
		if c := meta.FindStatusCondition(second.Status.Conditions, v1alpha1.ConditionAccepted); second.Status.Phase != v1alpha1.PhaseRejected || c == nil || c.Reason != reason || !leasing(w.move()) {
			t.Errorf("required: phase %s, conditions %+v, first lease %+v", second.Status.Phase, second.Status.Conditions, w.move().Status.Connections)
		}
		return
	}
	if c := second.Status.Connections; second.Status.Phase != v1alpha1.PhaseCompleted || c.State != v1alpha1.ConnectionsClosed || c.Reason != reason {
		t.Errorf("phase %s, want connections closed for %s: %+v", second.Status.Phase, reason, c)
	}
	w.until("the pods of before are gone", func() bool {
		return w.pod(oldName) == nil && w.pod(newName) == nil && w.pod("holder-0") == nil && w.pod(fmt.Sprintf("holder-%d", mostEarlier-1)) == nil
	})
	if c := w.move().Status.Connections; c.LeaseReason != ReasonReplacementGone {
		t.Errorf("the first lease: %+v", c)
	}
}
