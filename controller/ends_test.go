package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

// preempts deletes the replacement as the scheduler does for a pod of more worth, and the
// API server for an eviction; its kubelet takes a while.
func preempts(w *world) {
	p := w.pod(newName)
	p.Finalizers = []string{grace}
	w.must(w.api.Update(context.Background(), p))
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler",
	})
	w.must(w.api.Status().Update(context.Background(), p))
	w.must(w.api.Delete(context.Background(), p))
}

// clears is a namespace that is being deleted: all in it goes, in no order.
func clears(w *world) {
	w.must(w.api.Delete(context.Background(), deployment()))
	w.must(w.api.Delete(context.Background(), replicaSet()))
	cancels(w)
	for _, name := range []string{oldName, newName} {
		if p := w.pod(name); p != nil {
			w.must(client.IgnoreNotFound(w.api.Delete(context.Background(), p)))
		}
	}
}

// endScenarios are moves in the middle of which others end pods, nodes or all.
func endScenarios() []scenario {
	return []scenario{
		{name: "source evicted before the decision", calm: true, players: players{when: waiting, then: gracefully(evicts)},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "node drained before the decision", calm: true, players: players{when: waiting, then: gracefully(drains)},
			phase: v1alpha1.PhaseAborted, reason: ReasonPodTerminating, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "replacement preempted before the decision", calm: true, players: players{when: waiting, then: preempts},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: []string{oldName}},
		{name: "replacement preempted before it has a node", calm: true, players: players{unbound: 3, when: begun, then: preempts},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: []string{oldName}},
		{name: "replacement preempted after the resume", calm: true, players: players{when: resumed, then: preempts},
			phase: v1alpha1.PhaseAborted, reason: ReasonReplacementDeleted, pods: []string{"web-5d4-third1"}, thirds: 1},
		{name: "namespace deleted before the decision", calm: true, players: players{when: waiting, then: clears}, gone: true},
		{name: "namespace deleted after the commit", calm: true, players: players{when: committed, then: clears}, gone: true},
		{name: "namespace deleted after the resume", calm: true, players: players{when: resumed, then: clears}, gone: true},
	}
}
