package controller

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// remedies are what to do about the reasons that this package finds.
var remedies = map[string]string{
	ReasonPaused:              "patch ConfigMap " + v1alpha1.PauseConfigMap + " to paused: \"false\" when moves are wanted again",
	ReasonPodNotFound:         "look for its name and namespace",
	ReasonPodReplaced:         "order the move anew, for the pod that is there now",
	ReasonAlreadyMigrating:    "wait for that PodMigration, or delete it: that aborts it",
	ReasonMalformedAnnotation: "put the annotation right",
	ReasonOwnerScaledToZero:   "the pod is about to be deleted",
	ReasonOwnerScaledDown:     "the pod is about to be deleted",
	ReasonOwnerSuspended:      "resume the Job first",
	ReasonOwnerFinished:       "the pod is about to end",
	ReasonRollingUpdate:       "wait for the end of the rolling update",
	ReasonNoAgent:             "see to the agent's pod on that node",
	ReasonNodeNotReady:        "see to that node",
	ReasonUnschedulable:       "choose another target, or uncordon it",
	ReasonSameNode:            "choose another target",
}

// found turns a refusal, or none, into findings.
func found(r *Refusal) []movable.Finding {
	if r == nil {
		return nil
	}
	return []movable.Finding{{Reason: r.Reason, Message: r.Message, Remedy: remedies[r.Reason]}}
}

// Check gives all that the controller would find against a move of the pod, to that node or,
// if it is empty, to any. It reads what the controller reads and changes nothing.
func Check(ctx context.Context, reader client.Reader, c Config, namespace, pod, to string) ([]movable.Finding, error) {
	r := &Reconciler{Reader: reader, Config: c.WithDefaults(), Now: time.Now}
	wish := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace},
		Spec:       v1alpha1.PodMigrationSpec{PodName: pod, TargetNode: to},
	}
	f, err := r.look(ctx, wish)
	if err != nil {
		return nil, err
	}
	return Judge(wish, f), nil
}

// lookClaims reads the claims of the pod's volumes, which only a judgement wants.
func (r *Reconciler) lookClaims(ctx context.Context, m *v1alpha1.PodMigration, f *Facts) error {
	if accepted(m) || f.Pod == nil {
		return nil
	}
	for _, v := range f.Pod.Spec.Volumes {
		name := ""
		switch {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			name = f.Pod.Name + "-" + v.Name
		}
		var claim corev1.PersistentVolumeClaim
		found, err := r.get(ctx, m.Namespace, name, &claim)
		if err != nil {
			return err
		}
		if found {
			if f.Claims == nil {
				f.Claims = movable.Claims{}
			}
			f.Claims[name] = &claim
		}
	}
	return nil
}
