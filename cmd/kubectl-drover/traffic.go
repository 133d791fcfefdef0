package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

func (t *tool) trafficCommand() *cobra.Command {
	var output string
	var most int
	c := &cobra.Command{
		Use:   "traffic NODE",
		Short: "Who on a node talks to whom, how much, and what its network carries",
		Long: `What the TCP connections of a node and its pods carry, by pairs: the rates of the last
minute, and what was counted since the agent was started. It is the payload as the end in the
first column counts it: two pods on the same node are two pairs, and one that calls a Service
talks to the Service's address. "others" are those that the agent does not tell apart.

Below, what the devices carry that lead to other nodes, headers and all, and what is to spare.`,
		Example: "  kubectl drover traffic n1",
		Args:    oneNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			var r traffic.Report
			return t.tell(cmd.Context(), args[0], "/v1/traffic", output, &r, func(c client.Client, out io.Writer) error {
				return printTraffic(out, args[0], r, most, holders(cmd.Context(), c))
			})
		},
	}
	outputFlag(c, &output)
	c.Flags().IntVar(&most, "most", 20, "how many pairs are shown, those first that carry most; 0: all")
	return c
}

// holders names the pods and Services of addresses, those that the user may list; the others
// stay addresses.
func holders(ctx context.Context, c client.Client) map[string]string {
	named := map[string]string{}
	var services corev1.ServiceList
	if err := c.List(ctx, &services); err == nil {
		for _, s := range services.Items {
			for _, ip := range s.Spec.ClusterIPs {
				named[ip] = "service " + s.Namespace + "/" + s.Name
			}
		}
	}
	var pods corev1.PodList
	if err := c.List(ctx, &pods); err == nil {
		for _, p := range pods.Items {
			if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
				continue
			}
			for _, ip := range p.Status.PodIPs {
				named[ip.IP] = p.Namespace + "/" + p.Name
			}
		}
	}
	return named
}

func printTraffic(out io.Writer, node string, r traffic.Report, most int, named map[string]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "ON "+node+"\tTALKS TO\tON\tSENDS\tRECEIVES\tSENT\tRECEIVED")
	for i, talk := range r.Talks {
		if i == most && most > 0 {
			fmt.Fprintf(w, "and %d more\n", len(r.Talks)-most)
			break
		}
		on := string(talk.Remote.Node)
		if on == "" {
			on = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", endpoint(talk.Local, named), endpoint(talk.Remote, named), on,
			rate(talk.Sending), rate(talk.Receiving), amount(talk.Sent), amount(talk.Received))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	fmt.Fprintln(w, "DEVICE\tSENDS\tRECEIVES\tCAN CARRY\tTO SPARE")
	for _, l := range r.Links {
		can, spare := "unknown: "+l.Unknown, "unknown"
		b := model.Bandwidth{Sent: l.Sent, Received: l.Received, Capacity: l.Capacity}
		if left, known := b.Spare(); known {
			can, spare = rate(l.Capacity), rate(left)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Name, rate(l.Sent), rate(l.Received), can, spare)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.Source == "sock_ops" {
		fmt.Fprintln(out, "connections that were open when the agent was started are not counted: it has no tracepoint")
	}
	if r.Lost > 0 {
		fmt.Fprintf(out, "%d connections had no room in the kernel's tables: these figures are too low\n", r.Lost)
	}
	return nil
}

// endpoint names one end by what is known of it.
func endpoint(e traffic.Endpoint, named map[string]string) string {
	switch {
	case e.Pod != model.PodID{}:
		return e.Pod.String()
	case e.Address != "" && named[e.Address] != "":
		return named[e.Address]
	case e.Address != "":
		return e.Address
	case e.Node != "":
		return "node " + string(e.Node)
	}
	return "others"
}

// amount is bytes in the unit that leaves one to four digits before the point.
func amount(b model.Bytes) string {
	v, unit := float64(b), 0
	for ; v >= 9999.5 && unit < 4; unit++ {
		v /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%.0f B", v)
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGT"[unit-1])
}

func rate(r model.Rate) string { return amount(model.Bytes(r)) + "/s" }
