package controller

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// HandOver is what a replacement gets when it is given to its owner.
type HandOver struct {
	// Labels are the source's, by which Services and the owner know it.
	Labels map[string]string `json:"labels,omitempty"`
	// Owners are the source's owner references.
	Owners []metav1.OwnerReference `json:"owners,omitempty"`
	// Cost is the deletion cost that the user had set; empty: none.
	Cost string `json:"cost,omitempty"`
	// Finalizers by which its owner counts the pod.
	Finalizers []string `json:"finalizers,omitempty"`
	// Init are the source's init containers, if it may have to be started anew.
	Init json.RawMessage `json:"init,omitempty"`
}

// handOverOf reads it off the source.
func handOverOf(source *corev1.Pod) HandOver {
	var first HandOver
	if source.Labels[v1alpha1.LabelReplacement] != "" && json.Unmarshal([]byte(source.Annotations[v1alpha1.AnnotationHandOver]), &first) == nil {
		return first // in a second step: what the first one was to hand over
	}
	h := HandOver{
		Labels: source.Labels,
		Owners: source.OwnerReferences,
		Cost:   source.Annotations[corev1.PodDeletionCost],
	}
	if ofJob(source) && slices.Contains(source.Finalizers, batchv1.JobTrackingFinalizer) {
		h.Finalizers = []string{batchv1.JobTrackingFinalizer}
	}
	if _, asked := source.Annotations[v1alpha1.AnnotationOnRestoreFailure]; asked && len(source.Spec.InitContainers) > 0 {
		h.Init, _ = json.Marshal(source.Spec.InitContainers)
	}
	return h
}

// foreign annotations are others' notes about the old pod object: they are wrong for a
// new one. A user's own CRIU settings are root's code on the node.
var foreign = []string{
	"cni.projectcalico.org/containerID", "cni.projectcalico.org/podIP", "cni.projectcalico.org/podIPs",
	"k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status", "k8s.ovn.org/pod-networks",
	corev1.LastAppliedConfigAnnotation, corev1.PodDeletionCost, v1alpha1.AnnotationMoving,
}

const foreignPrefix = "org.criu."

// ReplacementName is the one name that the replacement of this move can have, so that a
// controller that died after making it finds it again. No two moves of a lineage share
// an epoch.
func ReplacementName(source string, lineage bool, epoch int64) string {
	if i := strings.LastIndex(source, "-dm"); lineage && i > 0 {
		if _, err := strconv.ParseInt(source[i+len("-dm"):], 10, 64); err == nil {
			source = source[:i]
		}
	}
	suffix := "-dm" + strconv.FormatInt(epoch, 10)
	if most := validation.DNS1123SubdomainMaxLength - len(suffix); len(source) > most {
		source = strings.TrimRight(source[:most], "-.")
	}
	return source + suffix
}

// nameFor is the replacement's name in this move.
func nameFor(m *v1alpha1.PodMigration, source *corev1.Pod, epoch int64) string {
	if returnsName(m) {
		return m.Spec.KeepName
	}
	_, lineage := source.Annotations[v1alpha1.AnnotationOrigin]
	return ReplacementName(source.Name, lineage, epoch)
}

// Replacement is the pod that takes the source's place: the same spec, to be scheduled
// anew away from the source's node, and nothing by which the owner would take it for its
// own before it is handed over. Which of the source's labels it can have is not its own to
// say: see withhold.
func Replacement(m *v1alpha1.PodMigration, source *corev1.Pod) (*corev1.Pod, error) {
	hand, err := json.Marshal(handOverOf(source))
	if err != nil {
		return nil, fmt.Errorf("write down labels and owner of pod %s/%s: %w", source.Namespace, source.Name, err)
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   source.Namespace,
			Name:        nameFor(m, source, m.Status.Epoch),
			Labels:      map[string]string{v1alpha1.LabelReplacement: string(m.UID)},
			Annotations: keptAnnotations(source),
		},
		Spec: *source.Spec.DeepCopy(),
	}
	toFreshSpec(&p.Spec, source)
	pinned := repin(&p.Spec, source.Annotations[v1alpha1.AnnotationPinned], m.Spec.TargetNode, source.Spec.NodeName)
	for k, v := range map[string]string{
		v1alpha1.AnnotationMigration:     m.Name,
		v1alpha1.AnnotationMigratingFrom: source.Spec.NodeName,
		v1alpha1.AnnotationEpoch:         strconv.FormatInt(m.Status.Epoch, 10),
		v1alpha1.AnnotationOrigin:        v1alpha1.OriginOf(source),
		v1alpha1.AnnotationPinned:        pinned,
		v1alpha1.AnnotationHandOver:      string(hand),
	} {
		p.Annotations[k] = v
	}
	return p, nil
}

