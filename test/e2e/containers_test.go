package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/witness"
)

// part is a container of a pod of several: its name, and the port of its HTTP status.
type part struct {
	name string
	port int
}

var parts = []part{{"proxy", 8081}, {"ticker", 8080}, {"teller", 8082}}

// several is a pod of several containers with what each of them was.
type several struct {
	pod  *corev1.Pod
	was  map[string]witness.Tick
	talk witness.Talk // of the ticker
	to   string
}

// severalContainers is the ticker as a Deployment of one pod: an init container that ticks
// once, a sidecar, and two containers that talk to each other all the time. Each writes down
// what it ticks: in a volume that several have, in one in memory, in its own file system.
func severalContainers(c *cluster.Cluster, t cluster.Ticker) *appsv1.Deployment {
	d := c.Deployment(t)
	s := &d.Spec.Template.Spec
	first := s.Containers[0]
	with := func(name string, port int, args ...string) corev1.Container {
		own := *first.DeepCopy()
		own.Name, own.Args = name, append(own.Args, fmt.Sprintf("--listen=:%d", port))
		own.Args = append(own.Args, args...)
		own.ReadinessProbe.HTTPGet.Port = intstr.FromInt(port)
		return own
	}
	s.Volumes = []corev1.Volume{
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
	}
	first.VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}, {Name: "memory", MountPath: "/memory"}}
	before, proxy := with("before", 8083, "--ticks=1"), with("proxy", 8081, "--journal=/memory/proxy")
	before.ReadinessProbe, proxy.RestartPolicy = nil, ptr(corev1.ContainerRestartPolicyAlways)
	s.InitContainers = []corev1.Container{before, proxy}
	s.Containers = []corev1.Container{
		with("ticker", 8080, "--talk-on=127.0.0.1:7001", "--ask=127.0.0.1:7002", "--journal=/scratch/ticker"),
		with("teller", 8082, "--talk-on=127.0.0.1:7002", "--journal=/teller"),
	}
	return d
}

// startSeveral starts a pod of several containers, and waits until they tick and talk.
func startSeveral(ctx context.Context, t *testing.T, c *cluster.Cluster, ns string) several {
	t.Helper()
	d := severalContainers(c, cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: 48, Movable: true})
	check(t, c.Client.Create(ctx, d))
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	m := several{pod: pod, was: map[string]witness.Tick{}, to: other(pod.Spec.NodeName)}
	for _, p := range parts {
		var is witness.Tick
		check(t, c.Ask(ctx, pod, p.port, "/status", &is))
		m.was[p.name] = is
		heard(ctx, t, c, is.Instance, 10)
	}
	m.talk = talked(ctx, t, c, pod, 8080, 100)
	return m
}

// talked waits until the ticker at the port has heard number n.
func talked(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod, port int, n uint64) witness.Talk {
	t.Helper()
	var says witness.Talk
	check(t, cluster.Eventually(ctx, fmt.Sprintf("number %d is heard at port %d", n, port), func(ctx context.Context) (bool, string) {
		if err := c.Ask(ctx, pod, port, "/talk", &says); err != nil {
			return false, err.Error()
		}
		return says.Last >= n, fmt.Sprintf("%+v", says)
	}))
	return says
}

