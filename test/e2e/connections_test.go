package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/clients"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/remains"
)

// lineClients is how many are in each place.
const lineClients = 4

// Whoever exchanges lines with a pod goes on doing so over the same connections when the pod moves, from
// wherever it is: a pod on the source's node, on the target's, on another by the Service, and a machine
// that is no node, over IPv4 and over IPv6; so too when it moves on while its first address is leased, back to the node that holds that,
// and once more. When all have ended their connections the leases end, and nothing is left.
func TestConnectionsGoAlong(t *testing.T) {
	ctx, c, ns := scene(t, "connections")
	before := must[[]string](t)(remains.Find(ctx, c.Lab, c.Client))
	server := lineServer(ctx, t, c, ns)
	from, to := server.Spec.NodeName, other(server.Spec.NodeName)
	if len(server.Status.PodIPs) != 2 {
		t.Fatalf("the pod has the addresses %v, want one of each family", server.Status.PodIPs)
	}
	direct, direct6 := net.JoinHostPort(server.Status.PodIP, "8081"), net.JoinHostPort(server.Status.PodIPs[1].IP, "8081")
	outside := outsideClients(clients.Config{Clients: lineClients, Every: 5 * time.Millisecond, Patience: 10 * time.Second},
		&clients.Lines{Address: direct, Dial: c.Lab.DialerOn(lab.ControlPlane)})
	inside := map[string]*cluster.Clients{}
	for node, addresses := range map[string][]string{"n1": serviceAddrs(ctx, t, c, server), from: {direct}, to: {direct, direct6}} {
		name := "clients-" + node
		check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: name, Node: node, Silent: true})))
		pod := must[*corev1.Pod](t)(c.Ready(ctx, ns, name))
		for _, address := range addresses {
			inside["in a pod on "+node+", at "+address] = must[*cluster.Clients](t)(c.StartClients(ctx, pod, lineClients, "lines", address))
		}
	}
	phase := func(name string) {
		outside.phase(name)
		for _, w := range inside {
			check(t, w.Phase(name))
		}
		// Those outside work as fast as the others.
		check(t, outside.goOn(ctx, 100))
	}
	idle := must[*idler](t)(idleAt(ctx, c, direct))
	phase(phaseBefore)
	move := keeping(ctx, t, c, server, to, phase)
	holds(ctx, t, c, server, move.Status.Connections.HolderImage)
	check(t, idle.says(2))
	for _, node := range []string{from, to} { // so that it is seen if one is left
		now := must[[]string](t)(remains.Find(ctx, c.Lab, c.Client))
		if !slices.ContainsFunc(now, func(l string) bool { return strings.Contains(l, "node "+node+": device drover") }) {
			t.Errorf("on node %s no end of the tunnel is found: %q", node, now)
		}
	}
	for i, next := range []string{from, to} {
		server = must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, server.Labels["app"]))
		again := keeping(ctx, t, c, server, next, phase)
		if all := again.Status.Connections.Earlier; len(all) == 0 || all[0].UID != move.UID {
			t.Errorf("with move %d to %s went the earlier addresses %+v, want that of the first among them", i+2, next, all)
		}
		check(t, idle.says(i+3))
	}
	idle.Close()
	saw := map[string]clients.Report{"outside of the cluster": outside.end(t)}
	for place, w := range inside {
		saw[place] = must[clients.Report](t)(w.End())
	}
	for place, r := range saw {
		t.Logf("%s: %d lines; %+v", place, r.Done, r.Phases)
		if r.Failed > 0 || r.Reconnected > 0 {
			t.Errorf("%s: %d lines failed, %d connections were made anew, want none; the first: %q", place, r.Failed, r.Reconnected, r.Failures[:min(3, len(r.Failures))])
		}
		if len(r.Phases) < 3 || r.Phases[len(r.Phases)-1].Name != phaseBetween {
			t.Errorf("%s: lines came back in the phases %+v, want some in each, to the last", place, r.Phases)
		}
	}
	leftNothing(ctx, t, c, move, before)
}

// keeping moves a pod, and fails unless it keeps its connections.
func keeping(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod, to string, phase func(string)) *v1alpha1.PodMigration {
	t.Helper()
	phase(phaseMoving)
	move := must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, to))
	move = must[*v1alpha1.PodMigration](t)(c.Ended(ctx, move))
	t.Logf("%s, to %s, frozen for %v; connections %+v", move.Status.Phase, to, move.Status.FrozenTime, move.Status.Connections)
	if move.Status.Phase != v1alpha1.PhaseCompleted || move.Status.Connections.State != v1alpha1.ConnectionsKept {
		t.Fatalf("the move: %s, conditions %+v", move.Status.Phase, move.Status.Conditions)
	}
	phase(phaseBetween)
	return move
}

// lineServer is a pod that echoes lines, on n2 or n3 and behind a Service, and asks to keep its connections.
func lineServer(ctx context.Context, t *testing.T, c *cluster.Cluster, ns string) *corev1.Pod {
	t.Helper()
	tick := cluster.Ticker{Namespace: ns, Name: "lines", HeapMiB: 16, Movable: true, Silent: true}
	d := c.Deployment(tick)
	pod := &d.Spec.Template
	pod.Annotations[v1alpha1.AnnotationKeepConnections] = "10m"
	pod.Annotations[v1alpha1.AnnotationKeepConnectionsRequired] = "true"
	pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpNotIn, Values: []string{"n1"}}}}}}}}
	pod.Spec.Containers[0].Args = append(pod.Spec.Containers[0].Args, "--lines=:8081")
	check(t, c.Client.Create(ctx, d))
	service := &corev1.Service{ObjectMeta: d.ObjectMeta}
	service.ResourceVersion, service.UID = "", ""
	policy := corev1.IPFamilyPolicyRequireDualStack
	service.Spec = corev1.ServiceSpec{IPFamilyPolicy: &policy, Selector: map[string]string{"app": tick.Name}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8081)}}}
	check(t, c.Client.Create(ctx, service))
	return must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, tick.Name))
}

