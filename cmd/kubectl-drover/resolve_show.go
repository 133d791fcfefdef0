package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// printMove shows the record, both ends, and what can be forced.
func printMove(out io.Writer, m *v1alpha1.PodMigration, ends []end, now time.Time) {
	fmt.Fprintf(out, "PodMigration %s/%s moves pod %s from %s to %s: %s\n\n", m.Namespace, m.Name, m.Spec.PodName,
		orNone(m.Status.Source.Node), orNone(m.Status.Target.Node), m.Status.Phase)
	fmt.Fprintf(out, "the record    %s\n", inWords(m))
	if h := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionHeld); h != nil && h.Status == "True" {
		fmt.Fprintf(out, "held          for %s: %s\n", now.Sub(h.LastTransitionTime.Time).Round(time.Second), h.Message)
	}
	for _, e := range ends {
		fmt.Fprintf(out, "%-13s %s\n", e.role, e.inWords(now))
	}
	fmt.Fprintf(out, "\nwhat can be done\n")
	for _, line := range choices(m) {
		fmt.Fprintf(out, "  %s\n", line)
	}
}

// inWords is the record's state in a sentence.
func inWords(m *v1alpha1.PodMigration) string {
	s := &m.Status
	var parts []string
	switch {
	case s.Decision == v1alpha1.Undecided:
		parts = append(parts, "undecided")
	case s.Decision == v1alpha1.Abort:
		parts = append(parts, "aborted by "+s.DecisionBy+": "+s.DecisionMessage)
	default:
		parts = append(parts, "committed by "+s.DecisionBy)
	}
	for _, f := range []struct {
		is   bool
		says string
	}{
		{s.Target.Waiting, "a create waits on the target"}, {s.Source.Offered, "the source has offered"},
		{s.Target.Starting && !s.Target.Resumed, "the copy was about to run"}, {s.Target.Resumed, "the copy runs"}, {s.Target.Failed, "the target says that its copy is dead"}, {s.Returned, "ownership returned: " + s.ReturnProof},
		{s.Target.Loaded, "all of its memory is there, or what lacked some has ended"}, {s.Source.Forfeited, "what the copy had not fetched of its memory is lost"},
		{s.Lost, "lost: " + s.LostMessage},
		{s.Source.Released, "the source was let go on"}, {s.Source.Ended, "the source's processes are gone"}, {s.Target.Cleaned, "nothing is left on the target"},
	} {
		if f.is {
			parts = append(parts, f.says)
		}
	}
	return fmt.Sprintf("epoch %d, %s", s.Epoch, strings.Join(parts, ", "))
}

// inWords is what the end's agent finds, in a sentence.
func (e end) inWords(now time.Time) string {
	if e.err != nil {
		return fmt.Sprintf("on %s: not known: %s", orNone(e.node), oneLine(e.err))
	}
	if e.found == nil {
		return fmt.Sprintf("on %s: its agent has nothing to do with this end", e.node)
	}
	f := e.found
	var parts []string
	switch {
	case !f.Alive:
		parts = append(parts, "no processes")
	case f.Frozen:
		parts = append(parts, "processes, frozen")
	default:
		parts = append(parts, "processes, running")
	}
	if f.Busy {
		parts = append(parts, "CRIU at work")
	}
	if !f.HeldSince.IsZero() {
		parts = append(parts, "held for "+now.Sub(f.HeldSince).Round(time.Second).String())
	}
	if f.Fence > 0 {
		parts = append(parts, fmt.Sprintf("a fence of epoch %d", f.Fence))
	} else {
		parts = append(parts, "no fence")
	}
	if f.Role == migrate.RoleTarget {
		parts = append(parts, copyInWords(f)...)
	}
	if !f.Driven {
		parts = append(parts, "its agent is not at work on it")
	}
	if f.Problem != "" {
		parts = append(parts, "could not look at everything: "+f.Problem)
	}
	return fmt.Sprintf("on %s: %s", e.node, strings.Join(parts, ", "))
}

func copyInWords(f *migrate.Found) []string {
	var parts []string
	for _, x := range []struct {
		is        bool
		yes, none string
	}{
		{f.Images, "complete images", "no complete images"},
		{f.Creates > 0, fmt.Sprintf("%d waiting creates", f.Creates), "no waiting create"},
		{f.Begun, "the mark that the copy was about to run", ""},
		{f.Arrived, "the copy has arrived", ""},
	} {
		switch {
		case x.is:
			parts = append(parts, x.yes)
		case x.none != "":
			parts = append(parts, x.none)
		}
	}
	return parts
}

// choices says what each forced decision would do and risk, or why there is none.
func choices(m *v1alpha1.PodMigration) []string {
	s, r := &m.Status, migrate.RecordOf(m)
	wait := "nothing: it goes on by itself when "
	switch {
	case v1alpha1.Finished(m):
		return []string{"nothing: the move has ended"}
	case allowed(handoff.Abort, r):
		return []string{
			wait + "the agents of both ends and drover-controller reach the API server; so far nobody acts",
			fmt.Sprintf("--abort    pod %s goes on on node %s as if nothing had been, but for the time it stood still. No risk: who decides", s.Source.PodName, orNone(s.Source.Node)),
			"           first wins, and nobody can commit afterwards. A node whose agent is away lets go when it is back.",
		}
	case allowed(handoff.Return, r):
		return []string{
			wait + fmt.Sprintf("the agent on node %s lets the copy run, or says that it is dead; when that node boots anew; or", s.Target.Node),
			"           when you have powered it off and deleted its Node object: then the source's agent has its proof",
			fmt.Sprintf("--return   pod %s goes on on node %s, and node %s may not let its copy run any more: the record says first who may.", s.Source.PodName, s.Source.Node, s.Target.Node),
			"           Only if that machine is powered off: one that runs and is merely not heard is held by nothing but its own",
			"           agent, and two copies that answer, write and send with the same identity cannot be merged again.",
			fmt.Sprintf("           Say so with --i-am-sure-node-is-off %s.", s.Target.Node),
		}
	case allowed(handoff.Lose, r):
		return []string{
			wait + fmt.Sprintf("the agent on node %s says what has become of the copy, which was about to run and may have; or", s.Target.Node),
			"           when you have powered that machine off and deleted its Node object: then the source's agent has its proof",
			fmt.Sprintf("--forget   the memory of pod %s is lost: what node %s holds is older than what the copy may have done, so it is ended", s.Source.PodName, s.Source.Node),
			fmt.Sprintf("           and the owner starts a new pod. Only if the machine of node %s is powered off: if its copy runs, the new pod", s.Target.Node),
			fmt.Sprintf("           runs beside it. Say so with --i-am-sure-node-is-off %s.", s.Target.Node),
		}
	case s.Target.Resumed && r.Needed():
		return []string{wait + fmt.Sprintf("all of the pod's memory has come from node %s to node %s, where it runs. To give it up, delete pod %s", s.Source.Node, s.Target.Node, s.Target.PodName)}
	case s.Target.Resumed:
		return []string{wait + "the agent on node " + s.Source.Node + " ends the source's processes and drover-controller hands the pod over; it runs on node " + s.Target.Node}
	}
	return []string{wait + "the agents of both ends carry out what the record says: see to the one that does not answer, nothing in the record can do its work"}
}

// allowed tells whether the machines' own rules allow the change.
func allowed(v handoff.Verb, r handoff.Record) bool {
	_, err := handoff.Change{Verb: v}.Apply(r)
	return err == nil
}
