package controller

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

func reserved(target string) *v1alpha1.PodMigration {
	m := wish()
	m.Spec.TargetNode = target
	m.Status.Epoch = 4
	return m
}

func TestReplacement(t *testing.T) {
	s := sourcePod()
	s.Annotations["note"] = "kept"
	s.Annotations["org.criu.config"] = "/evil"
	s.Annotations["cni.projectcalico.org/podIP"] = "10.0.0.1"
	s.Annotations[v1alpha1.AnnotationMoving] = "move/uid-move"
	s.Annotations[corev1.PodDeletionCost] = "7"
	s.Finalizers = []string{"x/y"}
	s.GenerateName = "web-5d4-"
	s.ResourceVersion = "12"
	s.Spec.SchedulerName = "default-scheduler"
	s.Spec.Priority, s.Spec.PreemptionPolicy = ptr(int32(5)), ptr(corev1.PreemptLowerPriority)
	s.Spec.PriorityClassName = "high"
	s.Spec.Overhead = corev1.ResourceList{}
	s.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "gate"}}
	s.Spec.InitContainers = []corev1.Container{{Name: "init"}}
	s.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
	s.Spec.ServiceAccountName = "web"
	s.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access-x", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}}}
	s.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "kube-api-access-x", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}
	before := s.DeepCopy()

	got, err := Replacement(reserved(""), s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, s); diff != "" {
		t.Errorf("the source was changed:\n%s", diff)
	}
	var hand HandOver
	if err := json.Unmarshal([]byte(got.Annotations[v1alpha1.AnnotationHandOver]), &hand); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(HandOver{Labels: s.Labels, Owners: s.OwnerReferences, Cost: "7"}, hand); diff != "" {
		t.Errorf("hand-over:\n%s", diff)
	}
	delete(got.Annotations, v1alpha1.AnnotationHandOver)
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: testNamespace, Name: "web-5d4-abcde-dm4",
			Labels: map[string]string{v1alpha1.LabelReplacement: "uid-move"},
			Annotations: map[string]string{
				"note": "kept", v1alpha1.AnnotationMigrate: "true",
				v1alpha1.AnnotationMigration: "move", v1alpha1.AnnotationMigratingFrom: "n1",
				v1alpha1.AnnotationEpoch: "4", v1alpha1.AnnotationOrigin: "uid-source", v1alpha1.AnnotationPinned: "NotIn=n1",
			},
		},
		Spec: corev1.PodSpec{
			SchedulerName: v1alpha1.SchedulerName, RuntimeClassName: ptr("drover"), PriorityClassName: "high",
			ServiceAccountName: "web", Hostname: "web-5d4-abcde",
			Containers: s.Spec.Containers, Volumes: s.Spec.Volumes, Tolerations: s.Spec.Tolerations,
			Affinity: required(fields("NotIn", "n1")),
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("replacement (-want +got):\n%s", diff)
	}
}

func TestReplacementOfReplacement(t *testing.T) {
	s := sourcePod()
	s.Name = "web-5d4-abcde-dm2"
	s.Spec.NodeName, s.Spec.Hostname = "n2", "web-5d4-abcde"
	s.Spec.Affinity = required(fields("In", "n2"))
	s.Annotations[v1alpha1.AnnotationOrigin] = "uid-first"
	s.Annotations[v1alpha1.AnnotationPinned] = "In=n2"
	got, err := Replacement(reserved("n3"), s)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "web-5d4-abcde-dm4" || got.Spec.Hostname != "web-5d4-abcde" {
		t.Errorf("name %q, host name %q", got.Name, got.Spec.Hostname)
	}
	if o := got.Annotations[v1alpha1.AnnotationOrigin]; o != "uid-first" {
		t.Errorf("origin %q, want that of the lineage", o)
	}
	if diff := cmp.Diff(required(fields("In", "n3")), got.Spec.Affinity); diff != "" {
		t.Errorf("affinity (-want +got):\n%s", diff)
	}
}

