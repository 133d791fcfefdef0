package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/controller"
	"github.com/drover-project/drover/internal/movable"
)

// verdict is what "check" prints with -o json.
type verdict struct {
	Namespace  string              `json:"namespace"`
	Pod        string              `json:"pod"`
	Node       string              `json:"node,omitempty"`
	Movable    bool                `json:"movable"`
	Findings   []movable.Finding   `json:"findings"`
	Candidates []movable.Candidate `json:"candidates"`
}

func (t *tool) checkCommand() *cobra.Command {
	var to, output string
	c := &cobra.Command{
		Use:   "check POD",
		Short: "Can this pod be moved? If not, exactly why and what to change",
		Long: `Can this pod be moved, now and as it is? If not: every reason at once, and what to change.

What the pod's objects say is judged as drover-controller judges it. Its processes are
examined by the agent on its node, without stopping them, for what CRIU cannot dump. The
other nodes are judged by what their agents tell. The same guards every move.

Exit code 0: it can be moved. 1: it cannot, or that is not known. 2: the command line is wrong.`,
		Example: "  kubectl drover check counter --to n2",
		Args:    onePod,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := validOutput(output); err != nil {
				return err
			}
			c, ns, err := t.client()
			if err != nil {
				return err
			}
			v, err := t.check(cmd.Context(), c, ns, args[0], to)
			if err != nil {
				return err
			}
			if err := v.print(t.Out, output); err != nil {
				return err
			}
			if !v.Movable {
				return fmt.Errorf("%s/%s cannot be moved: %d findings", ns, args[0], len(v.Findings))
			}
			return nil
		},
	}
	c.Flags().StringVar(&to, "to", "", "node to move it to (default: any)")
	outputFlag(c, &output)
	return c
}

// check gathers all findings: those of the objects, of the processes and of the other nodes.
func (t *tool) check(ctx context.Context, c client.Client, ns, name, to string) (verdict, error) {
	v := verdict{Namespace: ns, Pod: name, Findings: []movable.Finding{}, Candidates: []movable.Candidate{}}
	found, err := controller.Check(ctx, c, controller.Config{Namespace: t.system}, ns, name, to)
	if err != nil {
		return v, err
	}
	v.Findings = append(v.Findings, found...)
	if len(found) > 0 && found[0].Reason == controller.ReasonPodNotFound {
		return v, nil
	}
	pod, err := getPod(ctx, c, ns, name)
	if err != nil {
		return v, err
	}
	if v.Node = pod.Spec.NodeName; v.Node == "" {
		return v, nil
	}
	v.Findings = append(v.Findings, t.processes(ctx, c, pod)...)
	nodes := &corev1.NodeList{}
	if err := c.List(ctx, nodes); err != nil {
		return v, fmt.Errorf("list nodes: %w", err)
	}
	answers, err := t.ask(ctx, c)
	if err == nil {
		s, e := one(answers)
		if err = e; err == nil {
			v.Candidates = append(v.Candidates, movable.Candidates(pod, nodes.Items, s)...)
			v.Findings = append(v.Findings, movable.Target(v.Candidates, to)...)
		}
	}
	if err != nil {
		v.Findings = append(v.Findings, movable.Found(movable.ReasonNotExamined, "the other nodes were not judged: %s", oneLine(err)))
	}
	v.Movable = len(v.Findings) == 0
	return v, nil
}

// processes asks the agent on the pod's node to examine the pod's processes.
func (t *tool) processes(ctx context.Context, c client.Client, pod *corev1.Pod) []movable.Finding {
	var found []movable.Finding
	err := t.askNode(ctx, c, pod.Spec.NodeName, fmt.Sprintf("/v1/pods/%s/%s/processes", pod.Namespace, pod.Name), &found)
	if err != nil {
		return []movable.Finding{movable.Found(movable.ReasonNotExamined, "the pod's processes were not examined: %s", oneLine(err)).
			But("see that the agent on its node runs and that you may port-forward to it")}
	}
	return found
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (v verdict) print(out io.Writer, format string) error {
	if format == "json" {
		return printJSON(out, v)
	}
	if v.Movable {
		fmt.Fprintf(out, "%s/%s on %s can be moved\n", v.Namespace, v.Pod, v.Node)
	} else {
		fmt.Fprintf(out, "%s/%s on %s cannot be moved:\n", v.Namespace, v.Pod, orNone(v.Node))
	}
	for _, f := range v.Findings {
		fmt.Fprintf(out, "\n  %s\n    %s\n", f.Reason, f.Message)
		if f.Remedy != "" {
			fmt.Fprintf(out, "    what to do: %s\n", f.Remedy)
		}
	}
	if len(v.Candidates) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tCAN TAKE IT\tWHY NOT")
	for _, c := range v.Candidates {
		takes, why := "yes", []string{}
		for _, f := range c.Against {
			takes = "no"
			why = append(why, f.String())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Node, takes, strings.Join(why, "; "))
	}
	return w.Flush()
}
