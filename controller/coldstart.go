package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Reasons of the condition StartedCold.
const (
	ReasonOwnerAsked = "OwnerAsked"
	ReasonNotStarted = "NotStarted"
)

// admitRestart refuses a wish about failed restores that nobody would carry out.
func admitRestart(_ *v1alpha1.PodMigration, f Facts) *Refusal {
	v, has := f.Pod.Annotations[v1alpha1.AnnotationOnRestoreFailure]
	if !has || v == v1alpha1.OnRestoreFailureRestart {
		return nil
	}
	return refuse(ReasonMalformedAnnotation, "pod %s/%s: annotation %s is %q: want %q or none",
		f.Pod.Namespace, f.Pod.Name, v1alpha1.AnnotationOnRestoreFailure, v, v1alpha1.OnRestoreFailureRestart)
}

// neverAgain tells that neither copy of a committed pod can ever run again. The target's is
// dead by its agent's word or with its node. The source's object is gone, and so are its
// processes: by its agent's word, or with its node, or with that node's kernel. A source that is only held would
// be given its pod back; one that somebody deleted was not to go on.
func neverAgain(m *v1alpha1.PodMigration, f Facts) bool {
	s, t := &m.Status.Source, &m.Status.Target
	if m.Status.Decision != v1alpha1.Commit || m.Status.Returned || t.Resumed || deletedByUser(m) {
		return false
	}
	target := t.Failed || m.Status.Lost || f.TargetNode == nil
	return target && f.source(m) == nil && (s.Ended || f.SourceNode == nil || sourceBooted(m, f))
}

// startCold makes a new pod, empty, in the place of one whose memory is lost, if its owner
// has asked for that. Pods that belong to a controller get theirs from it. What is needed
// is read off the replacement, so this comes before that is deleted. done: go on.
func (r *Reconciler) startCold(ctx context.Context, m *v1alpha1.PodMigration, f Facts, p *corev1.Pod) (done bool, _ ctrl.Result, _ error) {
	fresh, err := coldPod(m, p)
	if err != nil || fresh == nil || coldStart(m) != nil || deletedByUser(m) {
		return true, ctrl.Result{}, err
	}
	if !neverAgain(m, f) {
		result, err := r.await(ctx, m, f, refuse("WaitingForSource",
			"the memory of pod %s is lost; waiting until its object on node %s is gone, to start it anew", m.Status.Source.PodName, m.Status.Source.Node))
		return false, result, err
	}
	err = r.Writer.Create(ctx, fresh)
	says := fmt.Sprintf("the memory of pod %s is lost on both nodes; it was started anew, empty, for its annotation %s says so",
		m.Status.Source.PodName, v1alpha1.AnnotationOnRestoreFailure)
	mine := f.Pod != nil && f.Pod.Annotations[v1alpha1.AnnotationStartedCold] == string(m.UID)
	switch {
	case err == nil, apierrors.IsAlreadyExists(err) && mine:
		setCondition(m, f.Now, v1alpha1.ConditionStartedCold, true, ReasonOwnerAsked, says)
	case apierrors.IsAlreadyExists(err) && f.Pod == nil:
		return false, ctrl.Result{RequeueAfter: again}, nil // look whose it is
	case apierrors.IsAlreadyExists(err), apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		says = fmt.Sprintf("the memory of pod %s is lost on both nodes, and it could not be started anew: %v", m.Status.Source.PodName, err)
		setCondition(m, f.Now, v1alpha1.ConditionStartedCold, false, ReasonNotStarted, says)
	default:
		return false, ctrl.Result{}, fmt.Errorf("start pod %s/%s anew: %w", fresh.Namespace, fresh.Name, err)
	}
	note(m, f.Now, v1alpha1.ConditionStartedCold, says)
	if err := r.save(ctx, m); err != nil {
		return false, ctrl.Result{}, err
	}
	r.event(m, corev1.EventTypeWarning, "StartedCold", says, fresh)
	return true, ctrl.Result{}, nil
}

func coldStart(m *v1alpha1.PodMigration) *metav1.Condition {
	return meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionStartedCold)
}

// coldPod is the source as its owner made it, under its name; nil: it is not to be started
// anew, or another makes it.
func coldPod(m *v1alpha1.PodMigration, p *corev1.Pod) (*corev1.Pod, error) {
	if p.Annotations[v1alpha1.AnnotationOnRestoreFailure] != v1alpha1.OnRestoreFailureRestart {
		return nil, nil
	}
	hand, err := whatToHand(m, p, nil)
	if err != nil || ownerIn(hand) != nil {
		return nil, err
	}
	fresh := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: m.Status.Source.PodName, Labels: hand.Labels, OwnerReferences: hand.Owners,
			Annotations: map[string]string{v1alpha1.AnnotationStartedCold: string(m.UID)},
		},
		Spec: *p.Spec.DeepCopy(),
	}
	for k, v := range p.Annotations {
		if !strings.HasPrefix(k, "drover.dev/") || k == v1alpha1.AnnotationMigrate || k == v1alpha1.AnnotationPeers || k == v1alpha1.AnnotationOnRestoreFailure ||
			k == v1alpha1.AnnotationKeepConnections || k == v1alpha1.AnnotationKeepConnectionsRequired ||
			k == v1alpha1.AnnotationLogPattern || strings.HasPrefix(k, v1alpha1.AnnotationLogPattern+".") {
			fresh.Annotations[k] = v
		}
	}
	if hand.Cost != "" {
		fresh.Annotations[corev1.PodDeletionCost] = hand.Cost
	}
	s := &fresh.Spec
	s.NodeName, s.Priority, s.PreemptionPolicy, s.Overhead = "", nil, nil, nil
	if len(hand.Init) > 0 {
		if err := json.Unmarshal(hand.Init, &s.InitContainers); err != nil {
			return nil, fmt.Errorf("init containers of pod %s/%s: %w", p.Namespace, fresh.Name, err)
		}
	}
	dropPin(s, p.Annotations[v1alpha1.AnnotationPinned])
	return fresh, nil
}

// dropPin takes a move's node requirement out of the spec.
func dropPin(s *corev1.PodSpec, was string) {
	r, ok := parsePin(was)
	if !ok {
		return
	}
	if terms := unpin(requiredTerms(s), r); len(terms) > 0 {
		setRequiredTerms(s, terms)
	} else if s.Affinity != nil && s.Affinity.NodeAffinity != nil {
		s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = nil
	}
}
