package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/deploy"
	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/test/witness"
)

// Ticker describes a pod that ticks; see test/apps/ticker.
type Ticker struct {
	Namespace, Name string
	HeapMiB         int
	Work            time.Duration // CPU time burnt in every tick of 20 ms
	Peers           string        // annotation drover.dev/peers
	Node            string        // pinned by name, past every scheduler
	Movable         bool          // opted in, under the RuntimeClass drover
	Silent          bool          // sends no ticks
	CPU             string        // request
}

// PodSpec is the ticker's pod, with its labels and annotations.
func (c *Cluster) PodTemplate(t Ticker) corev1.PodTemplateSpec {
	args := []string{fmt.Sprintf("--heap-mib=%d", max(1, t.HeapMiB)), "--work=" + t.Work.String()}
	if !t.Silent {
		args = append(args, "--witness="+c.WitnessAddr)
	}
	container := corev1.Container{
		Name: "ticker", Image: deploy.Apps[0].Ref(c.tag), ImagePullPolicy: corev1.PullNever, Args: args,
		ReadinessProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}},
			PeriodSeconds: 1, TimeoutSeconds: 5,
		},
	}
	if t.CPU != "" {
		container.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(t.CPU)}
	}
	p := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": t.Name}, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{container},
			SchedulerName:                 v1alpha1.SchedulerName,
			NodeName:                      t.Node,
			TerminationGracePeriodSeconds: ptr(int64(1)),
		},
	}
	if t.Peers != "" {
		p.Annotations[v1alpha1.AnnotationPeers] = t.Peers
	}
	if t.Movable {
		p.Annotations[v1alpha1.AnnotationMigrate] = "true"
		p.Spec.RuntimeClassName = ptr(v1alpha1.RuntimeClassName)
	}
	return p
}

// Pod is the ticker as a bare pod.
func (c *Cluster) Pod(t Ticker) *corev1.Pod {
	p := c.PodTemplate(t)
	p.Namespace, p.Name = t.Namespace, t.Name
	return &corev1.Pod{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
}

// Deployment is the ticker as a Deployment of one replica.
func (c *Cluster) Deployment(t Ticker) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.Namespace, Name: t.Name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr(int32(1)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": t.Name}},
			Template: c.PodTemplate(t),
		},
	}
}

// ReplicaSet is the ticker as a ReplicaSet of one replica.
func (c *Cluster) ReplicaSet(t Ticker) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.Namespace, Name: t.Name},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr(int32(1)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": t.Name}},
			Template: c.PodTemplate(t),
		},
	}
}

// Neighbour is a pod that burns CPU on one node with so many threads.
func (c *Cluster) Neighbour(ns, name, node string, threads int) *corev1.Pod {
	p := c.Pod(Ticker{Namespace: ns, Name: name, Node: node, Silent: true})
	p.Spec.Containers[0].Args = []string{"spin", fmt.Sprintf("--threads=%d", threads)}
	p.Spec.Containers[0].ReadinessProbe = nil
	return p
}

// Ready waits until the pod is ready, and gives it as it is then.
func (c *Cluster) Ready(ctx context.Context, ns, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := Eventually(ctx, "pod "+ns+"/"+name+" ready", func(ctx context.Context) (bool, string) {
		if err := c.Client.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, pod); err != nil {
			return false, err.Error()
		}
		return IsReady(pod), describe(pod)
	})
	return pod, err
}

// OnlyPod waits until exactly one pod has the label app=app, and that one is ready.
func (c *Cluster) OnlyPod(ctx context.Context, ns, app string) (*corev1.Pod, error) {
	var pod *corev1.Pod
	err := Eventually(ctx, "one ready pod with app="+app, func(ctx context.Context) (bool, string) {
		pods := &corev1.PodList{}
		if err := c.Client.List(ctx, pods, client.InNamespace(ns), client.MatchingLabels{"app": app}); err != nil {
			return false, err.Error()
		}
		if len(pods.Items) != 1 {
			return false, fmt.Sprintf("%d pods", len(pods.Items))
		}
		pod = &pods.Items[0]
		return IsReady(pod), describe(pod)
	})
	return pod, err
}

// IsReady tells whether a pod is ready and stays.
func IsReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

func describe(p *corev1.Pod) string {
	s := fmt.Sprintf("%s on %q is %s", p.Name, p.Spec.NodeName, p.Status.Phase)
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionFalse {
			s += fmt.Sprintf("; %s: %s %s", c.Type, c.Reason, c.Message)
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			s += fmt.Sprintf("; %s waits: %s %s", c.Name, w.Reason, w.Message)
		}
	}
	return s
}

// Views asks every agent for its picture.
func (c *Cluster) Views(ctx context.Context) (map[string]view.Snapshot, error) {
	return c.ViewsOn(ctx, c.Nodes()...)
}

// ViewsOn asks the agents on those nodes.
func (c *Cluster) ViewsOn(ctx context.Context, nodes ...string) (map[string]view.Snapshot, error) {
	views := map[string]view.Snapshot{}
	for _, n := range nodes {
		var s view.Snapshot
		if err := c.get(ctx, n, "127.0.0.1:7950", "/v1/view", &s); err != nil {
			return nil, fmt.Errorf("agent on %s: %w", n, err)
		}
		views[n] = s
	}
	return views, nil
}