func keptAnnotations(source *corev1.Pod) map[string]string {
	kept := make(map[string]string, len(source.Annotations)+6)
	for k, v := range source.Annotations {
		if !strings.HasPrefix(k, foreignPrefix) {
			kept[k] = v
		}
	}
	for _, k := range foreign {
		delete(kept, k)
	}
	return kept
}

// toFreshSpec takes out what belongs to the old object or is filled in by the API server.
// The volume and mount of the service account's token stay: a pod that has them gets no
// second ones, and the container finds its mounts where they were.
func toFreshSpec(s *corev1.PodSpec, source *corev1.Pod) {
	s.NodeName = ""
	s.SchedulerName = v1alpha1.SchedulerName
	s.SchedulingGates = nil
	s.EphemeralContainers = nil
	// The init containers did their work before the processes began that go on now; sidecars
	// are among those.
	s.InitContainers = movable.Sidecars(s)
	// Computed from priorityClassName and runtimeClassName; a differing value is refused.
	s.Priority, s.PreemptionPolicy, s.Overhead = nil, nil, nil
	if s.Hostname == "" && len(validation.IsDNS1123Label(source.Name)) == 0 {
		// The process knows this name; without a subdomain it appears in no DNS.
		s.Hostname = source.Name
	}
	settleLabelKeys(s, source.Labels)
}

// settleLabelKeys writes matchLabelKeys out into the selectors, for the replacement does
// not have the labels; the API server did so for the source, and refuses both together.
func settleLabelKeys(s *corev1.PodSpec, labels map[string]string) {
	for i := range s.TopologySpreadConstraints {
		c := &s.TopologySpreadConstraints[i]
		c.LabelSelector = withKeys(c.LabelSelector, c.MatchLabelKeys, labels, metav1.LabelSelectorOpIn)
		c.MatchLabelKeys = nil
	}
	if s.Affinity == nil {
		return
	}
	var terms []*corev1.PodAffinityTerm
	collect := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			terms = append(terms, &required[i])
		}
		for i := range preferred {
			terms = append(terms, &preferred[i].PodAffinityTerm)
		}
	}
	if a := s.Affinity.PodAffinity; a != nil {
		collect(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := s.Affinity.PodAntiAffinity; a != nil {
		collect(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	for _, t := range terms {
		t.LabelSelector = withKeys(t.LabelSelector, t.MatchLabelKeys, labels, metav1.LabelSelectorOpIn)
		t.LabelSelector = withKeys(t.LabelSelector, t.MismatchLabelKeys, labels, metav1.LabelSelectorOpNotIn)
		t.MatchLabelKeys, t.MismatchLabelKeys = nil, nil
	}
}

// withKeys adds one requirement per key that the labels have, unless it is there already.
// A nil selector matches nothing and stays nil.
func withKeys(sel *metav1.LabelSelector, keys []string, labels map[string]string, op metav1.LabelSelectorOperator) *metav1.LabelSelector {
	if sel == nil {
		return nil
	}
	for _, k := range keys {
		v, has := labels[k]
		if !has || demands(sel, k, op, v) {
			continue
		}
		sel.MatchExpressions = append(sel.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}})
	}
	return sel
}

func demands(sel *metav1.LabelSelector, key string, op metav1.LabelSelectorOperator, value string) bool {
	for _, e := range sel.MatchExpressions {
		if e.Key == key && e.Operator == op && len(e.Values) == 1 && e.Values[0] == value {
			return true
		}
	}
	return false
}
