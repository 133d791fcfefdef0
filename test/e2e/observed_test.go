package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/cluster"
)

// Nobody says who talks to whom: web asks db through its Service, which hides db's pods from it. The first pod
// of web is far from db; the next one, of a new revision, goes to db's node, though that is the farthest from
// all others.
func TestTheNextPodGoesNearToWhatItsWorkloadTalksTo(t *testing.T) {
	ctx, c, ns := scene(t, "observed")
	t.Cleanup(func() { delays(context.Background(), t, c, time.Millisecond, time.Millisecond, time.Millisecond) })
	delays(ctx, t, c, 8*time.Millisecond, 8*time.Millisecond, time.Millisecond)
	seen(ctx, t, c, 8*time.Millisecond, 8*time.Millisecond)

	check(t, c.Client.Create(ctx, c.Deployment(cluster.Ticker{Namespace: ns, Name: "db", Node: "n1", Silent: true})))
	must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "db"))
	service := &corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "db"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}}}
	service.Namespace, service.Name = ns, "db"
	check(t, c.Client.Create(ctx, service))

	web := c.Deployment(cluster.Ticker{Namespace: ns, Name: "web", Node: "n2", Silent: true})
	asks := &web.Spec.Template.Spec.Containers[0]
	asks.Args, asks.ReadinessProbe = []string{"ask", "http://" + service.Spec.ClusterIP + "/healthz"}, nil
	check(t, c.Client.Create(ctx, web))
	first := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, "web"))

	of := func(name string) model.Workload {
		return model.WorkloadOf(ns, "Deployment", name)
	}
	check(t, cluster.Eventually(ctx, "all agents and the scheduler know whom web talks to, and where that is", func(ctx context.Context) (bool, string) {
		views, err := c.Pictures(ctx)
		if err != nil {
			return false, err.Error()
		}
		for by, s := range views {
			talk := s.Indexed().Talk
			peers, hosts := talk.Peers(of("web")), talk.Hosts(of("db"))
			if len(peers) != 1 || peers[0].Workload != of("db") || len(hosts) != 1 || hosts[0].Node != "n1" {
				return false, fmt.Sprintf("%s knows peers %v, and db on %v", by, peers, hosts)
			}
		}
		return true, ""
	}))

	check(t, c.Idle(ctx, "n1", 0.2)) // a near node without room is rightly passed by

	before := web.DeepCopy()
	web.Spec.Template.Spec.NodeName = ""
	check(t, c.Client.Patch(ctx, web, client.MergeFrom(before)))
	var next *corev1.Pod
	check(t, cluster.Eventually(ctx, "a pod of the new revision", func(ctx context.Context) (bool, string) {
		pods := &corev1.PodList{}
		if err := c.Client.List(ctx, pods, client.InNamespace(ns), client.MatchingLabels{"app": "web"}); err != nil {
			return false, err.Error()
		}
		for i := range pods.Items {
			if p := &pods.Items[i]; p.UID != first.UID && cluster.IsReady(p) {
				next = p
			}
		}
		return next != nil, fmt.Sprintf("%d pods", len(pods.Items))
	}))
	out, err := c.Tool(ctx, "explain", next.Name, "-n", ns)
	line := fmt.Sprintf("\npeers: observed: %s was seen to talk to %s (100 %%)\n", of("web"), of("db"))
	if err != nil || next.Spec.NodeName != "n1" || !strings.HasPrefix(out, "DECIDED ") || !strings.Contains(out, line) {
		t.Errorf("the first pod is on %s, the next on %s, want n1, and %q: %v\n%s", first.Spec.NodeName, next.Spec.NodeName, line, err, out)
	}
}
