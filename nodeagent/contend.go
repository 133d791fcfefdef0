package nodeagent

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/fit"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peers"
	"github.com/drover-project/drover/internal/pressure"
	"github.com/drover-project/drover/nodeagent/decide"
	"github.com/drover-project/drover/nodeagent/measure"
)

// suffering is a pod's container that suffers most, with the resource for which it does, and
// the share for every other one that a container of the pod suffers for severely.
type suffering struct {
	measure.ContainerWait
	resource model.Resource
	state    pressure.State
	also     map[model.Resource]float64
}

// sufferers are the pods that suffer severely, by UID.
func sufferers(containers []measure.ContainerWait) map[string]suffering {
	worst := map[string]suffering{}
	for _, c := range containers {
		for _, r := range pressure.Resources {
			state := c.States[r]
			if state.Grade != model.Severe {
				continue
			}
			w, known := worst[c.Pod.UID]
			if !known {
				w.also = map[model.Resource]float64{}
			}
			w.also[r] = max(w.also[r], state.Mean)
			if !known || state.Mean > w.state.Mean {
				w.ContainerWait, w.resource, w.state = c, r, state
			}
			worst[c.Pod.UID] = w
		}
	}
	for _, w := range worst {
		delete(w.also, w.resource)
	}
	return worst
}

// gather is what a decision is made from; moves are asked for anew if fresh.
func (a *agent) gather(ctx context.Context, fresh bool) (decide.Input, time.Time, error) {
	s := a.gossip.Snapshot()
	in := decide.Input{Here: model.NodeID(a.cfg.Node), View: s, Params: a.cfg.Params}
	worst := sufferers(a.contention.Current(time.Now()).Containers)
	if len(worst) == 0 {
		return in, s.At, nil
	}
	moves, err := a.cluster.moves(ctx, fresh)
	if err != nil {
		return in, s.At, fmt.Errorf("list the moves: %w", err)
	}
	in.Moving = moving(moves, a.cfg.Node)
	nodes, err := a.cluster.nodes(ctx)
	if err != nil {
		return in, s.At, fmt.Errorf("list the nodes: %w", err)
	}
	in.Allocatable = make(map[model.NodeID]model.Resources, len(nodes))
	for i := range nodes {
		in.Allocatable[model.NodeID(nodes[i].Name)] = resources(nodes[i].Status.Allocatable)
	}
	if in.Coming, err = a.coming(ctx, moves, in.Allocatable, time.Now()); err != nil {
		return in, s.At, err
	}
	for uid, w := range worst {
		if p, ok := a.names.pod(uid); ok {
			d := a.candidate(ctx, p, w, nodes)
			d.Unwell = a.unwellSince(p, w.state.Since, time.Now())
			in.Suffering = append(in.Suffering, d)
		}
	}
	return in, s.At, nil
}

// lookAtContention tells who keeps whom from the CPU at now, or why that is not known.
func (a *agent) lookAtContention(now time.Time) (blame.Report, string) {
	if !a.running.Load() {
		return blame.Report{}, a.unready()
	}
	if why := a.blind.Load(); why != nil {
		return blame.Report{}, "contention is not measured here: " + *why
	}
	s := a.contention.Snapshot()
	switch age := now.Sub(s.At); {
	case s.At.IsZero():
		return blame.Report{}, "contention is not measured yet: the first reading is due in a moment"
	case age > a.cfg.Thresholds.Window():
		return blame.Report{}, fmt.Sprintf("contention was last measured %v ago: the agent's log says why", age.Round(time.Second))
	}
	r := s.Report()
	r.Unwell = a.unwell(now)
	return r, ""
}

// candidate is a suffering pod with what has to be known to judge it.
func (a *agent) candidate(ctx context.Context, p *corev1.Pod, w suffering, nodes []corev1.Node) decide.Pod {
	d := decide.Pod{
		ID: podID(p), Container: w.Container, Origin: v1alpha1.OriginOf(p),
		OptedIn:    p.Annotations[v1alpha1.AnnotationMigrate] == "true",
		Wrapped:    p.Spec.RuntimeClassName != nil && *p.Spec.RuntimeClassName == v1alpha1.RuntimeClassName,
		Containers: containers(p), Obstacle: obstacle(p), Requests: requests(p),
		Resource: w.resource, Wait: w.state.Mean, Also: w.also, Since: w.state.Since, Run: w.Run, Memory: w.Memory,
		Barred: fit.Barred(p, nodes),
	}
	if p.Spec.Priority != nil {
		d.Priority = *p.Spec.Priority
	}
	if !d.OptedIn {
		return d
	}
	found, err := a.peersOf(ctx, p)
	if err != nil {
		a.log.Warn("a pod's peers are not known: route times count from here", "pod", d.ID.String(), "error", err)
	}
	d.Peers, d.PeersBy = found.Nodes, string(found.By)
	a.log.Debug("peers of a pod that suffers", "pod", d.ID.String(), "peers", d.PeersBy, "why", found.Why(), "nodes", d.Peers)
	return d
}