// goesOn wants every container's process of before in the pod of now, and that no other
// process was started in it.
func (m several) goesOn(ctx context.Context, t *testing.T, c *cluster.Cluster, now *corev1.Pod) {
	t.Helper()
	m.live(ctx, t, c)
	for _, p := range parts {
		was := m.was[p.name]
		var is witness.Tick
		check(t, c.Ask(ctx, now, p.port, "/status", &is))
		if is.Instance != was.Instance || is.Start != was.Start || is.Now != is.Start || is.Seq < was.Seq {
			t.Errorf("%s: before %+v, after %+v: want the same process with its memory", p.name, was, is)
		}
		a := c.Witness.Account(was.Instance)
		if fault := a.Fault(); fault != "" {
			t.Errorf("%s: %s", p.name, fault)
		}
		var written witness.Talk
		check(t, c.Ask(ctx, now, p.port, "/journal", &written))
		if written.Odd != "" || written.Last < is.Seq {
			t.Errorf("%s: its file tells of %d of %d ticks: %s", p.name, written.Last, is.Seq, written.Odd)
		}
		t.Logf("%s: %d ticks from %v, longest gap %s", p.name, a.Ticks, a.Froms, a.Gap)
	}
	says := talked(ctx, t, c, now, 8080, m.talk.Last+1)
	for _, port := range []int{8080, 8082} {
		if says := talked(ctx, t, c, now, port, says.Last+100); says.Odd != "" {
			t.Errorf("the talk at port %d: %s", port, says.Odd)
		}
	}
	for _, s := range slices.Concat(now.Status.InitContainerStatuses, now.Status.ContainerStatuses) {
		if s.RestartCount != 0 {
			t.Errorf("container %s was restarted %d times", s.Name, s.RestartCount)
		}
	}
	ours := []string{m.was["proxy"].Instance, m.was["ticker"].Instance, m.was["teller"].Instance}
	for _, instance := range c.Witness.Since(ours[0]) {
		if h, _ := c.Witness.First(instance); h.From == now.Status.PodIP && !slices.Contains(ours, instance) {
			t.Errorf("a process that was none of the pod's ticks in it: %+v", h)
		}
	}
}

// A pod with an init container, a sidecar and two containers moves as one: all go on where
// they were, and agree with each other; logs, exec and port-forward work.
func TestSeveralContainersMove(t *testing.T) {
	ctx, c, ns := scene(t, "several")
	m := startSeveral(ctx, t, c, ns)
	end := must[*v1alpha1.PodMigration](t)(c.Ended(ctx, must[*v1alpha1.PodMigration](t)(c.Order(ctx, m.pod, m.to))))
	if end.Status.Phase != v1alpha1.PhaseCompleted {
		t.Fatalf("phase %s: %s: %s; conditions %+v", end.Status.Phase, end.Status.DecisionReason, end.Status.DecisionMessage, end.Status.Conditions)
	}
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
	if pod.Spec.NodeName != m.to || pod.UID == m.pod.UID || len(pod.OwnerReferences) != 1 || pod.OwnerReferences[0].UID != m.pod.OwnerReferences[0].UID {
		t.Errorf("%s on %s, owners %v; want another pod on %s, owners %v", pod.Name, pod.Spec.NodeName, pod.OwnerReferences, m.to, m.pod.OwnerReferences)
	}
	if n := len(pod.Spec.InitContainers); n != 1 || pod.Spec.InitContainers[0].Name != "proxy" {
		t.Errorf("init containers %+v, want the sidecar alone", pod.Spec.InitContainers)
	}
	m.goesOn(ctx, t, c, pod)
	for _, p := range parts {
		m.reached(ctx, t, c, pod, p)
	}
}

// reached: kubectl comes to the container by each of its ways.
func (m several) reached(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod, p part) {
	t.Helper()
	check(t, c.Ask(ctx, pod, p.port, "/log?line=after-the-move", nil))
	check(t, cluster.Eventually(ctx, "kubectl logs of "+p.name+" has the new line", func(ctx context.Context) (bool, string) {
		out, err := c.Kubectl(ctx, "logs", pod.Name, "-n", pod.Namespace, "-c", p.name)
		return err == nil && strings.Contains(out, "after-the-move"), fmt.Sprintf("%v\n%s", err, out)
	}))
	status := fmt.Sprintf("127.0.0.1:%d/status", p.port)
	out, err := c.Kubectl(ctx, "exec", pod.Name, "-n", pod.Namespace, "-c", p.name, "--", "/ticker", "get", "http://"+status)
	m.tells(t, p, "exec", out, err)
	out, err = c.Forwarded(ctx, pod, p.port, "/status")
	m.tells(t, p, "port-forward", out, err)
}

