package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

func (t *tool) statusCommand() *cobra.Command {
	var agent, output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Nodes, where they are in their life, and the route times between them and between their pods",
		Long: `Every node as the first agent that answers sees it.

PHASE is what the node is held for: joining (its load and what it can do are not known yet), normal,
leaving (it is cordoned, or to be deleted: no pod is moved to it), suspected (its agent is not heard),
dead (nor does its kernel answer anybody). SINCE is for how long, AGE how old its last report is.

With -o json it is all that the agent knows, which drover-simulate reads.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validOutput(output); err != nil {
				return err
			}
			if agent != "" {
				var s view.Snapshot
				if err := askAt(cmd.Context(), agent, "/v1/view", &s); err != nil {
					return err
				}
				return t.showStatus(s, output)
			}
			c, _, err := t.client()
			if err != nil {
				return err
			}
			answers, err := t.ask(cmd.Context(), c)
			if err != nil {
				return awayHint(err)
			}
			s, err := one(answers)
			if err != nil {
				return err
			}
			if err := t.showStatus(s, output); err != nil {
				return err
			}
			for _, a := range answers {
				if a.err != nil {
					fmt.Fprintf(t.ErrOut, "the agent on %s does not answer: %v\n", a.node, a.err)
				}
			}
			return nil
		},
	}
	agentFlag(c, &agent)
	outputFlag(c, &output)
	return c
}

func (t *tool) showStatus(s view.Snapshot, output string) error {
	if output == "json" {
		return printJSON(t.Out, s)
	}
	printStatus(t.Out, s)
	return nil
}

func printStatus(out io.Writer, s view.Snapshot) {
	printNodes(out, s)
	printRoutes(out, "NODE PATH", model.PathNode, s)
	printRoutes(out, "POD PATH", model.PathPod, s)
}

func printNodes(out io.Writer, s view.Snapshot) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tPHASE\tSINCE\tAGE\tCPU FREE\tMEMORY FREE\tPRESSURE\tSUFFERING\tCAN TAKE PODS")
	for _, id := range s.IDs() {
		n := s.Nodes[id]
		age, known := n.Age(s.At)
		if !known {
			fmt.Fprintf(w, "%s\t%s\t%s\t-\t-\t-\t-\t-\tunknown\n", id, phase(n), since(n, s.At))
			continue
		}
		l := n.Load(s.At)
		takes := "yes"
		if why := n.Closed(); why != "" {
			takes = "no: " + why
		} else if n.State.CannotRestore != "" {
			takes = "no: " + n.State.CannotRestore
		}
		idle := l.Idle()
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.2f of %.2f\t%.1f of %.1f GiB\t%.0f %%\t%d\t%s\n", id, phase(n), since(n, s.At), age.Round(100*time.Millisecond),
			idle.CPU, l.Allocatable.CPU, idle.Memory.GiB(), l.Allocatable.Memory.GiB(),
			100*l.Pressure, severe(n.State.Suffering), takes)
	}
	w.Flush()
}

// severe counts the pods whose contention is that.
func severe(all []model.Contention) int {
	pods := map[string]bool{}
	for _, c := range all {
		if c.Severe() {
			pods[c.Pod.UID] = true
		}
	}
	return len(pods)
}

// phase is what the node is held for; an agent from before there were phases does not tell.
func phase(n view.Node) string {
	switch {
	case n.Phase != "":
		return string(n.Phase)
	case n.Alive:
		return "alive"
	}
	return "not heard"
}

func since(n view.Node, now time.Time) string {
	if n.Since.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(0, now.Sub(n.Since)))
}

// printRoutes prints the matrix of a path: a row asked, a column answered.
func printRoutes(out io.Writer, title string, by model.Path, s view.Snapshot) {
	ids := s.IDs()
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n%s\t", title)
	for _, to := range ids {
		fmt.Fprintf(w, "%s\t", to)
	}
	fmt.Fprintln(w)
	user := false
	for _, from := range ids {
		fmt.Fprintf(w, "%s\t", from)
		for _, to := range ids {
			n := s.Nodes[from]
			r, ok := n.State.RoutesBy(by)[to]
			switch {
			case from == to:
				fmt.Fprint(w, "-\t")
			case !ok || r.Samples == 0:
				fmt.Fprint(w, "?\t")
			case r.Stamp == model.StampUser:
				user = true
				fmt.Fprintf(w, "%s*\t", milliseconds(r.RTT))
			default:
				fmt.Fprintf(w, "%s\t", milliseconds(r.RTT))
			}
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	if user {
		fmt.Fprintln(out, "* stamped in user space: a busy node spoils it")
	}
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond))
}