func containers(p *corev1.Pod) int {
	n := len(p.Spec.Containers)
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			n++
		}
	}
	return n
}

// obstacle is why a pod cannot be moved now; the controller looks closer.
func obstacle(p *corev1.Pod) string {
	owner := metav1.GetControllerOf(p)
	switch {
	case p.DeletionTimestamp != nil:
		return "it is being deleted"
	case p.Status.Phase != corev1.PodRunning:
		return fmt.Sprintf("it is %s, not Running", p.Status.Phase)
	case p.Labels[v1alpha1.LabelReplacement] != "":
		return "it has just come here and its owner does not have it yet"
	case owner != nil && !slices.Contains([]string{"ReplicaSet", "StatefulSet", "Job"}, owner.Kind):
		return fmt.Sprintf("its owner is a %s, whose pods cannot be moved yet", owner.Kind)
	}
	return ""
}

// peersOf finds the pods that a pod says it talks to, or was seen to.
func (a *agent) peersOf(ctx context.Context, p *corev1.Pod) (peers.Found, error) {
	return peers.Find(p, func(sel labels.Selector) ([]*corev1.Pod, error) {
		var found corev1.PodList
		err := a.cluster.direct.List(ctx, &found, client.InNamespace(p.Namespace), client.MatchingLabelsSelector{Selector: sel})
		pods := make([]*corev1.Pod, len(found.Items))
		for i := range found.Items {
			pods[i] = &found.Items[i]
		}
		return pods, err
	}, a.gossip.Snapshot())
}

// order carries out a decision to go: in the mode observe, or while moves are paused, it
// only says so, in an Event on the pod.
func (a *agent) order(ctx context.Context, m decide.Move) error {
	p, ok := a.names.pod(m.Pod.ID.UID)
	if !ok {
		return fmt.Errorf("pod %s is gone", m.Pod.ID)
	}
	if why := unmovable(a.proc, p); why != "" {
		a.say(p, "CannotMigrate", fmt.Sprintf("would be better off on %s than on %s, but cannot be moved: %s", m.To, m.From, why))
		return nil
	}
	if a.cfg.Mode != Act {
		a.say(p, "WouldMigrate", fmt.Sprintf("would be moved from %s to %s: %s", m.From, m.To, m.Message))
		return nil
	}
	if paused, why := a.cluster.paused(ctx); paused {
		a.say(p, "MigrationPaused", fmt.Sprintf("is not moved from %s to %s, moves are paused: %s", m.From, m.To, why))
		return nil
	}
	uses, err := used(model.Resources{CPU: m.Pod.Run, Memory: m.Pod.Memory})
	if err != nil {
		return fmt.Errorf("say what pod %s uses: %w", m.Pod.ID, err)
	}
	order := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: v1alpha1.MoveName(p.Name, rand.String(5)),
			Annotations: map[string]string{v1alpha1.AnnotationOrderedBy: a.cfg.Node, v1alpha1.AnnotationUses: uses}},
		Spec: v1alpha1.PodMigrationSpec{
			PodName: p.Name, PodUID: p.UID, TargetNode: string(m.To), Reason: "Contention", Message: v1alpha1.Cut(m.Message),
		},
	}
	if err := a.cluster.direct.Create(ctx, order); err != nil {
		return fmt.Errorf("create PodMigration: %w", err)
	}
	a.say(p, "MigrationOrdered", fmt.Sprintf("is to move from %s to %s (%s): %s", m.From, m.To, order.Name, m.Message))
	return nil
}

// say tells users and the log.
func (a *agent) say(p *corev1.Pod, reason, message string) {
	a.log.Info(message, "pod", p.Namespace+"/"+p.Name, "reason", reason)
	a.events.Event(p, corev1.EventTypeNormal, reason, message)
}