func (m several) tells(t *testing.T, p part, by, out string, err error) {
	t.Helper()
	var is witness.Tick
	if err == nil {
		err = json.Unmarshal([]byte(out), &is)
	}
	if err != nil || is.Instance != m.was[p.name].Instance {
		t.Errorf("kubectl %s, container %s: %v: %q; want the status of instance %s", by, p.name, err, out, m.was[p.name].Instance)
	}
}

// A move that is given up while the containers are held: all go on together where they were.
func TestSeveralContainersStay(t *testing.T) {
	for name, spoil := range map[string]func(context.Context, *testing.T, *cluster.Cluster, several) *v1alpha1.PodMigration{
		"the move is deleted": deletePassed,
		"no copy can be restored": func(ctx context.Context, t *testing.T, c *cluster.Cluster, m several) *v1alpha1.PodMigration {
			breakCRIU(ctx, t, c, m.to)
			return must[*v1alpha1.PodMigration](t)(c.Ended(ctx, must[*v1alpha1.PodMigration](t)(c.Order(ctx, m.pod, m.to))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, c, ns := scene(t, "several-stay")
			m := startSeveral(ctx, t, c, ns)
			end := spoil(ctx, t, c, m)
			t.Logf("phase %s, decision %s: %s: %s", end.Status.Phase, end.Status.Decision, end.Status.DecisionReason, end.Status.DecisionMessage)
			if end.Status.Decision != v1alpha1.Abort {
				t.Errorf("decision %q, want %q", end.Status.Decision, v1alpha1.Abort)
			}
			pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "counter"))
			if pod.UID != m.pod.UID || pod.Spec.NodeName != m.pod.Spec.NodeName {
				t.Errorf("%s on %s, want %s on %s still", pod.Name, pod.Spec.NodeName, m.pod.Name, m.pod.Spec.NodeName)
			}
			m.goesOn(ctx, t, c, pod)
		})
	}
}

// deletePassed deletes the move while the first copy is passed, and held, and kubelet has not
// asked for the others yet; it gives the move as it was decided.
func deletePassed(ctx context.Context, t *testing.T, c *cluster.Cluster, m several) *v1alpha1.PodMigration {
	t.Helper()
	move := must[*v1alpha1.PodMigration](t)(c.Order(ctx, m.pod, m.to))
	must[*v1alpha1.PodMigration](t)(c.Seen(ctx, move, createWaits))
	kubelet := func(signal string) error {
		_, err := c.Lab.ExecInNode(context.WithoutCancel(ctx), m.to, "sh", "-c", "kill -"+signal+" $(pidof kubelet)")
		return err
	}
	t.Cleanup(func() { check(t, kubelet("CONT")) })
	check(t, kubelet("STOP"))
	check(t, cluster.Eventually(ctx, "a copy is passed on "+m.to, func(ctx context.Context) (bool, string) {
		out, err := c.Lab.ExecInNode(ctx, m.to, "sh", "-c", "cat /run/drover/restores/*.json")
		return err == nil && strings.Contains(out, `"passed":true`), out
	}))
	check(t, c.Client.Delete(ctx, move))
	end := must[*v1alpha1.PodMigration](t)(c.Seen(ctx, move, func(m *v1alpha1.PodMigration) bool { return m.Status.Decision != "" }))
	m.live(ctx, t, c) // whatever the target's kubelet does
	check(t, kubelet("CONT"))
	check(t, cluster.Eventually(ctx, "the move is gone", func(ctx context.Context) (bool, string) {
		err := c.Client.Get(ctx, client.ObjectKeyFromObject(move), move)
		return apierrors.IsNotFound(err), fmt.Sprintf("phase %s, %v", move.Status.Phase, err)
	}))
	return end
}

// live waits until every container ticks on.
func (m several) live(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for _, p := range parts {
		last, _ := c.Witness.Last(m.was[p.name].Instance)
		heard(ctx, t, c, m.was[p.name].Instance, last.Seq+50)
	}
}
