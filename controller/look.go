package controller

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// get reads one object. Not found is an answer, not an error.
func (r *Reconciler) get(ctx context.Context, namespace, name string, into client.Object) (bool, error) {
	if name == "" {
		return false, nil
	}
	err := r.Reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, into)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %T %s/%s: %w", into, namespace, name, err)
	}
	return true, nil
}

// moves are all of the namespace.
func (r *Reconciler) moves(ctx context.Context, namespace string) ([]v1alpha1.PodMigration, error) {
	var all v1alpha1.PodMigrationList
	if err := r.Reader.List(ctx, &all, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the PodMigrations in %s: %w", namespace, err)
	}
	return all.Items, nil
}

// look reads everything that the next step depends on.
func (r *Reconciler) look(ctx context.Context, m *v1alpha1.PodMigration) (Facts, error) {
	f := Facts{Now: r.Now(), CarryEarlier: r.Config.CarryEarlierAddresses}
	var pod corev1.Pod
	found, err := r.get(ctx, m.Namespace, m.Spec.PodName, &pod)
	if err != nil {
		return f, err
	}
	if found {
		f.Pod = &pod
	}
	for _, part := range []func(context.Context, *v1alpha1.PodMigration, *Facts) error{
		r.lookOwner, r.lookBudgets, r.lookReplacement, r.lookNodes, r.lookSwitches, r.lookClaims,
	} {
		if err := part(ctx, m, &f); err != nil {
			return f, err
		}
	}
	return f, nil
}

// lookOwner follows the chain of controllers above the pod.
func (r *Reconciler) lookOwner(ctx context.Context, m *v1alpha1.PodMigration, f *Facts) (err error) {
	if f.Pod == nil {
		return nil
	}
	ref := controllerOf(f.Pod)
	switch {
	case ref == nil:
	case ofJob(f.Pod):
		f.Job, err = r.job(ctx, m.Namespace, ref.Name)
	case ofStatefulSet(ref):
		f.StatefulSet, err = r.statefulSet(ctx, m.Namespace, ref.Name)
	case isKind(ref, "ReplicaSet"):
		f.ReplicaSet, f.Deployment, err = r.owners(ctx, m.Namespace, ref.Name)
	}
	return err
}

// owners reads a ReplicaSet and the Deployment above it.
func (r *Reconciler) owners(ctx context.Context, namespace, name string) (*appsv1.ReplicaSet, *appsv1.Deployment, error) {
	var rs appsv1.ReplicaSet
	found, err := r.get(ctx, namespace, name, &rs)
	if err != nil || !found {
		return nil, nil, err
	}
	up := controllerOf(&rs)
	if up == nil || !isKind(up, "Deployment") {
		return &rs, nil, nil
	}
	var dep appsv1.Deployment
	found, err = r.get(ctx, namespace, up.Name, &dep)
	if err != nil || !found {
		return &rs, nil, err
	}
	return &rs, &dep, nil
}

func (r *Reconciler) lookReplacement(ctx context.Context, m *v1alpha1.PodMigration, f *Facts) error {
	name := m.Status.Target.PodName
	if name == "" {
		return nil
	}
	var p corev1.Pod
	found, err := r.get(ctx, m.Namespace, name, &p)
	if found {
		f.Replacement = &p
	}
	return err
}

func (r *Reconciler) lookNodes(ctx context.Context, m *v1alpha1.PodMigration, f *Facts) error {
	from := m.Status.Source.Node
	if from == "" && f.Pod != nil {
		from = f.Pod.Spec.NodeName
	}
	to := m.Spec.TargetNode
	if p := f.replacement(m); p != nil && p.Spec.NodeName != "" {
		to = p.Spec.NodeName
	} else if m.Status.Target.Node != "" {
		to = m.Status.Target.Node
	}
	var source, target corev1.Node
	if found, err := r.get(ctx, "", from, &source); err != nil {
		return err
	} else if found {
		f.SourceNode = &source
	}
	if found, err := r.get(ctx, "", to, &target); err != nil {
		return err
	} else if found {
		f.TargetNode = &target
	}
	return r.lookAgents(ctx, f, from, to)
}

// lookAgents finds on which of the two nodes a ready agent runs.
func (r *Reconciler) lookAgents(ctx context.Context, f *Facts, from, to string) error {
	var agents corev1.PodList
	err := r.Reader.List(ctx, &agents, client.InNamespace(r.Config.Namespace),
		client.MatchingLabelsSelector{Selector: r.Config.AgentSelector})
	if err != nil {
		return fmt.Errorf("list the agents' pods in %s: %w", r.Config.Namespace, err)
	}
	for i := range agents.Items {
		a := &agents.Items[i]
		if a.Spec.NodeName == "" || a.DeletionTimestamp != nil || !podReady(a) {
			continue
		}
		f.AgentOnSource = f.AgentOnSource || a.Spec.NodeName == from
		f.AgentOnTarget = f.AgentOnTarget || a.Spec.NodeName == to
	}
	return nil
}

// lookSwitches reads what only a judgement wants: the pause switch and who holds the pod.
func (r *Reconciler) lookSwitches(ctx context.Context, m *v1alpha1.PodMigration, f *Facts) error {
	if accepted(m) {
		return nil
	}
	var pause corev1.ConfigMap
	if found, err := r.get(ctx, r.Config.Namespace, v1alpha1.PauseConfigMap, &pause); err != nil {
		return err
	} else if found {
		f.Paused = pause.Data["paused"] != "false"
	}
	if f.Pod == nil {
		return nil
	}
	name, uid, _ := strings.Cut(f.Pod.Annotations[v1alpha1.AnnotationMoving], "/")
	var holder v1alpha1.PodMigration
	found, err := r.get(ctx, m.Namespace, name, &holder)
	if err != nil {
		return err
	}
	if found && string(holder.UID) == uid {
		f.Holder = &holder
	}
	f.Others, err = r.moves(ctx, m.Namespace)
	return err
}
