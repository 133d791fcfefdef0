package nodeagent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/decide"
)

// tellTime is after how long a node's own load tells of a pod that was bound to it, or runs on
// it, wherever it is heard: it is published once a second, and is the mean of one.
const tellTime = 5 * time.Second

// coming is what open moves bring to the nodes that their load does not tell at now, as a
// scheduler assumes a pod that it has bound. It is for the goroutine that decides alone.
func (a *agent) coming(ctx context.Context, moves []v1alpha1.PodMigration, most map[model.NodeID]model.Resources, now time.Time) (map[model.NodeID]decide.Coming, error) {
	coming, asked := map[model.NodeID]decide.Coming{}, map[types.UID]model.Resources{}
	for i := range moves {
		m := &moves[i]
		to := moveTarget(m)
		if to == "" || to == moveSource(m) || ended(m) || arrived(m, now) {
			continue
		}
		requests, known := a.asked[m.UID]
		if !known {
			var err error
			if requests, err = a.cluster.asks(ctx, m); err != nil {
				return nil, err
			}
		}
		asked[m.UID] = requests
		c := coming[to]
		c.Use = c.Use.Plus(uses(m, requests, most[moveSource(m)]))
		if at, bound := reservedAt(m); !bound || !told(at, now) {
			c.Requests = c.Requests.Plus(requests)
		}
		coming[to] = c
	}
	a.asked = asked
	return coming, nil
}

func told(at, now time.Time) bool { return now.Sub(at) >= tellTime }

// moveSource is the node that a pod leaves: before the controller has seen the record, the agent
// that ordered it says so. Empty: not known.
func moveSource(m *v1alpha1.PodMigration) model.NodeID {
	if m.Status.Source.Node != "" {
		return model.NodeID(m.Status.Source.Node)
	}
	return model.NodeID(m.Annotations[v1alpha1.AnnotationOrderedBy])
}

// moveTarget is the node that it goes to; empty while that is the scheduler's to choose.
func moveTarget(m *v1alpha1.PodMigration) model.NodeID {
	if m.Status.Target.Node != "" {
		return model.NodeID(m.Status.Target.Node)
	}
	return model.NodeID(m.Spec.TargetNode)
}

// ended tells whether a move will bring nothing any more.
func ended(m *v1alpha1.PodMigration) bool {
	return v1alpha1.Finished(m) || m.Status.Decision == v1alpha1.Abort || m.Status.Returned || m.Status.Lost
}

// arrived tells whether the copy has run for as long as its node takes to tell of it.
func arrived(m *v1alpha1.PodMigration, now time.Time) bool {
	at := m.Status.DecidedAt // shortly before
	return m.Status.Target.Resumed && (at == nil || told(at.Time, now))
}

// reservedAt is when the replacement was bound, by the controller's clock.
func reservedAt(m *v1alpha1.PodMigration) (time.Time, bool) {
	for _, c := range m.Status.Conditions {
		if c.Type == v1alpha1.ConditionReserved {
			return c.LastTransitionTime.Time, c.Status == "True"
		}
	}
	return time.Time{}, false
}

// asks is what the pod of a move requests; nothing when it is gone, since then its replacement is
// on the target.
func (c *cluster) asks(ctx context.Context, m *v1alpha1.PodMigration) (model.Resources, error) {
	var p corev1.Pod
	err := c.direct.Get(ctx, client.ObjectKey{Namespace: m.Namespace, Name: m.Spec.PodName}, &p)
	switch {
	case apierrors.IsNotFound(err), err == nil && m.Spec.PodUID != "" && m.Spec.PodUID != p.UID:
		return model.Resources{}, nil
	case err != nil:
		return model.Resources{}, fmt.Errorf("read pod %s/%s, which PodMigration %s moves: %w", m.Namespace, m.Spec.PodName, m.Name, err)
	}
	return requests(&p), nil
}

// used says what a pod uses, for a record of its move.
func used(r model.Resources) (string, error) {
	b, err := json.Marshal(corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(int64(1000*r.CPU), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(r.Memory), resource.BinarySI),
	})
	return string(b), err
}

// uses is what the pod of a move is held to use on its target: what the agent that ordered it
// says, but no more than its node has; else as much as it requests.
func uses(m *v1alpha1.PodMigration, requests, most model.Resources) model.Resources {
	var l corev1.ResourceList
	if err := json.Unmarshal([]byte(m.Annotations[v1alpha1.AnnotationUses]), &l); err != nil {
		return requests
	}
	r := resources(l)
	if r.CPU < 0 || r.Memory < 0 {
		return requests
	}
	return model.Resources{CPU: min(r.CPU, most.CPU), Memory: min(r.Memory, most.Memory)}
}

// moving names the pod that is on its way from a node; empty: none.
func moving(moves []v1alpha1.PodMigration, from string) string {
	for i := range moves {
		if m := &moves[i]; string(moveSource(m)) == from && !v1alpha1.Finished(m) {
			return m.Namespace + "/" + m.Spec.PodName
		}
	}
	return ""
}
