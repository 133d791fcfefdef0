package chaos

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/witness"
)

// outcome is what became of the pod.
type outcome string

const (
	moved    outcome = "moved"    // the same process goes on at the target
	stayed   outcome = "stayed"   // the move was aborted, the same process goes on at the source
	returned outcome = "returned" // committed, then given back: the same process goes on at the source
	afresh   outcome = "afresh"   // the process was lost with its node, and its pod has started anew
)

// allowed are the outcomes that the design has for a case. A process is lost only with the
// node on which alone it was: the source until its images are offered, the target once its
// copy may have run there; or with the program on the target that is just starting its
// container: a start that breaks off is no container to kubelet (docs/moves.md).
func (c chaos) allowed() []outcome {
	switch c.fault.name {
	case "source node restarted":
		switch {
		case c.step < sent:
			return []outcome{afresh}
		case c.step < committed:
			return []outcome{afresh, moved}
		}
		return []outcome{moved}
	case "target node restarted":
		switch {
		case c.step < createWaiting: // nothing of the move is on it yet; its kubelet starts the pod once it is up
			return []outcome{stayed, moved}
		case c.step < restored:
			return []outcome{stayed}
		case c.step == restored:
			return []outcome{stayed, returned}
		case c.step == committed:
			return []outcome{returned, afresh}
		}
		return []outcome{afresh}
	case "CRIU killed on the target", "runc killed on the target", "drover-runc killed on the target",
		"containerd killed on the target", "kubelet killed on the target":
		switch c.step {
		case committed, starting:
			return []outcome{moved, returned, afresh}
		case resumed, sourceEnded: // CRIU, runc and drover-runc have ended by then
			return []outcome{moved, afresh}
		}
	}
	switch {
	case c.step < restored:
		return []outcome{moved, stayed}
	case c.step == restored: // the commit may have been on its way
		return []outcome{moved, stayed, returned}
	case c.step <= starting:
		return []outcome{moved, returned}
	}
	return []outcome{moved}
}

// verdict is what happened, and everything that is wrong with it.
func (s *scene) verdict(ctx context.Context, c chaos, end *v1alpha1.PodMigration) (outcome, []string) {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	pod, is, err := s.answer(ctx)
	if err != nil {
		return "", []string{err.Error()}
	}
	out := became(end, is.Instance == s.was.Instance)
	if !slices.Contains(c.allowed(), out) {
		say("outcome %q, want one of %q", out, c.allowed())
	}
	on := s.source.name
	switch end.Status.Phase {
	case v1alpha1.PhaseCompleted:
		on = s.target.name
	case v1alpha1.PhaseLost: // its owner makes a new pod, anywhere
		on = pod.Spec.NodeName
	}
	if pod.Spec.NodeName != on {
		say("the pod is on %s, want %s after phase %s", pod.Spec.NodeName, on, end.Status.Phase)
	}
	// 50 ticks sum the whole heap.
	last, _ := s.Witness.Last(is.Instance)
	if err := s.Witness.Await(ctx, is.Instance, last.Seq+50); err != nil {
		say("%v", err)
	}
	if fault := s.Witness.Account(s.was.Instance).Fault(); fault != "" {
		say("%s", fault)
	}
	return out, append(wrong, s.others(out, is)...)
}

// answer is the pod and what it says of itself. The API server shows a pod of a node that is
// booting as it was before.
func (s *scene) answer(ctx context.Context) (pod *corev1.Pod, is witness.Tick, err error) {
	err = cluster.Eventually(ctx, "the pod answers", func(ctx context.Context) (bool, string) {
		if pod, err = s.OnlyPod(ctx, ns, app); err != nil {
			return false, err.Error()
		}
		if is, err = s.Status(ctx, pod); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	return pod, is, err
}

func became(end *v1alpha1.PodMigration, same bool) outcome {
	switch {
	case !same:
		return afresh
	case end.Status.Phase == v1alpha1.PhaseCompleted:
		return moved
	case end.Status.Phase == v1alpha1.PhaseReturned:
		return returned
	}
	return stayed
}

// others: nobody else may have ticked beside the process that moved, and after it, if it was
// lost, one alone.
func (s *scene) others(out outcome, is witness.Tick) []string {
	var wrong []string
	last, _ := s.Witness.Last(s.was.Instance)
	for _, other := range s.Witness.Since(s.was.Instance) {
		first, _ := s.Witness.First(other)
		if out != afresh || other != is.Instance {
			wrong = append(wrong, fmt.Sprintf("another process, %s, ticked from %s", other, first.From))
		}
		if first.At.Before(last.At) {
			wrong = append(wrong, fmt.Sprintf("two copies at once: %s began %s before %s ended", other, last.At.Sub(first.At), s.was.Instance))
		}
		if fault := s.Witness.Account(other).Fault(); fault != "" {
			wrong = append(wrong, fault)
		}
	}
	return wrong
}
