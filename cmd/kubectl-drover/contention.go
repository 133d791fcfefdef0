package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
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
			var r blame.Report
			return t.tell(cmd.Context(), args[0], "/v1/contention", output, &r, func(_ client.Client, out io.Writer) error {
				return printContention(out, args[0], r)
			})
		},
	}
	outputFlag(c, &output)
	return c
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
