package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/blame"
)

func (t *tool) contentionCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "contention NODE",
		Short: "Who suffers on a node, and from whom",
		Long: `Who waits for the CPU of a node, and who ran on it meanwhile, over the last seconds.

WAITS is how many seconds the threads of a container waited in every second, all of them
together. Its parts: OWN, other threads of the container ran; QUOTA, its own CPU limit or its
pod's was used up; NODE QUOTA, one above the pods was; NODE, something in no container ran
(the kernel, daemons); IDLE, nothing ran, and the CPU was about to come to it; and each of
the NEIGHBOURS that ran.`,
		Example: "  kubectl drover contention n1",
		Args:    oneNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := validOutput(output); err != nil {
				return err
			}
			c, _, err := t.client()
			if err != nil {
				return err
			}
			r, err := t.contention(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(t.Out, r)
			}
			return printContention(t.Out, args[0], r)
		},
	}
	outputFlag(c, &output)
	return c
}

// contention asks the agent on a node who keeps whom from the CPU.
func (t *tool) contention(ctx context.Context, c client.Client, node string) (blame.Report, error) {
	var r blame.Report
	// Who may not read nodes can still ask an agent.
	if err := c.Get(ctx, client.ObjectKey{Name: node}, &corev1.Node{}); apierrors.IsNotFound(err) {
		return r, fmt.Errorf("there is no node %q", node)
	}
	err := t.askNode(ctx, c, node, "/v1/contention", &r)
	var said refusal
	if errors.As(err, &said) {
		return r, fmt.Errorf("the agent on %s does not know: %s", node, said.said)
	}
	if err != nil {
		return r, fmt.Errorf("who waits for the CPU of %s is not known: %w", node, err)
	}
	return r, nil
}

func printContention(out io.Writer, node string, r blame.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CONTAINER\tSUFFERS\tCPU USED\tWAITS\tOWN\tQUOTA\tNODE QUOTA\tNODE\tIDLE\tNEIGHBOURS")
	for _, c := range r.Containers {
		suffers := "no"
		if c.Suffering {
			suffers = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\n", text(c.Name), suffers, c.Run, c.Wait,
			c.Own, c.Quota, c.NodeQuota, c.Node, c.Idle, neighbours(c.Neighbours))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nseconds per second; of %s's CPU a hypervisor took %.2f (steal), soft interrupts %.2f: whoever was on the CPU is charged with those\n",
		node, r.Steal, r.SoftIRQ)
	return err
}

// neighbours names those that would show in two digits.
func neighbours(all []blame.Neighbour) string {
	var named []string
	for _, n := range all {
		if n.Wait < 0.005 {
			break
		}
		named = append(named, fmt.Sprintf("%s %.2f", text(n.Name), n.Wait))
	}
	if len(named) == 0 {
		return "-"
	}
	return strings.Join(named, ", ")
}

func text(n blame.Name) string { return n.Namespace + "/" + n.Pod + "/" + n.Container }
