package controller

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Reasons of an abort beside those of a refusal.
const (
	ReasonPodGone            = "PodGone"
	ReasonContainerRestarted = "ContainerRestarted"
	ReasonNameTaken          = "NameTaken"
	ReasonReplacementRefused = "ReplacementRefused"
	ReasonReplacementDeleted = "ReplacementDeleted"
	ReasonReplacementFailed  = "ReplacementFailed"
	ReasonReplacementAdopted = "ReplacementAdopted"
	// ReasonReplacementStartedCold: a second copy ran on the target, without the memory.
	ReasonReplacementStartedCold = "ReplacementStartedCold"
	ReasonNotBound               = "NotBound"
	ReasonWrongNode              = "WrongNode"
	ReasonTargetRebooted         = "TargetRebooted"
	ReasonTargetFailed           = "TargetFailed"
	ReasonPrepareDeadline        = "PrepareDeadline"
)

// AbortReason tells what speaks against an undecided move. Nil: nothing. It is asked
// again at every look until there is a decision.
func AbortReason(m *v1alpha1.PodMigration, f Facts, c Config) *Refusal {
	if m.DeletionTimestamp != nil {
		return refuse(ReasonDeleted, "the PodMigration was deleted")
	}
	if r := sourceSpeaksAgainst(m, f); r != nil {
		return r
	}
	if r := replacementSpeaksAgainst(m, f, c); r != nil {
		return r
	}
	if r := targetSpeaksAgainst(m, f); r != nil {
		return r
	}
	if c := m.Status.Connections; c != nil && c.Required && c.State == v1alpha1.ConnectionsClosed {
		return refuse(ReasonConnectionsNotKept, "the move would close the pod's connections (%s: %s), and annotation %s asks for none that does",
			c.Reason, c.Message, v1alpha1.AnnotationKeepConnectionsRequired)
	}
	if took := since(m, f.Now, v1alpha1.ConditionAccepted); took > c.PrepareDeadline {
		return refuse(ReasonPrepareDeadline, "not ready to commit %s after it was accepted, at most %s",
			took.Round(time.Second), c.PrepareDeadline)
	}
	return nil
}

func sourceSpeaksAgainst(m *v1alpha1.PodMigration, f Facts) *Refusal {
	s := &m.Status.Source
	p := f.source(m)
	switch {
	case p == nil:
		return refuse(ReasonPodGone, "pod %s (UID %s) does not exist any more", s.PodName, s.PodUID)
	case p.DeletionTimestamp != nil:
		return refuse(ReasonPodTerminating, "pod %s is being deleted", p.Name)
	case ownerUID(p) != s.OwnerUID:
		return refuse(ReasonOwnerChanged, "pod %s has another owner now: UID %q, was %q", p.Name, ownerUID(p), s.OwnerUID)
	}
	if r := judgeOwner(p, f); r != nil {
		return r
	}
	if s.Offered && !m.Spec.PostCopy {
		return nil // frozen, dumped and sent: what becomes of the container matters no more
	}
	if f.SourceNode == nil {
		return refuse(ReasonNodeNotFound, "source node %s does not exist any more", s.Node)
	}
	for _, c := range s.Containers {
		switch id := runningID(p, c.Name); {
		case p.Status.Phase != corev1.PodRunning, id == "":
			return refuse(ReasonNotRunning, "container %s of pod %s does not run any more", c.Name, p.Name)
		case id != c.ID:
			return refuse(ReasonContainerRestarted, "container %s of pod %s was started anew", c.Name, p.Name)
		}
	}
	return nil
}

