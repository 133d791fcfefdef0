package controller

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// keeping is what is seen of a pod that asks to keep its connections, and could.
func keeping() Facts {
	f := goodFacts()
	f.Pod.Annotations[v1alpha1.AnnotationKeepConnections] = "10m"
	f.Pod.Status.PodIPs = []corev1.PodIP{{IP: "10.0.1.5"}, {IP: "fd00::5"}}
	return f
}

// What closes connections is found before anything is done, and refuses the move only if they
// are required.
func TestWhoCannotKeepConnections(t *testing.T) {
	leased := wish()
	leased.UID, leased.Name = "uid-first", "first"
	leased.Status.Source.PodName, leased.Status.Target.PodUID = "web-5d4-old", "uid-source"
	leased.Status.Target.Resumed = true
	leased.Status.Connections = &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsKept}
	setCondition(leased, start, v1alpha1.ConditionComplete, true, "Moved", "moved")
	ended := leased.DeepCopy()
	ended.Status.Connections.LeaseEnded = true
	for _, c := range []struct {
		name   string
		change func(*testing.T, *v1alpha1.PodMigration, *Facts)
		reason string // empty: none
		says   string
	}{
		{"nothing speaks against it", func(*testing.T, *v1alpha1.PodMigration, *Facts) {}, "", ""},
		{"a StatefulSet's", func(_ *testing.T, _ *v1alpha1.PodMigration, f *Facts) {
			*f.Pod = *dbPod()
			f.StatefulSet = dbSet()
		}, ReasonNameNeeded, "keeps its name"},
		{"keeps its name", func(_ *testing.T, _ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.OwnerReferences, f.Pod.Annotations[v1alpha1.AnnotationKeepName] = nil, "true"
		}, ReasonNameNeeded, "keeps its name"},
		{"never restarted", func(_ *testing.T, _ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		}, ReasonNeverRestarted, "restartPolicy Never"},
		{"no address", func(_ *testing.T, _ *v1alpha1.PodMigration, f *Facts) { f.Pod.Status.PodIPs = nil }, ReasonNoAddress, "no address"},
		{"an old kubelet's address", func(_ *testing.T, _ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Status.PodIPs, f.Pod.Status.PodIP = nil, "10.0.1.5"
		}, "", ""},
		{"has one still", func(_ *testing.T, _ *v1alpha1.PodMigration, f *Facts) {
			f.Others = []v1alpha1.PodMigration{*leased}
		}, ReasonLeaseHeld, "by PodMigration first: it cannot take along both unless drover-controller runs with --carry-earlier-addresses"},
		{"has one still, which may go along", func(_ *testing.T, _ *v1alpha1.PodMigration, f *Facts) {
			f.Others, f.CarryEarlier = []v1alpha1.PodMigration{*leased}, true
		}, "", ""},
		{"had one", func(_ *testing.T, _ *v1alpha1.PodMigration, f *Facts) {
			f.Others = []v1alpha1.PodMigration{*ended}
		}, "", ""},
		{"a budget of all pods", func(t *testing.T, _ *v1alpha1.PodMigration, f *Facts) { f.Takers = []adopter{selects(t, "")} }, ReasonAlwaysSelected, "labels that it does not have"},
		{"a policy by a Service's label", func(t *testing.T, _ *v1alpha1.PodMigration, f *Facts) {
			f.Takers, f.Policies = []adopter{selects(t, "app=web")}, []adopter{selects(t, "app in (web,db)")}
		}, ReasonPolicyNeedsLabel, "have one of them select by another label"},
	} {
		m, f := wish(), keeping()
		c.change(t, m, &f)
		f.Pod.Annotations[v1alpha1.AnnotationKeepConnections] = "10m"
		if f.Pod.Name == ownName {
			m.Spec.PodName = ownName
		}
		why := unleasable(m, f)
		if c.reason == "" && why != nil || c.reason != "" && (why == nil || why.Reason != c.reason || !strings.Contains(why.Message, c.says)) {
			t.Errorf("%s: %+v, want %q that says %q", c.name, why, c.reason, c.says)
		}
		if why := Admit(m, f); why != nil {
			t.Errorf("%s: refused, though not required: %+v", c.name, why)
		}
		f.Pod.Annotations[v1alpha1.AnnotationKeepConnectionsRequired] = "true"
		if why := Admit(m, f); c.reason == "" && why != nil || c.reason != "" && (why == nil || why.Reason != c.reason || !strings.Contains(why.Message, v1alpha1.AnnotationKeepConnectionsRequired)) {
			t.Errorf("%s, required: %+v, want %q", c.name, why, c.reason)
		}
	}
}

func TestMalformedWishForConnections(t *testing.T) {
	for annotation, value := range map[string]string{v1alpha1.AnnotationKeepConnections: "10", v1alpha1.AnnotationKeepConnectionsRequired: "yes"} {
		m, f := wish(), keeping()
		f.Pod.Annotations[annotation] = value
		if why := Admit(m, f); why == nil || why.Reason != ReasonMalformedAnnotation || !strings.Contains(why.Message, annotation) {
			t.Errorf("%s=%q: %+v", annotation, value, why)
		}
		m.Spec.KeepName = "web-0" // its pod waits for its name
		if why := admitKeep(m, f); why != nil {
			t.Errorf("%s=%q refuses a second step: %+v", annotation, value, why)
		}
	}
}

// A pod that is kept for its address is no pod to move.
func TestHolderIsNotMoved(t *testing.T) {
	f := goodFacts()
	f.Pod.Labels[v1alpha1.LabelLease] = "uid-move"
	f.Pod.OwnerReferences = nil
	if why := Admit(wish(), f); why == nil || why.Reason != ReasonHoldsAddress {
		t.Errorf("%+v, want %s", why, ReasonHoldsAddress)
	}
}

func TestPauseImage(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0a", 32)
	for image, valid := range map[string]bool{
		"": true, "pause" + digest: true, "registry.example.com:5000/k8s/pause:3.10" + digest: true, pauseImage: true,
		"registry.k8s.io/pause:3.10": false, digest: false, "pause@sha256:0a": false, "pause" + digest + " x": false, "pause@sha512:" + strings.Repeat("0a", 64): false,
	} {
		if err := (Config{Namespace: system, PauseImage: image}).Validate(); (err == nil) != valid {
			t.Errorf("%q: %v, want valid: %t", image, err, valid)
		}
	}
}
