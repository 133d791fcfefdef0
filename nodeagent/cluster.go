package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
)

func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	return s, errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s))
}

// cluster is what the agent knows of the API server's objects: nodes, moves and the pause
// switch of the whole cluster, but only the pods of its own node.
type cluster struct {
	node, namespace string
	cache           ctrlcache.Cache
	// direct reads and writes the API server itself.
	direct client.Client
	// asked reads for others what they ask about, with a limit of its own on how often: direct decides moves.
	asked client.Client
}

func newCluster(cfg Config) (*cluster, error) {
	s, err := scheme()
	if err != nil {
		return nil, err
	}
	direct, err := client.New(cfg.Kubernetes, client.Options{Scheme: s})
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", cfg.Kubernetes.Host, err)
	}
	own := rest.CopyConfig(cfg.Kubernetes)
	own.RateLimiter = nil
	asked, err := client.New(own, client.Options{Scheme: s})
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", cfg.Kubernetes.Host, err)
	}
	c, err := ctrlcache.New(cfg.Kubernetes, ctrlcache.Options{
		Scheme: s, DefaultTransform: lean,
		ByObject: map[client.Object]ctrlcache.ByObject{
			&corev1.Pod{}: {Field: fields.OneTermEqualSelector("spec.nodeName", cfg.Node)},
			&corev1.ConfigMap{}: {Namespaces: map[string]ctrlcache.Config{
				cfg.Namespace: {FieldSelector: fields.OneTermEqualSelector("metadata.name", v1alpha1.PauseConfigMap)},
			}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cache of %s: %w", cfg.Kubernetes.Host, err)
	}
	return &cluster{node: cfg.Node, namespace: cfg.Namespace, cache: c, direct: direct, asked: asked}, nil
}

// lean leaves out of what is kept that nobody here asks for, which may be the greater part of it:
// who wrote which field, and a Node's list of images.
func lean(o any) (any, error) {
	if n, is := o.(*corev1.Node); is {
		n.Status.Images = nil
	}
	return ctrlcache.TransformStripManagedFields()(o)
}

// watch makes the informers, so that all are synced when the cache is.
func (c *cluster) watch(ctx context.Context) error {
	for _, o := range []client.Object{&corev1.Pod{}, &corev1.Node{}, &corev1.ConfigMap{}, &v1alpha1.PodMigration{}} {
		if _, err := c.cache.GetInformer(ctx, o); err != nil {
			return fmt.Errorf("watch %T: %w", o, err)
		}
	}
	return nil
}

// awayPause is how long an agent that starts waits for an API server that does not answer.
const awayPause = time.Second

// whileAway tries again for as long as the API server does not answer: kubelet would start an agent
// that ends for it later and later.
func whileAway(ctx context.Context, log *slog.Logger, try func(context.Context) error) error {
	for told := false; ; told = true {
		err := try(ctx)
		var away net.Error
		if !errors.As(err, &away) || ctx.Err() != nil {
			return err
		}
		if !told {
			log.Warn("the API server does not answer, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(awayPause):
		}
	}
}

// shared lists without copying: what is listed every second is only read.
const shared = client.UnsafeDisableDeepCopy

func (c *cluster) pods(ctx context.Context) ([]corev1.Pod, error) {
	var l corev1.PodList
	err := c.cache.List(ctx, &l, shared)
	return l.Items, err
}

func (c *cluster) nodes(ctx context.Context) ([]corev1.Node, error) {
	var l corev1.NodeList
	err := c.cache.List(ctx, &l, shared)
	return l.Items, err
}

// moves are those heard of, or, if fresh, those that the API server has now.
func (c *cluster) moves(ctx context.Context, fresh bool) ([]v1alpha1.PodMigration, error) {
	var l v1alpha1.PodMigrationList
	var err error
	if fresh {
		err = c.direct.List(ctx, &l)
	} else {
		err = c.cache.List(ctx, &l, shared)
	}
	return l.Items, err
}

// self is the agent's own Node.
func (c *cluster) self(ctx context.Context) (*corev1.Node, error) {
	n := &corev1.Node{}
	if err := c.cache.Get(ctx, client.ObjectKey{Name: c.node}, n); err != nil {
		return nil, fmt.Errorf("read the agent's own node: %w", err)
	}
	return n, nil
}

// paused tells whether new moves are stopped. What cannot be read counts as stopped.
func (c *cluster) paused(ctx context.Context) (bool, string) {
	cm := &corev1.ConfigMap{}
	err := c.cache.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: v1alpha1.PauseConfigMap}, cm)
	switch {
	case err != nil:
		return true, fmt.Sprintf("ConfigMap %s/%s cannot be read: %v", c.namespace, v1alpha1.PauseConfigMap, err)
	case cm.Data["paused"] != "false":
		return true, fmt.Sprintf("ConfigMap %s/%s says paused: %q", c.namespace, v1alpha1.PauseConfigMap, cm.Data["paused"])
	}
	return false, ""
}

// addresses are those of all nodes, by which their agents are reached.
func (c *cluster) addresses(ctx context.Context) (map[model.NodeID]netip.Addr, error) {
	nodes, err := c.nodes(ctx)
	if err != nil {
		return nil, err
	}
	return addressesOf(nodes), nil
}

// addressesOf are those of the nodes that have one.
func addressesOf(nodes []corev1.Node) map[model.NodeID]netip.Addr {
	found := map[model.NodeID]netip.Addr{}
	for _, n := range nodes {
		if a, ok := internalAddress(&n); ok {
			found[model.NodeID(n.Name)] = a
		}
	}
	return found
}

// zonesOf are those of the nodes that have one by their labels.
func zonesOf(nodes []corev1.Node) map[model.NodeID]string {
	found := map[model.NodeID]string{}
	for _, n := range nodes {
		if zone := n.Labels[corev1.LabelTopologyZone]; zone != "" {
			found[model.NodeID(n.Name)] = zone
		}
	}
	return found
}

func internalAddress(n *corev1.Node) (netip.Addr, bool) {
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(a.Address); err == nil {
			return ip.Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// resources converts what pods and nodes declare.
func resources(l corev1.ResourceList) model.Resources {
	return model.Resources{CPU: model.Cores(l.Cpu().AsApproximateFloat64()), Memory: model.Bytes(l.Memory().Value())}
}

// requests of a pod as the scheduler counts them, init containers that end left out: they
// have ended when it runs.
func requests(p *corev1.Pod) model.Resources {
	var sum model.Resources
	add := func(r model.Resources) { sum = sum.Plus(r) }
	for _, c := range p.Spec.Containers {
		add(resources(c.Resources.Requests))
	}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(resources(c.Resources.Requests))
		}
	}
	add(resources(p.Spec.Overhead))
	return sum
}

// holds tells whether a pod still holds its resources: it has not ended.
func holds(p *corev1.Pod) bool {
	return p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// requested is the sum over the pods that still hold their resources.
func requested(pods []corev1.Pod) model.Resources {
	var sum model.Resources
	for i := range pods {
		if holds(&pods[i]) {
			sum = sum.Plus(requests(&pods[i]))
		}
	}
	return sum
}
