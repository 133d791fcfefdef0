package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
)

// compared is beside how many others the chosen node's points are shown, plugin by plugin.
const compared = 3

// decided asks all schedulers, of which the leader at that time decided. It is an error if any
// cannot be asked.
func (t *tool) decided(ctx context.Context, c client.Client, ns, name string) ([]decision.Decision, error) {
	pods, err := t.podsOf(ctx, c, "drover-scheduler", "schedulers")
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("there is no drover-scheduler in namespace %q (--drover-namespace)", t.system)
	}
	cfg, err := t.config()
	if err != nil {
		return nil, err
	}
	var all []decision.Decision
	var errs []error
	for i := range pods {
		p := &pods[i]
		if p.Status.Phase != corev1.PodRunning {
			continue
		}
		var some []decision.Decision
		if err := agentclient.Fetch(ctx, cfg, p, agentclient.StatusPort, "/v1/decisions/"+ns+"/"+name, agentclient.JSON(&some)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
		}
		all = append(all, some...)
	}
	slices.SortStableFunc(all, func(a, b decision.Decision) int { return b.Bound.Compare(a.Bound) })
	return all, errors.Join(errs...)
}

// formula is A with its weights.
func formula(p placement.Params) string {
	return fmt.Sprintf("A = (%v*C + %v*M) / (%v*T^%v), T not below %v", p.Alpha, p.Beta, p.Tau, p.Exponent, p.Floor)
}

// printPast prints a decision that was made; pod is nil when it is not there any more.
func printPast(out io.Writer, d *decision.Decision, pod *corev1.Pod, now time.Time) {
	is := "the pod is gone"
	if pod != nil {
		is = "it is on " + orNone(pod.Spec.NodeName) + " now"
	}
	fmt.Fprintf(out, "DECIDED %s AGO: %s/%s was placed on %s at %s by the profile %s; %s\n", duration.HumanDuration(max(0, now.Sub(d.Bound))),
		d.Namespace, d.Name, d.Winner, d.Bound.UTC().Format(time.RFC3339), d.Profile, is)
	if len(d.Nodes) == 0 {
		fmt.Fprintln(out, "nothing was scored: one node alone was feasible")
		return
	}
	fmt.Fprintf(out, "the figures are those of then (--now: of now), from a picture that was %v old; %d of %d nodes were scored%s\n", d.ViewAge.Round(time.Millisecond), max(d.Scored, len(d.Nodes)), d.Cluster, foremost(d))
	fmt.Fprintf(out, "route times are %s\n%s%s\n\n", whence(d), peersOf(d), formula(d.Params))
	nodes := slices.Clone(d.Nodes)
	slices.SortStableFunc(nodes, func(a, b decision.Node) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(b.Points, a.Points), cmp.Compare(a.Node, b.Node))
	})
	marks := map[model.NodeID]string{d.Winner: " (chosen)"}
	printScores(out, nodes, marks, nil)
	printSaid(out, d.Plugins, nodes, d.Winner)
}

// foremost says that some of the nodes are not told.
func foremost(d *decision.Decision) string {
	if d.Scored <= len(d.Nodes) { // a scheduler from before there was Scored tells of all
		return ""
	}
	return fmt.Sprintf("; the %d foremost of them are known still", len(d.Nodes))
}

// whence says from where route times counted.
func whence(d *decision.Decision) string {
	switch {
	case len(d.Peers) > 0:
		var on []string
		for _, peer := range slices.Sorted(maps.Keys(d.Peers)) {
			on = append(on, fmt.Sprintf("%s (weight %.3g)", peer, d.Peers[peer]))
		}
		return "those to its peers, on " + strings.Join(on, ", ")
	case d.Source != "":
		return "those from " + string(d.Source)
	}
	return "the means to all others"
}

// peersOf is a line on how the peers were known; none of schedulers that do not tell.
func peersOf(d *decision.Decision) string {
	if d.PeersBy == "" {
		return ""
	}
	return fmt.Sprintf("peers: %s: %s\n", d.PeersBy, d.PeersWhy)
}

// printScores prints a row a node; marks are put after names, barred are those that the
// scheduler passes over.
func printScores(out io.Writer, nodes []decision.Node, marks, barred map[model.NodeID]string) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tSCORE\tA\tC (cores)\tM (GiB)\tT (ms)\tPATH\tAGE\tWHY")
	for _, s := range nodes {
		var why []string
		if b := barred[s.Node]; b != "" {
			why = append(why, "not a candidate: "+b)
		}
		for _, r := range s.Reasons {
			why = append(why, r.String())
		}
		a, t, path, age := "-", "-", "-", "-"
		if s.Known {
			a = fmt.Sprintf("%.2f", s.A)
		}
		if s.Route.Known {
			t = fmt.Sprintf("%.3f", float64(s.T)/float64(time.Millisecond))
			path = cmp.Or(string(s.Route.Path), path)
		}
		if s.Age != decision.NotHeard {
			age = fmt.Sprintf("%.1fs", s.Age.Seconds())
		}
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%.2f\t%.2f\t%s\t%s\t%s\t%s\n", string(s.Node)+marks[s.Node], s.Points, a, s.Idle.CPU, s.Idle.Memory.GiB(), t, path, age, strings.Join(why, "; "))
	}
	w.Flush()
}

// printSaid prints the points of all plugins, of the chosen node and of those that came next.
func printSaid(out io.Writer, plugins []string, nodes []decision.Node, chosen model.NodeID) {
	if len(plugins) == 0 {
		return
	}
	is := func(n decision.Node) bool { return n.Node == chosen }
	shown := slices.DeleteFunc(slices.Clone(nodes), func(n decision.Node) bool { return !is(n) })
	others := slices.DeleteFunc(slices.Clone(nodes), is)
	shown = append(shown, others[:min(compared, len(others))]...)
	fmt.Fprintln(out, "\nWhat all plugins said, weighted; the greatest total is chosen, by lot among equals:")
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name string, cell func(decision.Node) string) {
		fmt.Fprint(w, name)
		for _, n := range shown {
			fmt.Fprint(w, "\t", cell(n))
		}
		fmt.Fprintln(w)
	}
	row("PLUGIN", func(n decision.Node) string { return string(n.Node) })
	for i, plugin := range plugins {
		row(plugin, func(n decision.Node) string { return fmt.Sprint(n.Said[i]) })
	}
	row("TOTAL", func(n decision.Node) string { return fmt.Sprint(n.Total) })
	w.Flush()
}
