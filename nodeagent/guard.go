package nodeagent

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/cpufeature"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/movable"
	"github.com/drover-project/drover/nodeagent/examine"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// guard is what this node knows against a move.
type guard struct{ agent *agent }

var _ migrate.Guard = guard{}

// Leaves implements migrate.Guard.
func (g guard) Leaves(ctx context.Context, m migrate.Move) ([]movable.Finding, error) {
	var all []movable.Finding
	var errs []error
	var ids []string
	for _, c := range m.Containers {
		found, err := g.agent.proc.Container(c.ID)
		all, errs, ids = append(all, found...), append(errs, err), append(ids, c.ID)
	}
	found, err := g.agent.examineFiles(ctx, ids)
	return append(all, found...), errors.Join(append(errs, err)...)
}

// Comes implements migrate.Guard.
func (g guard) Comes(m migrate.Move) []movable.Finding {
	var all []movable.Finding
	if why := g.agent.unable.Load(); why != nil && *why != "" {
		all = append(all, movable.Found(movable.ReasonCannotRestore, "node %s: %s", m.Target.Node, *why))
	}
	if why := g.agent.cannotLoadLater(); m.PostCopy && why != "" {
		all = append(all, movable.Found(movable.ReasonCannotLoadLater, "node %s cannot load memory of what runs already: %s", m.Target.Node, why).
			But("leave out spec.postCopy, or choose another target"))
	}
	if !g.agent.joined.Load() {
		return all
	}
	source := g.agent.gossip.Snapshot().Nodes[model.NodeID(m.Source.Node)].State.CPU
	if why := cpufeature.Obstacle(source, g.agent.cpu); why != "" {
		all = append(all, movable.Found(movable.ReasonCPUFeatures, "node %s: %s", m.Target.Node, why).
			But("choose a target with the same processor or a newer one, or start the pod where its processor has less"))
	}
	return all
}

// examine looks at the processes of a pod of this node.
func (a *agent) examine(ctx context.Context, namespace, name string) ([]movable.Finding, error) {
	var p corev1.Pod
	if err := a.cluster.cache.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &p); err != nil {
		return nil, fmt.Errorf("read the pod on node %s: %w", a.cfg.Node, err)
	}
	all, err := examinePod(a.proc, &p)
	var ids []string
	for _, c := range movable.Containers(&p.Spec) {
		if id := movable.RunningID(&p, c); id != "" {
			ids = append(ids, id)
		}
	}
	found, err2 := a.examineFiles(ctx, ids)
	return append(all, found...), errors.Join(err, err2)
}

// examineFiles looks at what a pod's containers have in files. A container that drover-runc has
// no note about is not moved anyway.
func (a *agent) examineFiles(ctx context.Context, ids []string) ([]movable.Finding, error) {
	var all []files.Container
	for _, id := range ids {
		c, err := a.cfg.Layout.ReadContainer(id)
		if err != nil {
			return nil, err
		}
		if c != nil {
			all = append(all, files.Container{PodUID: c.PodUID, Bundle: c.Bundle})
		}
	}
	_, found, err := a.files.Survey(ctx, all)
	return found, err
}

// examinePod examines the processes of every container of the pod that runs.
func examinePod(proc examine.Proc, p *corev1.Pod) ([]movable.Finding, error) {
	all := []movable.Finding{}
	var errs []error
	for _, name := range movable.Containers(&p.Spec) {
		id := movable.RunningID(p, name)
		if id == "" {
			continue
		}
		found, err := proc.Container(id)
		errs = append(errs, err)
		for _, f := range found {
			f.Message = "container " + name + ": " + f.Message
			all = append(all, f)
		}
	}
	return all, errors.Join(errs...)
}

// unmovable is what speaks against moving a pod of this node, so that the agent orders no
// move that would be refused; empty: nothing is known to. What the processes hold is looked
// at only when the objects are fine.
func unmovable(proc examine.Proc, p *corev1.Pod) string {
	all := movable.Pod(p, nil)
	if len(all) == 0 {
		all, _ = examinePod(proc, p) // what cannot be examined now is examined before the dump
	}
	if len(all) == 0 {
		return ""
	}
	return movable.Sum(all).Message
}

// lookAtMove finds what there is of a move on this node; the record is the one that was
// heard of last, so that it can be asked while the API server is away.
func (a *agent) lookAtMove(ctx context.Context, namespace, name string) ([]migrate.Found, error) {
	var m v1alpha1.PodMigration
	if err := a.cluster.cache.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &m); err != nil {
		return nil, fmt.Errorf("read the move: %w", err)
	}
	return a.driver.Look(ctx, &m), nil
}
