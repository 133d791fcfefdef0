package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/controller"
	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/clients"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/remains"
)

var (
	killAfter = flag.Duration("nodekilled.after", 3*time.Second, "how long after the moves TestSourceNodeKilled kills the node")
	killLong  = flag.Bool("nodekilled.evicted", false, "have that node stay away until Kubernetes has evicted its pods, some 6 min")
)

// Phases of the clients besides the soak's: from just before the node is killed, and when all else was seen to work.
const (
	phaseKilled = "killed"
	phaseSince  = "since"
)

// What docs/moves.md promises when the node dies that holds the old addresses of pods which have moved away from
// it: who uses one hears nothing more by it, not even an end; the pods lack nothing, and are reached in all other
// ways at once; the leases go on until it is known what has become of the node, and then the pods' own ends of
// those connections end, too. Nothing is left, on no node.
func TestSourceNodeKilled(t *testing.T) {
	_, c, ns := scene(t, "nodekilled")
	ctx, cancel := context.WithTimeout(t.Context(), *killAfter+12*time.Minute)
	defer cancel()
	before := must[[]string](t)(remains.Find(ctx, c.Lab, c.Client))
	source, target, third := spareNode(ctx, t, c)
	image := must[string](t)(c.LoadSoftware(ctx))
	servers := []*keptServer{{Software: redisServer()}, {Software: nginxServer(t)}}
	for _, s := range servers {
		s.Namespace, s.Image, s.Node, s.Keep = ns, image, source, "30m"
		check(t, c.Start(ctx, s.Software))
	}
	dial, outside := c.Lab.DialerOn(third), c.Lab.DialerOn(lab.ControlPlane)
	for _, s := range servers {
		s.pod = must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, s.Name))
		s.service = serviceAddr(ctx, t, c, s.pod)
		check(t, cluster.Eventually(ctx, "the nodes know the Service of "+s.Name, func(ctx context.Context) (bool, string) {
			err := connects(ctx, dial, s.service)
			return err == nil, fmt.Sprint(err)
		}))
	}
	servers[0].work(&clients.Redis{Address: servers[0].service, Dial: dial})
	servers[1].work(&clients.HTTP{Address: servers[1].service, Path: "/mime.types", Dial: dial})
	held := map[string]*redisConn{
		"by the Service":          must[*redisConn](t)(redis{dial, servers[0].service}.connect(ctx)),
		"from outside, by itself": must[*redisConn](t)(redis{outside, servers[0].at()}.connect(ctx)),
	}
	run := must[string](t)(held["by the Service"].runID())

	phase := func(name string) {
		for _, s := range servers {
			s.phase(name)
			check(t, s.goOn(ctx, 5))
		}
	}
	phase(phaseBefore)
	for _, s := range servers {
		s.move = keeping(ctx, t, c, s.pod, target, phase)
		holds(ctx, t, c, s.pod, s.move.Status.Connections.HolderImage)
	}
	<-time.After(*killAfter) // it is part of what is tested
	old := servers[0].at()
	for _, s := range servers {
		s.pod = must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, s.Name))
	}
	for which, conn := range held {
		if _, err := conn.do("PING"); err != nil {
			t.Fatalf("a connection %s, before the node is killed: %v", which, err)
		}
	}
	phase(phaseKilled)
	check(t, c.Lab.StopNode(ctx, source))
	killed, back := time.Now(), false
	t.Cleanup(func() {
		if !back {
			check(t, c.Lab.StartNode(source))
		}
	})
	for _, s := range servers {
		check(t, connects(ctx, dial, s.service))
		check(t, connects(ctx, dial, s.at()))
		check(t, connects(ctx, outside, s.at())) // where Services have no address
	}
	t.Logf("%v after the node was killed all new connections were made", time.Since(killed).Round(time.Millisecond))
	for which, conn := range held {
		if _, err := conn.do("PING"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection %s, after the node was killed: %v; want nothing for %v", which, err, patience)
		}
	}
	phase(phaseSince)
	now := must[*redisConn](t)(redis{dial, servers[0].service}.connect(ctx))
	defer now.Close()
	if list := must[string](t)(now.do("CLIENT", "LIST")); !strings.Contains(list, "laddr="+old) {
		t.Errorf("to Redis no connection is left by %s: %s", old, list)
	}
	if *killLong {
		servers[0].over(ctx, t, c, controller.ReasonSourceGone, "is evicted")
		// nginx itself ends what says nothing for 75 s.
		servers[1].over(ctx, t, c, v1alpha1.ReasonLastConnection, "no connection has used")
	}
	for _, s := range servers {
		m := must[*v1alpha1.PodMigration](t)(c.Until(ctx, s.move, "is there", func(*v1alpha1.PodMigration) bool { return true }))
		if ended := m.Status.Connections.LeaseEnded; ended != *killLong {
			t.Errorf("%s: the lease has ended: %v, while the node is away: %s", s.Name, ended, m.Status.Connections.LeaseMessage)
		}
	}
	t.Logf("the node comes back %v after it was killed", time.Since(killed).Round(time.Second))
	check(t, c.Lab.StartNode(source))
	back = true
	if !*killLong {
		for _, s := range servers {
			s.over(ctx, t, c, controller.ReasonSourceGone, "was booted")
		}
	}
	t.Logf("the leases have ended, and their holders are gone, %v after it was killed", time.Since(killed).Round(time.Second))
	for which, conn := range held {
		_, err := conn.do("PING")
		t.Logf("a connection %s, after the end of the lease: %v", which, err)
		if err == nil {
			t.Errorf("a connection %s is answered after the end of the lease", which)
		}
	}
	if list := must[string](t)(now.do("CLIENT", "LIST")); strings.Contains(list, "laddr="+old) {
		t.Errorf("the lease of %s has ended, and Redis has connections by it: %s", old, list)
	}
	if is := must[string](t)(now.runID()); is != run {
		t.Errorf("it is run %s of Redis, was %s: it started anew", is, run)
	}
	for _, s := range servers {
		s.end(ctx, t, c)
	}
	check(t, c.Lab.WaitReady(ctx, source))
	if left := left(c, before); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, "; "))
	}
	check(t, c.Measured(ctx)) // the lab is as it was
}

