package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// create does what the API server does beside: UID and time.
func (w *world) create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	var options client.CreateOptions
	options.ApplyOptions(opts)
	if len(options.DryRun) > 0 {
		return w.refusal(o.(*corev1.Pod))
	}
	o.SetUID(types.UID(fmt.Sprintf("uid-%s-%d", o.GetName(), w.made)))
	o.SetCreationTimestamp(metav1.NewTime(w.now))
	if o.GetAnnotations()[v1alpha1.AnnotationStartedCold] != "" {
		if err := w.api.Create(ctx, o); err != nil {
			return err
		}
		w.coldStart(o)
		return nil
	}
	if p, is := o.(*corev1.Pod); is {
		w.labelled(p)
	}
	if err := w.api.Create(ctx, o); err != nil {
		return err
	}
	if _, isPod := o.(*corev1.Pod); !isPod {
		return nil
	}
	if w.made++; w.made > 1+w.later {
		w.t.Errorf("a second replacement was made: %s", o.GetName())
	}
	return nil
}

// labelled: the replacement has its mark and all labels but the one that tells its owner.
func (w *world) labelled(p *corev1.Pod) {
	hand, err := whatToHand(nil, p, nil)
	w.must(err)
	lacks := 0
	for k, v := range hand.Labels {
		if p.Labels[k] != v {
			lacks++
		}
	}
	if p.Labels[v1alpha1.LabelReplacement] == "" || lacks > 1 && !(w.apart && p.Name == w.old) {
		w.t.Errorf("labels of replacement %s: %v, want the mark and all but one of %v", p.Name, p.Labels, hand.Labels)
	}
}

// refusal is what the chart's policy says to a creation by others than the controller.
func (w *world) refusal(p *corev1.Pod) error {
	if w.refuses != nil {
		return w.refuses
	}
	if w.held(nameHold(p.Namespace, p.Name)) || w.held(ownerHold(ownerUID(p))) {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, p.Name, errors.New(heldMark))
	}
	return nil
}