// holds fails unless the pod's object is there, is nobody's, and runs an image that does nothing.
func holds(ctx context.Context, t *testing.T, c *cluster.Cluster, source *corev1.Pod, image string) {
	t.Helper()
	check(t, cluster.Eventually(ctx, "pod "+source.Name+" holds its address", func(ctx context.Context) (bool, string) {
		p := &corev1.Pod{}
		if err := c.Client.Get(ctx, client.ObjectKeyFromObject(source), p); err != nil {
			return false, err.Error()
		}
		s := p.Status.ContainerStatuses[0]
		return p.UID == source.UID && p.Labels["app"] == "" && p.Status.PodIP == source.Status.PodIP &&
			p.Spec.Containers[0].Image == image && s.State.Running != nil && s.ContainerID != source.Status.ContainerStatuses[0].ContainerID, fmt.Sprintf("labels %v, %+v", p.Labels, s)
	}))
}

// leftNothing fails unless the lease ends as its connections have, and nothing is left of it.
func leftNothing(ctx context.Context, t *testing.T, c *cluster.Cluster, move *v1alpha1.PodMigration, before []string) {
	t.Helper()
	closed := time.Now()
	move = must[*v1alpha1.PodMigration](t)(c.Until(ctx, move, "is let go", func(m *v1alpha1.PodMigration) bool { return len(m.Finalizers) == 0 }))
	if s := move.Status.Connections; s.LeaseReason != v1alpha1.ReasonLastConnection || !s.TargetLeft {
		t.Errorf("the lease ended for the reason %s (%s), the target left: %v", s.LeaseReason, s.LeaseMessage, s.TargetLeft)
	}
	ended := meta.FindStatusCondition(move.Status.Conditions, v1alpha1.ConditionAddressLeased).LastTransitionTime
	t.Logf("the lease ended %v after the last connection, the holder was gone after %v", ended.Sub(closed).Round(time.Second), time.Since(closed).Round(time.Second))
	if left := left(c, before); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, "; "))
	}
	t.Logf("nothing is left after %v", time.Since(closed).Round(time.Second))
}

// tunnelsGone waits until no program of a tunnel is left on this machine. An old sandbox's namespace is there
// until its stack has given up to end connections that are none (tcp_orphan_retries, some 100 s): nobody
// hears that, and the other tests go on meanwhile.
func tunnelsGone() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return cluster.Eventually(ctx, "the tunnels' programs are gone", func(context.Context) (bool, string) {
		programs, err := loaded("drover_left", "drover_new")
		return err == nil && len(programs) == 0, fmt.Sprintf("%v, %v", programs, err)
	})
}

// loaded are the names of this machine's BPF programs that begin so.
func loaded(begin ...string) (names []string, _ error) {
	for id, err := ebpf.ProgramGetNextID(0); ; id, err = ebpf.ProgramGetNextID(id) {
		if err != nil { // the last one was seen
			return names, nil
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone meanwhile
		}
		info, err := p.Info()
		p.Close()
		if err != nil {
			return nil, err
		}
		for _, b := range begin {
			if strings.HasPrefix(info.Name, b) {
				names = append(names, info.Name)
			}
		}
	}
}

// outsider are clients outside of all pods: on the control plane's machine, which runs no pods and has no node's
// rules, or on a node.
type outsider struct {
	clients.Config
	to   *io.PipeWriter
	done chan clients.Report
	err  error
}

func outsideClients(work clients.Config, s clients.Service) *outsider {
	in, to := io.Pipe()
	work.Answered = &atomic.Int64{}
	o := &outsider{Config: work, to: to, done: make(chan clients.Report, 1)}
	go func() {
		var r clients.Report
		r, o.err = clients.Run(work, s, in)
		o.done <- r
	}()
	return o
}

// idler is a connection from outside on which nothing is said during a move: whatever else came by it
// would be taken for its next word.
type idler struct {
	net.Conn
	in *bufio.Reader
}

func idleAt(ctx context.Context, c *cluster.Cluster, address string) (*idler, error) {
	conn, err := c.Lab.DialerOn(lab.ControlPlane)(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	i := &idler{conn, bufio.NewReader(conn)}
	return i, i.says(1)
}

// says sends line n, and hears it.
func (i *idler) says(n int) error {
	if err := i.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(i, n); err != nil {
		return fmt.Errorf("an idle connection: %w", err)
	}
	if got, err := i.in.ReadString('\n'); err != nil || got != fmt.Sprintln(n) {
		return fmt.Errorf("an idle connection: line %d came back as %q: %w", n, got, err)
	}
	return nil
}

func (o *outsider) phase(name string) { fmt.Fprintln(o.to, name) }

// goOn waits until so many requests more for each were answered.
func (o *outsider) goOn(ctx context.Context, requests int) error {
	due := o.Answered.Load() + int64(requests*o.Clients)
	return cluster.Eventually(ctx, "clients outside of all pods are answered", func(context.Context) (bool, string) {
		now := o.Answered.Load()
		return now >= due, fmt.Sprintf("%d of %d", now, due)
	})
}

func (o *outsider) end(t *testing.T) clients.Report {
	t.Helper()
	o.to.Close()
	r := <-o.done
	check(t, o.err)
	return r
}
