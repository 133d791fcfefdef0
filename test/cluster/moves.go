package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
)

// Order asks for a move, as "kubectl drover migrate" does; change may make another of the wish.
func (c *Cluster) Order(ctx context.Context, pod *corev1.Pod, to string, change ...func(*v1alpha1.PodMigration)) (*v1alpha1.PodMigration, error) {
	m := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: pod.Name + "-"},
		Spec:       v1alpha1.PodMigrationSpec{PodName: pod.Name, PodUID: pod.UID, TargetNode: to, Reason: "Test"},
	}
	for _, f := range change {
		f(m)
	}
	if err := c.Client.Create(ctx, m); err != nil {
		return nil, fmt.Errorf("create PodMigration for %s: %w", pod.Name, err)
	}
	return m, nil
}

// Ordered waits until there is a move in a namespace that somebody else ordered, and gives
// the first.
func (c *Cluster) Ordered(ctx context.Context, ns string) (*v1alpha1.PodMigration, error) {
	var m v1alpha1.PodMigration
	err := Eventually(ctx, "somebody orders a move in "+ns, func(ctx context.Context) (bool, string) {
		var all v1alpha1.PodMigrationList
		if err := c.Client.List(ctx, &all, client.InNamespace(ns)); err != nil {
			return false, err.Error()
		}
		if len(all.Items) == 0 {
			return false, "no PodMigration yet"
		}
		m = all.Items[0]
		return true, ""
	})
	return &m, err
}

// Until polls a move until ok says so, and gives it as it is then.
func (c *Cluster) Until(ctx context.Context, m *v1alpha1.PodMigration, what string, ok func(*v1alpha1.PodMigration) bool) (*v1alpha1.PodMigration, error) {
	now := &v1alpha1.PodMigration{}
	err := Eventually(ctx, "move "+m.Name+" "+what, func(ctx context.Context) (bool, string) {
		if err := c.Client.Get(ctx, client.ObjectKeyFromObject(m), now); err != nil {
			return false, err.Error()
		}
		return ok(now), summary(now)
	})
	return now, err
}

// Seen watches a move and gives it at the first moment at which ok is true. Unlike Until
// it misses no state that the API server has shown.
func (c *Cluster) Seen(ctx context.Context, m *v1alpha1.PodMigration, ok func(*v1alpha1.PodMigration) bool) (*v1alpha1.PodMigration, error) {
	w, err := c.Client.Watch(ctx, &v1alpha1.PodMigrationList{}, client.InNamespace(m.Namespace))
	if err != nil {
		return nil, fmt.Errorf("watch moves in %s: %w", m.Namespace, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("move %s: gave up: %w", m.Name, ctx.Err())
		case e, open := <-w.ResultChan():
			if !open {
				return nil, fmt.Errorf("move %s: the watch was closed", m.Name)
			}
			if now, is := e.Object.(*v1alpha1.PodMigration); is && now.UID == m.UID && ok(now) {
				return now, nil
			}
		}
	}
}

// Ended waits until nothing is left to do for a move.
func (c *Cluster) Ended(ctx context.Context, m *v1alpha1.PodMigration) (*v1alpha1.PodMigration, error) {
	return c.Until(ctx, m, "ended", func(m *v1alpha1.PodMigration) bool {
		return v1alpha1.Finished(m)
	})
}

// summary is a move in one line, for people who look for a fault.
func summary(m *v1alpha1.PodMigration) string {
	s := fmt.Sprintf("phase %q, decision %q %s %s", m.Status.Phase, m.Status.Decision, m.Status.DecisionReason, m.Status.DecisionMessage)
	for _, t := range m.Status.Timeline {
		s += fmt.Sprintf("; %s %s %s %s", t.At.Format("05.000"), t.By, t.Step, t.Message)
	}
	for _, c := range m.Status.Conditions {
		s += fmt.Sprintf("; %s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
	}
	return s
}

// AllKnow waits until every agent says that the lineage of pod is on node.
func (c *Cluster) AllKnow(ctx context.Context, pod *corev1.Pod, node string) error {
	origin := pod.Annotations[v1alpha1.AnnotationOrigin]
	if origin == "" {
		return fmt.Errorf("pod %s has no annotation %s: it was never moved", pod.Name, v1alpha1.AnnotationOrigin)
	}
	return Eventually(ctx, "every agent knows that "+pod.Name+" is on "+node, func(ctx context.Context) (bool, string) {
		views, err := c.Views(ctx)
		if err != nil {
			return false, err.Error()
		}
		for n, s := range views {
			if l, ok := s.Location(origin); !ok || l.Node != nodeID(node) {
				return false, fmt.Sprintf("the agent on %s says %q", n, l.Node)
			}
		}
		return true, ""
	})
}

func nodeID(n string) model.NodeID { return model.NodeID(n) }

// Held waits until the agent on node holds a container: frozen, neither let go nor ended.
// It needs no API server.
func (c *Cluster) Held(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return Eventually(ctx, "a container is held on "+node, func(ctx context.Context) (bool, string) {
		body, err := c.text(ctx, node, "127.0.0.1:7949", "/metrics")
		if err != nil {
			return false, err.Error()
		}
		for line := range strings.Lines(body) {
			if name, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "drover_held_containers") && v != "0" {
				return true, ""
			}
		}
		return false, "drover_held_containers is 0"
	})
}
