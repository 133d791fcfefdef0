package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/drover-project/drover/test/bench/overhead"
)

// cluster is a kube-apiserver and an etcd with the Node objects of a world.
type cluster struct {
	env        *envtest.Environment
	set        *kubernetes.Clientset
	world      *world
	kubeconfig []byte
	events     bool // of RouteTime
}

// newCluster starts it. KUBEBUILDER_ASSETS says where the programs are.
func newCluster(ctx context.Context, w *world) (c *cluster, err error) {
	c = &cluster{world: w, env: &envtest.Environment{CRDs: overhead.Definitions()}}
	// Nodes are ready when they are made, and nobody controls pods.
	c.env.ControlPlane.GetAPIServer().Configure().Append("disable-admission-plugins", "TaintNodesByCondition").
		Append("max-requests-inflight", "3000").Append("max-mutating-requests-inflight", "1000")
	config, err := c.env.Start()
	if err != nil {
		return nil, fmt.Errorf("start kube-apiserver and etcd: %w", err)
	}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	config.QPS, config.Burst = 5000, 5000
	if c.set, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	user, err := c.env.AddUser(envtest.User{Name: "scheduler", Groups: []string{"system:masters"}}, config)
	if err != nil {
		return nil, err
	}
	if c.kubeconfig, err = user.KubeConfig(); err != nil {
		return nil, err
	}
	if err := c.fill(ctx); err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return c, c.tables(ctx, objects)
}

func (c *cluster) stop() { _ = c.env.Stop() }

// fill makes the Node objects, and the peers.
func (c *cluster) fill(ctx context.Context) error {
	err := each(len(c.world.names), func(i int) error {
		n := c.world.node(i)
		made, err := c.set.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("make node %s: %w", n.Name, err)
		}
		made.Status = n.Status
		if _, err := c.set.CoreV1().Nodes().UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("write the status of node %s: %w", n.Name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range c.world.peers() {
		if _, err := c.set.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("make peer %s: %w", p.Name, err)
		}
	}
	return nil
}

// each runs f for 0 to n-1, 16 at once, and gives the first error.
func each(n int, f func(int) error) error {
	var (
		wg    sync.WaitGroup
		next  = make(chan int)
		first error
		once  sync.Once
	)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					once.Do(func() { first = err })
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return first
}

// tables writes what NetworkOverhead goes by: that web depends on db, and what every way between two
// zones and two regions costs, in ms.
func (c *cluster) tables(ctx context.Context, objects dynamic.Interface) error {
	app := func(name string) map[string]any {
		return map[string]any{"kind": "Deployment", "apiVersion": "apps/v1", "namespace": "default", "name": name, "selector": name}
	}
	costs := func(key, kind string, n int) map[string]any {
		var origins []any
		for i := range n {
			var to []any
			for j := range n {
				if j != i {
					to = append(to, map[string]any{"destination": fmt.Sprint(kind, j), "networkCost": int64(1 + (i+j)%3)})
				}
			}
			origins = append(origins, map[string]any{"origin": fmt.Sprint(kind, i), "costList": to})
		}
		return map[string]any{"topologyKey": key, "originList": origins}
	}
	for resource, o := range map[string]map[string]any{
		"appgroups": {"apiVersion": "appgroup.diktyo.x-k8s.io/v1alpha1", "kind": "AppGroup", "metadata": map[string]any{"name": group, "namespace": "default"},
			"spec": map[string]any{"numMembers": int64(2), "topologySortingAlgorithm": "KahnSort", "workloads": []any{
				map[string]any{"workload": app("web"), "dependencies": []any{map[string]any{"workload": app("db"), "maxNetworkCost": int64(100)}}},
				map[string]any{"workload": app("db")},
			}}},
		"networktopologies": {"apiVersion": "networktopology.diktyo.x-k8s.io/v1alpha1", "kind": "NetworkTopology", "metadata": map[string]any{"name": group, "namespace": "default"},
			"spec": map[string]any{"configmapName": "none", "weights": []any{map[string]any{"name": "UserDefined", "topologyList": []any{
				costs(corev1.LabelTopologyRegion, "region-", regions), costs(corev1.LabelTopologyZone, "zone-", zones),
			}}}}},
	} {
		u := &unstructured.Unstructured{Object: o}
		gvr := schema.GroupVersionResource{Group: u.GroupVersionKind().Group, Version: "v1alpha1", Resource: resource}
		if _, err := objects.Resource(gvr).Namespace("default").Create(ctx, u, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("make %s: %w", resource, err)
		}
	}
	return nil
}

// clear deletes the pods of a round.
func (c *cluster) clear(ctx context.Context) error {
	now := int64(0)
	pods := c.set.CoreV1().Pods("default")
	selector := metav1.ListOptions{LabelSelector: "app=web"}
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, selector); err != nil {
		return fmt.Errorf("delete the pods of a round: %w", err)
	}
	for {
		left, err := pods.List(ctx, selector)
		if err != nil || len(left.Items) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