func replacementSpeaksAgainst(m *v1alpha1.PodMigration, f Facts, c Config) *Refusal {
	p := f.replacement(m)
	if p == nil {
		switch {
		case m.Status.Target.PodUID != "":
			return refuse(ReasonReplacementDeleted, "replacement %s was deleted", m.Status.Target.PodName)
		case f.Replacement != nil:
			return refuse(ReasonNameTaken, "pod %s exists and is not this move's replacement", f.Replacement.Name)
		}
		return nil
	}
	switch {
	case p.DeletionTimestamp != nil:
		return refuse(ReasonReplacementDeleted, "replacement %s is being deleted", p.Name)
	case p.Status.Phase == corev1.PodFailed, p.Status.Phase == corev1.PodSucceeded:
		return refuse(ReasonReplacementFailed, "replacement %s is %s: %s %s", p.Name, p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
	if ref := controllerOf(p); ref != nil {
		return refuse(ReasonReplacementAdopted, "%s %s has taken replacement %s for its own before the move was decided: its selector matches a pod that it did not make",
			ref.Kind, ref.Name, p.Name)
	}
	if p.Spec.NodeName == "" {
		return unbound(p, f, c)
	}
	if r := stuck(m, p); r != nil {
		return r
	}
	if to := m.Spec.TargetNode; p.Spec.NodeName == m.Status.Source.Node && to != m.Status.Source.Node || to != "" && p.Spec.NodeName != to {
		return refuse(ReasonWrongNode, "replacement %s was bound to node %s, want %q", p.Name, p.Spec.NodeName, to)
	}
	return nil
}

// unbound: how long a replacement may be without a node.
func unbound(p *corev1.Pod, f Facts, c Config) *Refusal {
	age := f.Now.Sub(p.CreationTimestamp.Time)
	for _, s := range p.Status.Conditions {
		if s.Type == corev1.PodScheduled && s.Reason == corev1.PodReasonUnschedulable && age > c.UnschedulableAfter {
			return refuse(ReasonUnschedulable, "no node for replacement %s: %s", p.Name, s.Message)
		}
	}
	if age > c.BindDeadline {
		return refuse(ReasonNotBound, "replacement %s has no node after %s: does %s run?", p.Name, age.Round(time.Second), v1alpha1.SchedulerName)
	}
	return nil
}

// hopeless are the reasons of a waiting container for which kubelet would only try again.
var hopeless = []string{
	"CreateContainerError", "CreateContainerConfigError", "RunContainerError", "InvalidImageName",
	"ErrImageNeverPull", "ImagePullBackOff", "CrashLoopBackOff",
}

// stuck tells that the replacement's container is not going to be restored.
//
// One that runs was started without the checkpoint: by a runtime that does not know of
// the move, beside the source. It cannot be the restored copy. kubelet calls a container
// running when the runtime has started it, which is after drover-runc's create has
// returned. Of several containers the creates of all but the last return while their copies
// are held; that of the last returns only when they run: after the commit is in the record.
// The record was read before the pod was; if the commit came in between, the abort was
// based on an old record and is refused.
func stuck(m *v1alpha1.PodMigration, p *corev1.Pod) *Refusal {
	last := ""
	if all := m.Status.Source.Containers; len(all) > 0 {
		last = all[len(all)-1].Name
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && slices.Contains(hopeless, w.Reason) {
			return refuse(ReasonReplacementFailed, "container %s of replacement %s: %s: %s", s.Name, p.Name, w.Reason, w.Message)
		}
		if s.State.Running != nil && (s.Name == last || !m.Status.Target.Waiting) {
			return refuse(ReasonReplacementStartedCold,
				"container %s of replacement %s was started anew on node %s instead of restored: is the runtime handler %q set up there, with pod_annotations?",
				s.Name, p.Name, p.Spec.NodeName, v1alpha1.RuntimeClassName)
		}
		if t := s.State.Terminated; t != nil {
			return refuse(ReasonReplacementFailed, "container %s of replacement %s ended with code %d before it was restored", s.Name, p.Name, t.ExitCode)
		}
	}
	return nil
}

func targetSpeaksAgainst(m *v1alpha1.PodMigration, f Facts) *Refusal {
	t := &m.Status.Target
	switch {
	case t.Failed:
		return refuse(ReasonTargetFailed, "the target has failed: %s", t.FailedMessage)
	case t.Node == "":
		return nil
	case f.TargetNode == nil:
		return refuse(ReasonNodeNotFound, "target node %s does not exist any more", t.Node)
	case targetBooted(m, f):
		return refuse(ReasonTargetRebooted, "target node %s was booted since the create began to wait", t.Node)
	case !nodeReady(f.TargetNode):
		return refuse(ReasonNodeNotReady, "target node %s is not ready any more", t.Node)
	}
	return nil
}
