package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Link is one service of a chain; see test/apps/chain.
type Link struct {
	Namespace, Name, Node string
	CPU                   string // request
	Work                  time.Duration
	Next                  string // URL
	Calls                 int
}

// Link is the service's pod.
func (c *Cluster) Link(l Link) *corev1.Pod {
	p := c.Pod(Ticker{Namespace: l.Namespace, Name: l.Name, Node: l.Node, CPU: l.CPU})
	box := &p.Spec.Containers[0]
	box.Command = []string{"/chain"}
	box.Args = []string{"serve", "--work=" + l.Work.String(), "--next=" + l.Next, fmt.Sprintf("--calls=%d", l.Calls)}
	box.ReadinessProbe.HTTPGet.Path = "/healthz"
	return p
}

// Busy is a neighbour that requests so much of the CPU.
func (c *Cluster) Busy(ns, name, node string, threads int, request resource.Quantity) *corev1.Pod {
	p := c.Neighbour(ns, name, node, threads)
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: request}
	return p
}

// Load calls a service from inside a pod, so many times a second at random, and gives how long
// each call took.
func (c *Cluster) Load(ctx context.Context, from *corev1.Pod, url string, rate float64, calls int) ([]time.Duration, error) {
	cmd, err := c.kubectl(ctx, "exec", "-n", from.Namespace, from.Name, "--", "/chain", "load",
		"--url="+url, fmt.Sprintf("--rate=%g", rate), fmt.Sprintf("--calls=%d", calls))
	if err != nil {
		return nil, err
	}
	cmd.Stderr = c.log
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("call %s from %s: %w", url, from.Name, err)
	}
	var took []time.Duration
	if err := json.Unmarshal(out, &took); err != nil {
		return nil, fmt.Errorf("how long calls took: %w in %.100q", err, out)
	}
	return took, nil
}

// Spent is what a service has used of the CPU since it started, and how much of that was work for calls.
func (c *Cluster) Spent(ctx context.Context, service *corev1.Pod) (cpu, work time.Duration, err error) {
	cmd, err := c.kubectl(ctx, "exec", "-n", service.Namespace, service.Name, "--", "/chain", "spent")
	if err != nil {
		return 0, 0, err
	}
	cmd.Stderr = c.log
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("ask %s what it has spent: %w", service.Name, err)
	}
	var spent struct{ CPU, Work time.Duration }
	if err := json.Unmarshal(out, &spent); err != nil {
		return 0, 0, fmt.Errorf("what %s has spent: %w in %.100q", service.Name, err, out)
	}
	return spent.CPU, spent.Work, nil
}
