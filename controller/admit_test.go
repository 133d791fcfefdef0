package controller

import (
	"math"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/movable"
)

// other is a move at work, of that pod to that replacement.
func other(source, replacement types.UID) *v1alpha1.PodMigration {
	m := wish()
	m.Name, m.UID = "other", "uid-other"
	m.Status.Source.PodUID, m.Status.Target.PodUID, m.Status.Target.PodName = source, replacement, "web-5d4-other-dm2"
	return m
}

func TestAdmit(t *testing.T) {
	now := metav1.NewTime(start)
	volume := func(v corev1.VolumeSource) func(*v1alpha1.PodMigration, *Facts) {
		return func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: v}}
		}
	}
	owned := func(kind, api string) func(*v1alpha1.PodMigration, *Facts) {
		return func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.OwnerReferences = owner(kind, api, "own") }
	}
	to := func(target string, n *corev1.Node) func(*v1alpha1.PodMigration, *Facts) {
		return func(m *v1alpha1.PodMigration, f *Facts) { m.Spec.TargetNode, f.TargetNode = target, n }
	}
	cordoned, down := node("n2"), node("n2")
	cordoned.Spec.Unschedulable = true
	down.Status.Conditions = nil
	for _, c := range []struct {
		name   string
		change func(*v1alpha1.PodMigration, *Facts)
		want   string // reason; empty: accepted
		says   string
	}{
		{"a pod of a Deployment", func(*v1alpha1.PodMigration, *Facts) {}, "", ""},
		{"a bare pod", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.OwnerReferences = nil }, "", ""},
		{"a set without Deployment", func(_ *v1alpha1.PodMigration, f *Facts) { f.ReplicaSet.OwnerReferences, f.Deployment = nil, nil }, "", ""},
		{"an owner that does not control", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.OwnerReferences[0].Controller = nil
		}, "", ""},
		{"ordinary init containers", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.InitContainers = []corev1.Container{{Name: "init"}}
		}, "", ""},
		{"to a good node", to("n2", node("n2")), "", ""},
		{"UID as asked", func(m *v1alpha1.PodMigration, _ *Facts) { m.Spec.PodUID = "uid-source" }, "", ""},
		{"projected volume", volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}), "", ""},
		{"configMap volume", volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}), "", ""},

		{"more containers than a record holds", func(_ *v1alpha1.PodMigration, f *Facts) {
			app, runs := f.Pod.Spec.Containers[0], f.Pod.Status.ContainerStatuses[0]
			f.Pod.Spec.Containers, f.Pod.Status.ContainerStatuses = nil, nil
			for i := range v1alpha1.MaxContainers + 1 {
				app.Name = "app-" + strconv.Itoa(i)
				runs.Name = app.Name
				f.Pod.Spec.Containers = append(f.Pod.Spec.Containers, app)
				f.Pod.Status.ContainerStatuses = append(f.Pod.Status.ContainerStatuses, runs)
			}
		}, ReasonTooManyContainers, "at most 256"},
		{"wish deleted", func(m *v1alpha1.PodMigration, _ *Facts) { m.DeletionTimestamp = &now }, ReasonDeleted, ""},
		{"paused", func(_ *v1alpha1.PodMigration, f *Facts) { f.Paused = true }, ReasonPaused, "drover-pause"},
		{"no pod", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod = nil }, ReasonPodNotFound, "pod shop/web-5d4-abcde does not exist"},
		{"another UID", func(m *v1alpha1.PodMigration, _ *Facts) { m.Spec.PodUID = "uid-old" }, ReasonPodReplaced, "uid-old"},
		{"terminating", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.DeletionTimestamp = &now }, ReasonPodTerminating, ""},
		{"on no node", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Spec.NodeName = "" }, ReasonNotScheduled, "on no node"},
		{"not opted in", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Annotations = nil }, ReasonNotOptedIn, "drover.dev/migrate"},
		{"opted out", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Annotations[v1alpha1.AnnotationMigrate] = "yes" }, ReasonNotOptedIn, `"yes"`},
		{"no runtime class", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Spec.RuntimeClassName = nil }, ReasonWrongRuntimeClass, `""`},
		{"another runtime class", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Spec.RuntimeClassName = ptr("gvisor") }, ReasonWrongRuntimeClass, `"gvisor"`},

		{"StatefulSet gone", owned("StatefulSet", "apps/v1"), ReasonOwnerGone, "StatefulSet own"},
		{"Job gone", owned("Job", "batch/v1"), ReasonOwnerGone, "Job own"},
		{"foreign Job", owned("Job", "batch.volcano.sh/v1alpha1"), ReasonUnsupportedOwner, "Job own"},
		{"DaemonSet", owned("DaemonSet", "apps/v1"), ReasonUnsupportedOwner, "DaemonSet own"},
		{"unknown owner", owned("Rollout", "argoproj.io/v1alpha1"), ReasonUnsupportedOwner, "Rollout own"},
		{"foreign ReplicaSet", owned("ReplicaSet", "example.com/v1"), ReasonUnsupportedOwner, ""},
		{"set owned by another", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.ReplicaSet.OwnerReferences = owner("Rollout", "argoproj.io/v1alpha1", "r")
		}, ReasonUnsupportedOwner, "Rollout r"},
		{"static pod", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Annotations[corev1.MirrorPodAnnotationKey] = "x"
		}, ReasonUnsupportedOwner, "static"},
		{"set gone", func(_ *v1alpha1.PodMigration, f *Facts) { f.ReplicaSet = nil }, ReasonOwnerGone, ""},
		{"set replaced", func(_ *v1alpha1.PodMigration, f *Facts) { f.ReplicaSet.UID = "other" }, ReasonOwnerGone, ""},
		{"set going", func(_ *v1alpha1.PodMigration, f *Facts) { f.ReplicaSet.DeletionTimestamp = &now }, ReasonOwnerGone, "being deleted"},
		{"set at 0", func(_ *v1alpha1.PodMigration, f *Facts) { f.ReplicaSet.Spec.Replicas = ptr(int32(0)) }, ReasonOwnerScaledToZero, ""},
		{"Deployment gone", func(_ *v1alpha1.PodMigration, f *Facts) { f.Deployment = nil }, ReasonOwnerGone, "Deployment web"},
		{"an old set", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Deployment.Spec.Template.Spec.Containers[0].Image = "web:2"
		}, ReasonRollingUpdate, "not the current"},
		{"old pods still there", func(_ *v1alpha1.PodMigration, f *Facts) { f.Deployment.Status.Replicas = 3 }, ReasonRollingUpdate, "1 of 3"},

		{"two containers", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.Containers = append(f.Pod.Spec.Containers, corev1.Container{Name: "proxy"})
			f.Pod.Status.ContainerStatuses = append(f.Pod.Status.ContainerStatuses, corev1.ContainerStatus{
				Name: "proxy", ContainerID: "containerd://f00d", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
		}, "", ""},
		{"one of two crashed", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.Containers = append(f.Pod.Spec.Containers, corev1.Container{Name: "proxy"})
		}, ReasonNotRunning, "container proxy"},
		{"sidecar that kubelet waits for", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.InitContainers = []corev1.Container{{Name: "s", StartupProbe: &corev1.Probe{}, RestartPolicy: ptr(corev1.ContainerRestartPolicyAlways)}}
			f.Pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
				Name: "s", ContainerID: "containerd://f00d", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}, ReasonUnsupportedLifecycle, "startupProbe"},
		{"debug container", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}}
		}, movable.ReasonEphemeralContainer, ""},
		{"all at once", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Paused, f.SourceNode, f.Pod.Spec.HostPID, f.Pod.OwnerReferences = true, nil, true, owner("DaemonSet", "apps/v1", "own")
		}, ReasonPaused, "HostNamespace: pod shop/web-5d4-abcde has hostPID: its node's part in that cannot be taken along; UnsupportedOwner: "},
		{"host network", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Spec.HostNetwork = true }, ReasonHostNamespace, ""},
		{"host processes", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Spec.HostPID = true }, ReasonHostNamespace, ""},
		{"shared processes", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Spec.ShareProcessNamespace = ptr(true) }, ReasonHostNamespace, ""},
		{"postStart", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
		}, ReasonUnsupportedLifecycle, "second time"},
		{"devices", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
		}, ReasonUnsupportedDevice, "gpu"},
		{"emptyDir", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), "", ""},
		{"hostPath", volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}), ReasonUnsupportedVolume, "a hostPath"},
		{"claim", volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}), ReasonUnsupportedVolume, "a persistentVolumeClaim"},
		{"CSI", volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}), ReasonUnsupportedVolume, ""},

		{"pending", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Status.Phase = corev1.PodPending }, ReasonNotRunning, "Pending"},
		{"container crashed", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}
		}, ReasonNotRunning, "container app"},
		{"a replacement", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Labels[v1alpha1.LabelReplacement] = "uid-x" }, ReasonAlreadyMigrating, ""},
		{"held by another", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Holder = wish()
			f.Holder.Name, f.Holder.UID = "other", "uid-other"
		}, ReasonAlreadyMigrating, "PodMigration other"},
		{"held by a finished one", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Holder = wish()
			f.Holder.Name, f.Holder.UID = "other", "uid-other"
			setCondition(f.Holder, start, v1alpha1.ConditionComplete, true, "Moved", "")
		}, "", ""},
		{"moved by one whose claim was taken off", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Others = []v1alpha1.PodMigration{*other("uid-source", "uid-x")}
		}, ReasonAlreadyMigrating, "PodMigration other"},
		{"the replacement of one without the label", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Others = []v1alpha1.PodMigration{*other("uid-x", "uid-source")}
		}, ReasonAlreadyMigrating, "PodMigration other"},
		{"the unwritten replacement of one without the label", func(_ *v1alpha1.PodMigration, f *Facts) {
			o := other("uid-x", "")
			o.Status.Target.PodName = f.Pod.Name
			f.Others = []v1alpha1.PodMigration{*o}
		}, ReasonAlreadyMigrating, "PodMigration other"},
		{"moved by a finished one", func(_ *v1alpha1.PodMigration, f *Facts) {
			o := other("uid-source", "uid-x")
			setCondition(o, start, v1alpha1.ConditionComplete, true, "Moved", "")
			f.Others = []v1alpha1.PodMigration{*o}
		}, "", ""},
		{"others are moved, or are not judged yet", func(_ *v1alpha1.PodMigration, f *Facts) {
			unjudged := wish()
			unjudged.Name, unjudged.UID = "unjudged", "uid-unjudged"
			f.Others = []v1alpha1.PodMigration{*other("uid-y", "uid-x"), *unjudged}
		}, "", ""},
		{"moved by itself", func(m *v1alpha1.PodMigration, f *Facts) {
			o := other("uid-source", "")
			o.Name, o.UID = m.Name, m.UID
			f.Others = []v1alpha1.PodMigration{*o}
		}, "", ""},
		{"held by itself", func(_ *v1alpha1.PodMigration, f *Facts) { f.Holder = wish() }, "", ""},
		{"the greatest epoch", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Annotations[v1alpha1.AnnotationEpoch] = "9007199254740992"
		}, "", ""},
		{"an epoch too great", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Annotations[v1alpha1.AnnotationEpoch] = "9007199254740993"
		}, ReasonMalformedAnnotation, "from 0 to 9007199254740992"},
		{"an epoch with no next one", func(_ *v1alpha1.PodMigration, f *Facts) {
			f.Pod.Annotations[v1alpha1.AnnotationEpoch] = strconv.FormatInt(math.MaxInt64, 10)
		}, ReasonMalformedAnnotation, `"9223372036854775807"`},
		{"a negative epoch", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Annotations[v1alpha1.AnnotationEpoch] = "-2" }, ReasonMalformedAnnotation, `"-2"`},
		{"malformed epoch", func(_ *v1alpha1.PodMigration, f *Facts) { f.Pod.Annotations[v1alpha1.AnnotationEpoch] = "two" }, ReasonMalformedAnnotation, `"two"`},

		{"source node gone", func(_ *v1alpha1.PodMigration, f *Facts) { f.SourceNode = nil }, ReasonNodeNotFound, "node n1"},
		{"source node down", func(_ *v1alpha1.PodMigration, f *Facts) { f.SourceNode.Status.Conditions = nil }, ReasonNodeNotReady, "node n1"},
		{"no agent", func(_ *v1alpha1.PodMigration, f *Facts) { f.AgentOnSource = false }, ReasonNoAgent, "node n1"},
		{"target unknown", to("nope", nil), ReasonNodeNotFound, "target node nope does not exist"},
		{"target is source", to("n1", node("n1")), ReasonSameNode, "n1 already"},
		{"target cordoned", to("n2", cordoned), ReasonUnschedulable, "cordoned"},
		{"target down", to("n2", down), ReasonNodeNotReady, "n2"},
		{"no agent on the target", func(m *v1alpha1.PodMigration, f *Facts) {
			m.Spec.TargetNode, f.TargetNode, f.AgentOnTarget = "n2", node("n2"), false
		}, ReasonNoAgent, "target node n2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, f := wish(), goodFacts()
			c.change(m, &f)
			got := Admit(m, f)
			switch {
			case got == nil && c.want != "":
				t.Fatalf("accepted, want %s", c.want)
			case got == nil:
			case got.Reason != c.want:
				t.Fatalf("reason %q (%s), want %q", got.Reason, got.Message, c.want)
			case !strings.Contains(got.Message, c.says):
				t.Fatalf("message %q does not say %q", got.Message, c.says)
			case strings.Contains(got.Message, "\n") || got.Message == "":
				t.Fatalf("message %q is not one line", got.Message)
			}
		})
	}
}