func TestReplacementName(t *testing.T) {
	long := strings.Repeat("a", 251)
	for _, c := range []struct {
		source  string
		lineage bool
		want    string
	}{
		{"web", false, "web-dm4"},
		{"web-dm2", true, "web-dm4"},
		{"web-dm2", false, "web-dm2-dm4"}, // the user's own name
		{"web-dmx", true, "web-dmx-dm4"},
		{long, false, long[:249] + "-dm4"},
		{long[:248] + "-b", false, long[:248] + "-dm4"}, // no dash before the dash
	} {
		if got := ReplacementName(c.source, c.lineage, 4); got != c.want {
			t.Errorf("ReplacementName(%q, %t, 4) = %q, want %q", c.source, c.lineage, got, c.want)
		}
	}
}

func fields(op, node string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
		{Key: "metadata.name", Operator: corev1.NodeSelectorOperator(op), Values: []string{node}},
	}}
}

func required(terms ...corev1.NodeSelectorTerm) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
	}}
}

func zone(z string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
		{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{z}},
	}}
}

func both(a, b corev1.NodeSelectorTerm) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{
		MatchExpressions: append(a.MatchExpressions, b.MatchExpressions...),
		MatchFields:      append(a.MatchFields, b.MatchFields...),
	}
}

func TestRepin(t *testing.T) {
	for _, c := range []struct {
		name   string
		has    *corev1.Affinity
		was    string
		target string
		want   *corev1.Affinity
		pinned string
	}{
		{"nothing, anywhere else", nil, "", "", required(fields("NotIn", "n1")), "NotIn=n1"},
		{"nothing, to n2", nil, "", "n2", required(fields("In", "n2")), "In=n2"},
		{"each term gets it", required(zone("a"), zone("b")), "", "n2",
			required(both(zone("a"), fields("In", "n2")), both(zone("b"), fields("In", "n2"))), "In=n2"},
		{"an empty term still matches nothing", required(zone("a"), corev1.NodeSelectorTerm{}), "", "n2",
			required(both(zone("a"), fields("In", "n2"))), "In=n2"},
		{"the last move's goes", required(both(zone("a"), fields("NotIn", "n0"))), "NotIn=n0", "",
			required(both(zone("a"), fields("NotIn", "n1"))), "NotIn=n1"},
		{"a user's own stays", required(fields("In", "n1"), fields("In", "n2")), "NotIn=n0", "n2",
			required(both(fields("In", "n1"), fields("In", "n2")), both(fields("In", "n2"), fields("In", "n2"))), "In=n2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &corev1.PodSpec{Affinity: c.has.DeepCopy()}
			if got := repin(s, c.was, c.target, "n1"); got != c.pinned {
				t.Errorf("pinned %q, want %q", got, c.pinned)
			}
			if diff := cmp.Diff(c.want, s.Affinity); diff != "" {
				t.Errorf("affinity (-want +got):\n%s", diff)
			}
		})
	}
}

// The API server wrote matchLabelKeys out for the source and refuses a copy that has both.
func TestLabelKeysAreSettled(t *testing.T) {
	in := metav1.LabelSelectorRequirement{Key: "pod-template-hash", Operator: metav1.LabelSelectorOpIn, Values: []string{"5d4"}}
	notIn := metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"web"}}
	s := sourcePod()
	s.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
		{LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in}}, MatchLabelKeys: []string{"pod-template-hash"}},
		{LabelSelector: &metav1.LabelSelector{}, MatchLabelKeys: []string{"pod-template-hash", "absent"}},
	}
	s.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{LabelSelector: &metav1.LabelSelector{}, MismatchLabelKeys: []string{"app"}},
			{MatchLabelKeys: []string{"app"}},
		},
	}}
	got, err := Replacement(reserved(""), s)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range got.Spec.TopologySpreadConstraints {
		if diff := cmp.Diff([]metav1.LabelSelectorRequirement{in}, c.LabelSelector.MatchExpressions); diff != "" || c.MatchLabelKeys != nil {
			t.Errorf("constraint %d: keys %v\n%s", i, c.MatchLabelKeys, diff)
		}
	}
	terms := got.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if diff := cmp.Diff([]corev1.PodAffinityTerm{
		{LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{notIn}}}, {},
	}, terms); diff != "" {
		t.Errorf("anti-affinity (-want +got):\n%s", diff)
	}
}
