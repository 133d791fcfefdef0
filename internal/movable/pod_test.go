package movable

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

func ptr[T any](v T) *T { return &v }

// good is a pod that can be moved.
func good() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{v1alpha1.AnnotationMigrate: "true"}},
		Spec: corev1.PodSpec{
			NodeName: "n1", RuntimeClassName: ptr(v1alpha1.RuntimeClassName), Containers: []corev1.Container{{Name: "app"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", ContainerID: "containerd://c0ffee", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}},
	}
}

// beside adds a container that runs.
func beside(p *corev1.Pod, c corev1.Container, sidecar bool) {
	status := corev1.ContainerStatus{Name: c.Name, ContainerID: "containerd://f00d", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	if sidecar {
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, status)
		return
	}
	p.Spec.Containers = append(p.Spec.Containers, c)
	p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, status)
}

func claim(modes ...corev1.PersistentVolumeAccessMode) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes}}
}

func TestPod(t *testing.T) {
	resources := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceName(name): resource.MustParse("1")}
		}
	}
	volume := func(v corev1.VolumeSource) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: v})
		}
	}
	claimed := func(name string) func(*corev1.Pod) {
		return volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}})
	}
	mounted := func(paths ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}})(p)
			for i, sub := range paths {
				p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts,
					corev1.VolumeMount{Name: "data", MountPath: "/" + string(rune('a'+i)), SubPath: sub})
			}
		}
	}
	emptied := func(readOnly ...bool) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})(p)
			for i, ro := range readOnly {
				p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts,
					corev1.VolumeMount{Name: "data", MountPath: "/" + string(rune('a'+i)), ReadOnly: ro})
			}
		}
	}
	always := ptr(corev1.ContainerRestartPolicyAlways)
	for _, c := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string // reasons, in order
		says   string
	}{
		{"good", func(*corev1.Pod) {}, "", ""},
		{"memory and CPU", resources("memory"), "", ""},
		{"huge pages are the kernel's", resources("hugepages-2Mi"), "", ""},
		{"a resource of Kubernetes' own", resources("scheduling.kubernetes.io/foo"), "", ""},
		{"volumes made anew", func(p *corev1.Pod) {
			volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}})(p)
			volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}})(p)
			volume(corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}})(p)
			volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}})(p)
		}, "", ""},

		{"being deleted", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, "PodTerminating", "shop/web"},
		{"on no node", func(p *corev1.Pod) { p.Spec.NodeName = "" }, "NotScheduled", ""},
		{"not opted in", func(p *corev1.Pod) { p.Annotations = nil }, "NotOptedIn", `is ""`},
		{"opted out", func(p *corev1.Pod) { p.Annotations[v1alpha1.AnnotationMigrate] = "false" }, "NotOptedIn", `"false"`},
		{"no class", func(p *corev1.Pod) { p.Spec.RuntimeClassName = nil }, "WrongRuntimeClass", `""`},
		{"two containers", func(p *corev1.Pod) { beside(p, corev1.Container{Name: "proxy"}, false) }, "", ""},
		{"one of two crashed", func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "proxy"}) }, "NotRunning", "container proxy"},
		{"sidecar", func(p *corev1.Pod) { beside(p, corev1.Container{Name: "s", RestartPolicy: always}, true) }, "", ""},
		{"sidecar that is not there", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "s", RestartPolicy: always}} }, "NotRunning", "container s"},
		{"sidecar that kubelet waits for", func(p *corev1.Pod) {
			beside(p, corev1.Container{Name: "s", RestartPolicy: always, StartupProbe: &corev1.Probe{}}, true)
		}, "UnsupportedLifecycle", "startupProbe"},
		{"sidecar with postStart", func(p *corev1.Pod) {
			beside(p, corev1.Container{Name: "s", RestartPolicy: always, Lifecycle: &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}}, true)
		}, "UnsupportedLifecycle", "container s"},
		{"init container", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "s"}} }, "", ""},
		{"debugged", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "dbg"}}}
		}, "EphemeralContainer", "dbg"},
		{"the host's", func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.HostPID, p.Spec.HostIPC = true, true, true }, "HostNamespace", "hostNetwork and hostPID and hostIPC"},
		{"shared processes", func(p *corev1.Pod) { p.Spec.ShareProcessNamespace = ptr(true) }, "HostNamespace", "shareProcessNamespace"},
		{"postStart", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
		}, "UnsupportedLifecycle", "container app"},
		{"preStop", func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{}}
		}, "", ""},
		{"GPU", resources("nvidia.com/gpu"), "UnsupportedDevice", "nvidia.com/gpu"},
		{"claimed device", func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "fpga"}} }, "UnsupportedDevice", "fpga"},
		{"block device", func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeDevices = []corev1.VolumeDevice{{Name: "disk"}}
		}, "UnsupportedDevice", "volume disk"},
		{"emptyDir", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), "", ""},
		{"emptyDir in memory", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}), "", ""},
		{"emptyDir of huge pages", volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "HugePages-2Mi"}}), "UnsupportedVolume", "medium HugePages-2Mi"},
		{"hostPath", volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}), "UnsupportedVolume", "/srv"},
		{"one node's claim", claimed("rwo"), "ReadWriteOnceVolume", "ReadWriteOnce)"},
		{"one pod's claim", claimed("rwop"), "ReadWriteOnceVolume", "ReadWriteOncePod)"},
		{"a claim of many", claimed("rwx"), "UnsupportedVolume", "ReadWriteMany"},
		{"a claim that is not there", claimed("gone"), "UnsupportedVolume", "(gone)"},
		{"a generic ephemeral volume", volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), "ReadWriteOnceVolume", "(web-data)"},
		{"a volume once", mounted(""), "", ""},
		{"two files of a volume", mounted("key", "key.pub"), "", ""},
		{"a volume twice", mounted("", ""), "UnsupportedVolume", "container app has volume data at /a and again at /b"},
		{"a volume and a file of it", mounted("", "key"), "UnsupportedVolume", "again at /b"},
		{"a file of a volume twice", mounted("key", "./key"), "UnsupportedVolume", "again at /b"},
		{"a directory and a file in it", mounted("d/key", "d"), "UnsupportedVolume", "again at /b"},
		{"an emptyDir twice", emptied(false, false), "", ""},
		{"an emptyDir, once read-only", emptied(false, true), "", ""},
		{"an emptyDir twice read-only", emptied(true, true), "UnsupportedVolume", "again at /b"},
		{"NFS", volume(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}), "UnsupportedVolume", "of the kind nfs"},
		{"CSI", volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}), "UnsupportedVolume", "of the kind csi"},
		{"pending", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, "NotRunning", "Pending"},
		{"crashed", func(p *corev1.Pod) { p.Status.ContainerStatuses = nil }, "NotRunning", "container app"},
		{"all at once", func(p *corev1.Pod) {
			p.Annotations, p.Spec.RuntimeClassName, p.Spec.HostNetwork = nil, nil, true
			resources("amd.com/gpu")(p)
			volume(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}})(p)
			volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}})(p)
			p.Status.ContainerStatuses = nil
		}, "NotOptedIn WrongRuntimeClass HostNamespace UnsupportedDevice UnsupportedVolume UnsupportedVolume NotRunning", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := good()
			c.change(p)
			all := Pod(p, Claims{
				"rwo": claim(corev1.ReadWriteOnce), "rwop": claim(corev1.ReadWriteOncePod), "rwx": claim(corev1.ReadWriteOnce, corev1.ReadWriteMany),
				"web-data": claim(corev1.ReadWriteOnce),
			})
			var reasons, lines []string
			for _, f := range all {
				reasons, lines = append(reasons, f.Reason), append(lines, f.String())
				if f.Message == "" || strings.Contains(f.String(), "\n") {
					t.Errorf("%q is not one line", f.String())
				}
			}
			if got := strings.Join(reasons, " "); got != c.want {
				t.Fatalf("reasons %q, want %q: %q", got, c.want, lines)
			}
			if !strings.Contains(strings.Join(lines, "\n"), c.says) {
				t.Errorf("%q does not say %q", lines, c.says)
			}
		})
	}
}

func TestSum(t *testing.T) {
	a, b := Found("A", "one is %d", 1).But("do this"), Found("B", "two")
	if got := Sum([]Finding{a}); got != (Finding{Reason: "A", Message: "one is 1 (do this)"}) {
		t.Errorf("one: %+v", got)
	}
	if got := Sum([]Finding{a, b}); got != (Finding{Reason: "A", Message: "A: one is 1 (do this); B: two"}) {
		t.Errorf("two: %+v", got)
	}
}

func TestRunningID(t *testing.T) {
	p := good()
	p.Status.ContainerStatuses = slices.Insert(p.Status.ContainerStatuses, 0, corev1.ContainerStatus{Name: "other", ContainerID: "containerd://bad"})
	for name, want := range map[string]string{"app": "c0ffee", "other": "", "none": ""} {
		if got := RunningID(p, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
