package movable

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Claims are the PersistentVolumeClaims of a pod's namespace by name; one that is not known
// is not there.
type Claims map[string]*corev1.PersistentVolumeClaim

// Pod gives all that speaks against moving the pod, from its own object and its claims.
func Pod(p *corev1.Pod, claims Claims) []Finding {
	var all []Finding
	for _, judge := range []func(*corev1.Pod) []Finding{will, shape, devices} {
		all = append(all, judge(p)...)
	}
	all = append(all, volumes(p, claims)...)
	return append(all, state(p)...)
}

// will: the pod's owner wants it to be movable, and it is there to be moved.
func will(p *corev1.Pod) []Finding {
	var all []Finding
	if p.DeletionTimestamp != nil {
		all = append(all, Found(ReasonPodTerminating, "pod %s/%s is being deleted", p.Namespace, p.Name))
	}
	if p.Labels[v1alpha1.LabelLease] != "" {
		all = append(all, Found(ReasonHoldsAddress, "pod %s/%s has moved away, and is kept for its address alone, which the moved pod has still",
			p.Namespace, p.Name).But("move that pod"))
	}
	if p.Spec.NodeName == "" {
		all = append(all, Found(ReasonNotScheduled, "pod %s/%s is on no node yet", p.Namespace, p.Name).
			But("wait until it runs, or see why the scheduler leaves it"))
	}
	if v := p.Annotations[v1alpha1.AnnotationMigrate]; v != "true" {
		all = append(all, Found(ReasonNotOptedIn, "pod %s/%s has not opted in: annotation %s is %q, want \"true\"",
			p.Namespace, p.Name, v1alpha1.AnnotationMigrate, v).
			But("set it in its owner's pod template: the container has to be started with it"))
	}
	class := ""
	if p.Spec.RuntimeClassName != nil {
		class = *p.Spec.RuntimeClassName
	}
	if class != v1alpha1.RuntimeClassName {
		all = append(all, Found(ReasonWrongRuntimeClass, "pod %s/%s has runtimeClassName %q, want %q",
			p.Namespace, p.Name, class, v1alpha1.RuntimeClassName).
			But("set it in its owner's pod template: the container has to be started by drover-runc"))
	}
	return all
}

// shape: what of a pod's spec can be carried over today.
func shape(p *corev1.Pod) []Finding {
	var all []Finding
	s := &p.Spec
	if n := len(s.EphemeralContainers); n > 0 {
		all = append(all, Found(ReasonEphemeralContainer, "pod %s/%s has the ephemeral container %s, which no other pod can be given",
			p.Namespace, p.Name, s.EphemeralContainers[0].Name).But("it stays until the pod is made anew"))
	}
	if shared := hostShares(s); len(shared) > 0 {
		all = append(all, Found(ReasonHostNamespace, "pod %s/%s has %s: its node's part in that cannot be taken along",
			p.Namespace, p.Name, strings.Join(shared, " and ")))
	}
	if s.ShareProcessNamespace != nil && *s.ShareProcessNamespace {
		all = append(all, Found(ReasonHostNamespace, "pod %s/%s has shareProcessNamespace: its processes cannot be taken along without the sandbox's",
			p.Namespace, p.Name))
	}
	for _, c := range Sidecars(s) {
		if c.StartupProbe != nil {
			// Its copy is held, and answers nothing, until the last container is restored.
			all = append(all, Found(ReasonUnsupportedLifecycle, "sidecar %s has a startupProbe: kubelet would create no further container before it succeeds", c.Name).
				But("use a readinessProbe, or make it an ordinary container"))
		}
	}
	for _, c := range append(Sidecars(s), s.Containers...) {
		if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
			all = append(all, Found(ReasonUnsupportedLifecycle, "container %s has a postStart hook: it would run a second time after the move", c.Name).
				But("do its work in the container's own process or in an init container"))
		}
	}
	return all
}

// hostShares are the fields by which a pod uses its node's own namespaces.
func hostShares(s *corev1.PodSpec) []string {
	var shared []string
	for _, f := range []struct {
		name string
		set  bool
	}{{"hostNetwork", s.HostNetwork}, {"hostPID", s.HostPID}, {"hostIPC", s.HostIPC}} {
		if f.set {
			shared = append(shared, f.name)
		}
	}
	return shared
}

// Sidecars are the init containers that keep running.
func Sidecars(s *corev1.PodSpec) []corev1.Container {
	var found []corev1.Container
	for _, c := range s.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			found = append(found, c)
		}
	}
	return found
}

// devices: their state lies outside of the processes.
func devices(p *corev1.Pod) []Finding {
	const remedy = "a pod with a device has to be made anew on another node"
	var all []Finding
	for _, c := range p.Spec.ResourceClaims {
		all = append(all, Found(ReasonUnsupportedDevice, "pod %s/%s claims devices (%s): their state cannot be taken along",
			p.Namespace, p.Name, c.Name).But(remedy))
	}
	for _, c := range append(Sidecars(&p.Spec), p.Spec.Containers...) {
		for _, name := range extended(c.Resources) {
			all = append(all, Found(ReasonUnsupportedDevice, "container %s is given %s, a device or what a device plugin makes of one: its state cannot be taken along",
				c.Name, name).But(remedy))
		}
		for _, d := range c.VolumeDevices {
			all = append(all, Found(ReasonUnsupportedDevice, "container %s has volume %s as a raw block device", c.Name, d.Name).But(remedy))
		}
	}
	return all
}

// state: there is a running container to take the memory of.
func state(p *corev1.Pod) []Finding {
	if p.Spec.NodeName == "" {
		return nil // said already
	}
	if p.Status.Phase != corev1.PodRunning {
		return []Finding{Found(ReasonNotRunning, "pod %s/%s is %s, not Running", p.Namespace, p.Name, p.Status.Phase)}
	}
	var all []Finding
	for _, name := range Containers(&p.Spec) {
		if RunningID(p, name) == "" {
			all = append(all, Found(ReasonNotRunning, "container %s of pod %s/%s is not running", name, p.Namespace, p.Name).
				But(fmt.Sprintf("see kubectl logs %s -c %s", p.Name, name)))
		}
	}
	return all
}

// Containers are the names of those of a pod that run side by side, in the order in which
// kubelet starts them: the sidecars among the init containers come first.
func Containers(s *corev1.PodSpec) []string {
	var names []string
	for _, c := range append(Sidecars(s), s.Containers...) {
		names = append(names, c.Name)
	}
	return names
}

// RunningID is the runtime's ID of the container, without scheme; empty when it does not run.
func RunningID(p *corev1.Pod, container string) string {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s.Name == container && s.State.Running != nil {
			if _, bare, ok := strings.Cut(s.ContainerID, "://"); ok {
				return bare
			}
			return s.ContainerID
		}
	}
	return ""
}