// Pictures are the agents' views and, by the name "scheduler", that by which pods are placed, which hears of
// things by itself.
func (c *Cluster) Pictures(ctx context.Context) (map[string]view.Snapshot, error) {
	views, err := c.Views(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := c.Lab.RESTConfig()
	if err != nil {
		return nil, err
	}
	pods := &corev1.PodList{}
	if err := c.Client.List(ctx, pods, client.InNamespace("drover-system"), client.MatchingLabels{"app.kubernetes.io/name": "drover-scheduler"}); err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("%d schedulers, want 1", len(pods.Items))
	}
	var s view.Snapshot
	if err := agentclient.Fetch(ctx, cfg, &pods.Items[0], agentclient.StatusPort, "/v1/view", agentclient.JSON(&s)); err != nil {
		return nil, fmt.Errorf("the scheduler: %w", err)
	}
	views["scheduler"] = s
	return views, nil
}

// Measured waits until every agent and the scheduler know that all nodes live, their loads, and fresh,
// kernel-stamped route times between them by both paths.
func (c *Cluster) Measured(ctx context.Context) error {
	nodes := c.Nodes()
	return Eventually(ctx, "route times between all nodes", func(ctx context.Context) (bool, string) {
		views, err := c.Pictures(ctx)
		if err != nil {
			return false, err.Error()
		}
		for by, s := range views {
			for _, from := range nodes {
				// One that is cordoned is leaving.
				if phase := s.Nodes[nodeID(from)].Phase; phase != model.Normal && phase != model.Leaving {
					return false, fmt.Sprintf("%s says that %s is %q", by, from, phase)
				}
				for _, to := range nodes {
					st := s.Nodes[nodeID(from)].State
					for _, path := range []model.Path{model.PathNode, model.PathPod} {
						r := st.RoutesBy(path)[nodeID(to)]
						if from != to && (r.Samples < 10 || r.Stamp != model.StampKernel) {
							return false, fmt.Sprintf("%s says of %s to %s by the %s path: %d samples stamped by %q", by, from, to, path, r.Samples, r.Stamp)
						}
					}
					if st.Load.At.IsZero() {
						return false, by + " knows no load of " + from
					}
				}
			}
		}
		return true, ""
	})
}

// Idle waits until every agent and the scheduler know that at least so many cores are idle on a node: what
// was started there and has come to rest counts as in use for a while.
func (c *Cluster) Idle(ctx context.Context, node string, cores model.Cores) error {
	return Eventually(ctx, fmt.Sprintf("%.2f cores of %s are idle", cores, node), func(ctx context.Context) (bool, string) {
		views, err := c.Pictures(ctx)
		if err != nil {
			return false, err.Error()
		}
		for by, s := range views {
			l := s.Nodes[nodeID(node)].Load(s.At)
			if idle := l.Idle().CPU; idle < cores {
				return false, fmt.Sprintf("%s says %.2f", by, idle)
			}
		}
		return true, ""
	})
}

// Able waits until every node is known to all as one that can take pods.
func (c *Cluster) Able(ctx context.Context) error {
	return Eventually(ctx, "every node can take pods", func(ctx context.Context) (bool, string) {
		views, err := c.Views(ctx)
		if err != nil {
			return false, err.Error()
		}
		for by, s := range views {
			for _, n := range c.Nodes() {
				if why := s.Nodes[nodeID(n)].State.CannotRestore; why != "" {
					return false, by + " says of " + n + ": " + why
				}
			}
		}
		return true, ""
	})
}

// Status asks a ticker for its own account of itself.
func (c *Cluster) Status(ctx context.Context, p *corev1.Pod) (witness.Tick, error) {
	var t witness.Tick
	return t, c.Ask(ctx, p, 8080, "/status", &t)
}

// Ask gets path from the ticker that serves at that port of the pod; into may be nil.
func (c *Cluster) Ask(ctx context.Context, p *corev1.Pod, port int, path string, into any) error {
	addr := fmt.Sprintf("%s:%d", p.Status.PodIP, port)
	if into == nil {
		_, err := c.text(ctx, p.Spec.NodeName, addr, path)
		return err
	}
	return c.get(ctx, p.Spec.NodeName, addr, path, into)
}

// Crash makes a ticker's process end with an error.
func (c *Cluster) Crash(ctx context.Context, p *corev1.Pod) error { return c.end(ctx, p, "/crash") }

// Done makes a ticker's process end as one that has done its work.
func (c *Cluster) Done(ctx context.Context, p *corev1.Pod) error { return c.end(ctx, p, "/done") }

func (c *Cluster) end(ctx context.Context, p *corev1.Pod, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.Status.PodIP+":8080"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http(p.Spec.NodeName).Do(req)
	if err == nil {
		resp.Body.Close()
	}
	return nil // the process ends before it answers
}

func (c *Cluster) get(ctx context.Context, node, addr, path string, into any) error {
	body, err := c.text(ctx, node, addr, path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), into)
}

// text gets http://addr/path from the node's network.
func (c *Cluster) text(ctx context.Context, node, addr, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http(node).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s%s: %s: %s", addr, path, resp.Status, body)
	}
	return string(body), nil
}

// http gives a client whose connections begin on the node.
func (c *Cluster) http(node string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: c.Lab.DialerOn(node), DisableKeepAlives: true}}
}

func ptr[T any](v T) *T { return &v }
