package controller

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// asStored is a spec with something in every part that admission may touch.
func asStored() *corev1.Pod {
	p := sourcePod()
	c := &p.Spec.Containers[0]
	c.Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}}
	c.Command, c.Args = []string{"web"}, []string{"--port=80"}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "conf", MountPath: "/etc/web"}, {Name: "conf", MountPath: "/etc/other"}}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
	p.Spec.Volumes = []corev1.Volume{{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}}}
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1))}
	p.Spec.Tolerations = []corev1.Toleration{{Key: "a"}}
	return p
}

func TestAlterations(t *testing.T) {
	for _, c := range []struct {
		name  string
		alter func(s *corev1.PodSpec, c *corev1.Container)
		field string // named in the answer; empty: nothing differs
		fatal bool
	}{
		{"nothing", func(*corev1.PodSpec, *corev1.Container) {}, "", false},
		{"what the scheduler and admission compute", func(s *corev1.PodSpec, _ *corev1.Container) {
			s.NodeName, s.Priority, s.Overhead = "n2", ptr(int32(7)), corev1.ResourceList{"cpu": resource.MustParse("1")}
		}, "", false},
		{"image", func(_ *corev1.PodSpec, c *corev1.Container) { c.Image = "mirror/web:1" }, `spec.containers.app.image is "mirror/web:1", want "web:1"`, true},
		{"argument", func(_ *corev1.PodSpec, c *corev1.Container) { c.Args = []string{"--port=81"} }, "spec.containers.app.args", true},
		{"variable added", func(_ *corev1.PodSpec, c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "C"}) }, "spec.containers.app.env.C was added", true},
		{"variable changed", func(_ *corev1.PodSpec, c *corev1.Container) { c.Env[1].Value = "3" }, "spec.containers.app.env.B.value", true},
		{"variable taken away", func(_ *corev1.PodSpec, c *corev1.Container) { c.Env = c.Env[:1] }, "spec.containers.app.env.B was taken away", true},
		{"mount moved", func(_ *corev1.PodSpec, c *corev1.Container) { c.VolumeMounts[1].MountPath = "/x" }, "spec.containers.app.volumeMounts", true},
		{"volume added", func(s *corev1.PodSpec, _ *corev1.Container) {
			s.Volumes = append(s.Volumes, corev1.Volume{Name: "ca"})
		}, "spec.volumes.ca was added", true},
		{"container added", func(s *corev1.PodSpec, _ *corev1.Container) {
			s.Containers = append(s.Containers, corev1.Container{Name: "proxy"})
		}, "spec.containers.proxy was added", true},
		{"init container added", func(s *corev1.PodSpec, _ *corev1.Container) { s.InitContainers = []corev1.Container{{Name: "init"}} }, "spec.initContainers was added", true},
		{"another user", func(s *corev1.PodSpec, _ *corev1.Container) { s.SecurityContext.RunAsUser = ptr(int64(2)) }, "spec.securityContext.runAsUser is 2, want 1", true},
		{"a deadline", func(s *corev1.PodSpec, _ *corev1.Container) { s.ActiveDeadlineSeconds = ptr(int64(2)) }, "spec.activeDeadlineSeconds was added", true},
		{"another scheduler", func(s *corev1.PodSpec, _ *corev1.Container) { s.SchedulerName = "x" }, "spec.schedulerName", true},
		{"limit added", func(_ *corev1.PodSpec, c *corev1.Container) { c.Resources.Limits["cpu"] = resource.MustParse("1") }, "spec.containers.app.resources.limits.cpu was added", true},
		{"request added", func(_ *corev1.PodSpec, c *corev1.Container) {
			c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1")}
		}, "spec.containers.app.resources.requests was added", false},
		{"limit changed", func(_ *corev1.PodSpec, c *corev1.Container) { c.Resources.Limits["memory"] = resource.MustParse("2Gi") }, "spec.containers.app.resources.limits.memory", true},
		{"toleration added", func(s *corev1.PodSpec, _ *corev1.Container) {
			s.Tolerations = append(s.Tolerations, corev1.Toleration{Key: "b"})
		}, "spec.tolerations", false},
		{"node selector", func(s *corev1.PodSpec, _ *corev1.Container) { s.NodeSelector = map[string]string{"zone": "a"} }, "spec.nodeSelector was added", false},
		{"pull policy", func(_ *corev1.PodSpec, c *corev1.Container) { c.ImagePullPolicy = corev1.PullAlways }, "spec.containers.app.imagePullPolicy", false},
		{"a field with a default", func(s *corev1.PodSpec, _ *corev1.Container) { s.EnableServiceLinks = ptr(true) }, "spec.enableServiceLinks was added", false},
		{"a probe", func(_ *corev1.PodSpec, c *corev1.Container) { c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1} }, "spec.containers.app.livenessProbe", true},
	} {
		asked, stored := asStored(), asStored()
		c.alter(&stored.Spec, &stored.Spec.Containers[0])
		why, harmless, err := judgeStored(asked, stored)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(harmless, "; ")
		if why != nil {
			got = why.Message
		}
		if (why != nil) != c.fatal || why != nil && why.Reason != ReasonReplacementAltered {
			t.Errorf("%s: %+v, want fatal: %t", c.name, why, c.fatal)
		}
		if !strings.Contains(got, c.field) || c.field == "" && got != "" {
			t.Errorf("%s: %q, want %q in it", c.name, got, c.field)
		}
	}
}

func TestRefused(t *testing.T) {
	forbidden := func(says string) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, newName, errors.New(says))
	}
	ending := forbidden("because it is being terminated").(*apierrors.StatusError)
	ending.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for _, c := range []struct {
		err          error
		reason, says string
	}{
		{forbidden("exceeded quota: compute, requested: pods=1, used: pods=3, limited: pods=3"), ReasonQuotaExceeded,
			"exceeds ResourceQuota compute, requested: pods=1, used: pods=3, limited: pods=3"},
		{forbidden(`violates PodSecurity "restricted:latest": runAsNonRoot != true`), ReasonPodSecurity, "runAsNonRoot"},
		{forbidden("maximum cpu usage per Container is 1, but limit is 2"), ReasonLimitRange, "limit is 2"},
		{forbidden("[minimum memory usage per Pod is 1Gi, but request is 1Mi]"), ReasonLimitRange, "1Mi"},
		{forbidden("memory max limit to request ratio per Container is 2, but provided ratio is 4"), ReasonLimitRange, "ratio"},
		{ending, ReasonNamespaceTerminating, "terminated"},
		{forbidden("some webhook says no"), ReasonReplacementRefused, "webhook says no"},
	} {
		if got := refused(c.err); got.Reason != c.reason || !strings.Contains(got.Message, c.says) {
			t.Errorf("%v: %+v, want %s with %q", c.err, got, c.reason, c.says)
		}
	}
}