// spareNode gives a node that the cluster can do without, and the two others.
func spareNode(ctx context.Context, t *testing.T, c *cluster.Cluster) (spare, second, third string) {
	t.Helper()
	pods := &corev1.PodList{}
	check(t, c.Client.List(ctx, pods, client.InNamespace("drover-system")))
	nodes := c.Nodes()
	i := slices.IndexFunc(nodes, func(n string) bool {
		return !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool {
			return p.Spec.NodeName == n && slices.Contains([]string{"drover-controller", "drover-scheduler"}, p.Labels["app.kubernetes.io/name"])
		})
	})
	if i < 0 {
		t.Fatal("Drover's controller and scheduler are on all nodes")
	}
	return nodes[i], next(nodes, nodes[i]), next(nodes, next(nodes, nodes[i]))
}

// connects makes a new connection, once.
func connects(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), address string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("a new connection to %s: %w", address, err)
	}
	return conn.Close()
}

// keptServer is a server that takes its old address along when it moves, with clients.
type keptServer struct {
	cluster.Software
	*outsider
	pod     *corev1.Pod // as it is now
	service string
	move    *v1alpha1.PodMigration
}

// work has clients begin; nginx would close their connections after 1000 requests.
func (s *keptServer) work(service clients.Service) {
	s.outsider = outsideClients(clients.Config{Clients: 10, Every: 100 * time.Millisecond, Patience: patience}, service)
}

// at is where the pod is reached.
func (s *keptServer) at() string { return net.JoinHostPort(s.pod.Status.PodIP, fmt.Sprint(s.Port)) }

// over fails unless the lease ends for that reason, and says so.
func (s *keptServer) over(ctx context.Context, t *testing.T, c *cluster.Cluster, reason, why string) {
	t.Helper()
	m := must[*v1alpha1.PodMigration](t)(c.Until(ctx, s.move, "is let go", func(m *v1alpha1.PodMigration) bool { return len(m.Finalizers) == 0 }))
	l := m.Status.Connections
	if l.LeaseReason != reason || !strings.Contains(l.LeaseMessage, why) || !l.TargetLeft {
		t.Errorf("%s: the lease ended as %s: %s, the target left: %v; want %s: %s", s.Name, l.LeaseReason, l.LeaseMessage, l.TargetLeft, reason, why)
	}
	events := &corev1.EventList{}
	check(t, c.Client.List(ctx, events, client.InNamespace(s.Namespace)))
	if !slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
		return e.Reason == "AddressLeaseEnded" && e.InvolvedObject.UID == s.pod.UID && strings.Contains(e.Message, l.LeaseMessage)
	}) {
		t.Errorf("%s: no Event on the pod says that the lease has ended", s.Name)
	}
}

// end fails unless each client has lost the connection by the old address, when the node died, and nothing else;
// and the pod is the one that has moved.
func (s *keptServer) end(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	r := s.outsider.end(t)
	t.Logf("%s: %d requests; phases %+v", s.Name, r.Done, r.Phases)
	if r.Failed != s.Clients || r.Reconnected != s.Clients || slices.ContainsFunc(r.Failures, func(f string) bool { return !strings.HasPrefix(f, phaseKilled) }) {
		t.Errorf("%s: %d requests failed, and %d connections were made anew; want one of each client, when the node was killed: %q", s.Name, r.Failed, r.Reconnected, r.Failures)
	}
	if r.Lost > 0 {
		t.Errorf("%s: %d acknowledged writes are lost: %s", s.Name, r.Lost, r.FirstLost)
	}
	if last := r.Phases[len(r.Phases)-1]; last.Name != phaseSince {
		t.Errorf("%s: no request was answered since the node was killed: %+v", s.Name, r.Phases)
	}
	now := must[*corev1.Pod](t)(c.OnlyPod(ctx, s.Namespace, s.Name))
	if n := now.Status.ContainerStatuses[0].RestartCount; now.UID != s.pod.UID || n != 0 {
		t.Errorf("%s: pod %s has restarted %d times (it was pod %s)", s.Name, now.Name, n, s.pod.Name)
	}
}