// patched holds the precondition on the UID, which the fake client does not know.
func (w *world) patched(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	var options client.PatchOptions
	options.ApplyOptions(opts)
	body, err := p.Data(o)
	if err != nil {
		return err
	}
	var meta struct {
		Metadata struct {
			UID             types.UID `json:"uid"`
			ResourceVersion string    `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &meta); err != nil {
		return err
	}
	var now corev1.Pod
	if err := w.api.Get(ctx, client.ObjectKeyFromObject(o), &now); err != nil {
		return err
	}
	if meta.Metadata.UID == "" && meta.Metadata.ResourceVersion == "" {
		w.t.Errorf("patch of pod %s without any guard: %s", o.GetName(), body)
	}
	if u := meta.Metadata.UID; u != "" && u != now.UID {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, o.GetName(), errors.New("precondition: UID"))
	}
	if o.GetName() == w.old && strings.Contains(string(body), "ownerReferences") && w.refusesRelease != nil {
		return w.refusesRelease
	}
	if strings.Contains(string(body), pauseImage) && w.refusesImage != nil {
		return w.refusesImage
	}
	if len(options.DryRun) > 0 {
		return w.answers(o.(*corev1.Pod), body)
	}
	if err := w.api.Patch(ctx, o, p); err != nil {
		return err
	}
	if is := o.(*corev1.Pod); w.mirrors && is.Spec.Containers[0].Image == pauseImage {
		w.mirror(is)
		return w.api.Update(ctx, is)
	}
	if _, marked := o.GetLabels()[v1alpha1.LabelLease]; marked && (w.relabels || w.strips) {
		if w.relabels {
			o.GetLabels()["app"] = "web"
		} else {
			delete(o.GetLabels(), v1alpha1.LabelLease)
		}
		return w.api.Update(ctx, o)
	}
	w.leasePatched(&now, o.(*corev1.Pod))
	if o.GetLabels()[v1alpha1.LabelReplacement] == "" && now.Labels[v1alpha1.LabelReplacement] != "" {
		w.adopting = o.GetUID()
		w.adopted(controllerOf(o) != nil)
	}
	return nil
}

// answers is what the API server says to the dry run of a strategic merge patch.
func (w *world) answers(p *corev1.Pod, patch []byte) error {
	was, err := json.Marshal(p)
	if err != nil {
		return err
	}
	is, err := strategicpatch.StrategicMergePatch(was, patch, corev1.Pod{})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(is, p); err != nil {
		return err
	}
	if w.mirrors {
		w.mirror(p)
	}
	return nil
}

// mirror does to a pod what a webhook does that has all images come from one registry.
func (w *world) mirror(p *corev1.Pod) {
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].Image = "mirror.example/" + p.Spec.Containers[i].Image
	}
}

// adopted looks at the moment in which the replacement becomes its owner's.
func (w *world) adopted(owned bool) {
	m := w.moveOf(w.adopting)
	if !m.Status.Target.Resumed {
		w.t.Errorf("the replacement was handed over before the target resumed (phase %s)", m.Status.Phase)
	}
	source := w.pod(m.Status.Source.PodName)
	if owned && w.job() != nil {
		if source != nil && !released(m, source) && (ofJob(source) || len(source.Labels) > 0) {
			w.t.Error("the Job was given the replacement while it had the source")
		}
		return
	}
	if w.statefulSet() != nil {
		return // it takes none in place of another
	}
	// The owner does not choose among pods that are terminating.
	if owned && source != nil && !released(m, source) && source.DeletionTimestamp == nil && source.Annotations[corev1.PodDeletionCost] != costFirst {
		w.t.Error("the replacement was handed over while the source was not the first to lose")
	}
	if owned && source != nil && keepsAddress(m) && !released(m, source) && w.maySend(m) && w.now.Before(m.Status.Connections.Until.Add(10*time.Second)) {
		w.t.Error("the owner was given a pod too many, and will delete the source while the target may send from its address")
	}
	if source != nil && leasing(m) && !released(m, source) {
		w.t.Error("the replacement was handed over while its owner could still delete the pod that holds the old address")
	}
}

// moveOf is the move that a replacement belongs to.
func (w *world) moveOf(replacement types.UID) *v1alpha1.PodMigration {
	for _, m := range w.moves() {
		if m.Status.Target.PodUID == replacement {
			return &m
		}
	}
	return w.move()
}

// delete holds the precondition on the UID and sees that no pod goes that must stay.
func (w *world) delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	var options client.DeleteOptions
	options.ApplyOptions(opts)
	if options.Preconditions == nil || options.Preconditions.UID == nil {
		w.t.Errorf("deletion of %s without its UID", o.GetName())
		return nil
	}
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return w.api.Delete(ctx, o, opts...)
	}
	var now corev1.Pod
	if err := w.api.Get(ctx, client.ObjectKeyFromObject(o), &now); err != nil {
		return err
	}
	if now.UID != *options.Preconditions.UID {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, o.GetName(), errors.New("precondition: UID"))
	}
	for _, m := range w.moves() {
		if pod.UID == m.Status.Source.PodUID {
			w.leaseDeleted(&m)
		}
		if pod.UID == m.Status.Target.PodUID {
			w.movedDeleted(&m)
		}
		if pod.UID == m.Status.Source.PodUID && !m.Status.Target.Resumed && !m.Status.Lost && m.Status.Decision != v1alpha1.Abort && !m.Status.Returned {
			w.t.Errorf("the source was deleted before the target resumed (phase %s)", m.Status.Phase)
		}
		if pod.UID == m.Status.Source.PodUID && m.Status.Target.Resumed && needsSource(&m) {
			w.t.Error("the source was deleted while the copy lacks memory")
		}
		if pod.UID == m.Status.Target.PodUID && m.Status.Decision == v1alpha1.Undecided {
			w.t.Error("the replacement was deleted before a decision")
		}
	}
	return w.api.Delete(ctx, o, opts...)
}

// bounded: the record has nothing that the schema has no room for.
func (w *world) bounded(m *v1alpha1.PodMigration) {
	s := &m.Status
	messages, own := []string{s.DecisionMessage, s.ReturnProof, s.LostMessage, s.Target.FailedMessage}, 0
	for _, c := range s.Conditions {
		messages = append(messages, c.Message)
	}
	for _, e := range s.Timeline {
		messages = append(messages, e.Message)
		if e.By == by {
			own++
		}
	}
	for _, says := range messages {
		if len(says) > v1alpha1.MaxMessage {
			w.t.Errorf("a message has %d bytes: %.60s", len(says), says)
		}
	}
	if own > v1alpha1.MaxSteps-2*v1alpha1.MaxNodeSteps {
		w.t.Errorf("the controller wrote %d steps", own)
	}
}

// status holds the rules of the CRD, which the fake client does not know.
func (w *world) status(ctx context.Context, o client.Object) error {
	if b, is := o.(*policyv1.PodDisruptionBudget); is {
		return w.budgetStatus(ctx, b)
	}
	m := o.(*v1alpha1.PodMigration)
	var was v1alpha1.PodMigration
	if err := w.api.Get(ctx, client.ObjectKeyFromObject(o), &was); err != nil {
		return err
	}
	if m.ResourceVersion == "" {
		w.t.Error("a status was written without resourceVersion")
	}
	err := w.api.Status().Update(ctx, o)
	if err != nil {
		return err
	}
	w.bounded(m)
	if was.Status.Decision != v1alpha1.Undecided && was.Status.Decision != m.Status.Decision {
		w.t.Errorf("the decision was changed from %q to %q", was.Status.Decision, m.Status.Decision)
	}
	if m.Status.Decision == v1alpha1.Commit && was.Status.Decision != v1alpha1.Commit {
		w.t.Error("the controller committed")
	}
	s := &m.Status
	if s.Target.Node != "" && was.Status.Target.Node == "" {
		w.entryBeforeAgents(m)
	}
	if v1alpha1.Finished(m) && s.Decision == v1alpha1.Abort && s.Target.Waiting &&
		!(s.Target.Cleaned && (s.Source.Released || w.pod(s.Source.PodName) == nil)) {
		w.t.Error("an abort was called finished before both sides were done")
	}
	if s.Adopted && !s.Target.Resumed {
		w.t.Error("a pod was called adopted before it had resumed")
	}
	if u := was.Status.Target.PodUID; u != "" && u != m.Status.Target.PodUID {
		w.t.Errorf("the replacement was changed from %s to %s", u, m.Status.Target.PodUID)
	}
	return nil
}
