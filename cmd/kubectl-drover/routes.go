package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

func (t *tool) routesCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "routes NODE",
		Short: "The ways from a node to the others, as probes and as connections find them",
		Long: `What the way from a node to each other node takes.

ROUTE TIME is that of Drover's probes, by which nodes are ranked. SMOOTHED RTT is what the
kernel has measured on TCP connections in the last minute, the mean over the segments
received: what applications feel, and more than the route takes when an end waits for its CPU.
MIN RTT is the least of the same. NODES are connections of the nodes themselves, PODS those
of which a pod is an end.`,
		Example: "  kubectl drover routes n1",
		Args:    oneNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			var r traffic.Routes
			return t.tell(cmd.Context(), args[0], "/v1/routes", output, &r, func(_ client.Client, out io.Writer) error {
				return printWays(out, args[0], r)
			})
		},
	}
	outputFlag(c, &output)
	return c
}

// tell asks the agent on a node for a path and writes its answer as JSON, or in words.
func (t *tool) tell(ctx context.Context, node, path, output string, into any, words func(client.Client, io.Writer) error) error {
	if err := validOutput(output); err != nil {
		return err
	}
	c, _, err := t.client()
	if err != nil {
		return err
	}
	if err := t.askAbout(ctx, c, node, path, into); err != nil {
		return err
	}
	if output == "json" {
		return printJSON(t.Out, into)
	}
	return words(c, t.Out)
}

// askAbout asks the agent on a node, which may not be one.
func (t *tool) askAbout(ctx context.Context, c client.Client, node, path string, into any) error {
	// Who may not read nodes can still ask an agent.
	if err := c.Get(ctx, client.ObjectKey{Name: node}, &corev1.Node{}); apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no node %q", node)
	}
	err := t.askNode(ctx, c, node, path, into)
	var said agentclient.Refusal
	if errors.As(err, &said) {
		return fmt.Errorf("the agent on %s does not know: %s", node, said.Said)
	}
	return err
}

func printWays(out io.Writer, node string, r traffic.Routes) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "TO\tROUTE TIME\tSPREAD\tSMOOTHED RTT, NODES\tMIN RTT\tSMOOTHED RTT, PODS\tMIN RTT")
	user := false
	for _, way := range r.Routes {
		rtt, spread := "?", "?"
		if way.Time != nil {
			rtt, spread = milliseconds(way.Time.RTT), milliseconds(way.Time.Spread)
			if way.Time.Stamp == model.StampUser {
				user = true
				rtt += "*"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s", way.Peer, rtt, spread)
		for _, path := range []traffic.Path{traffic.NodePath, traffic.PodPath} {
			smoothed, least := "-", "-"
			if trip, ok := way.RoundTrips[path]; ok {
				smoothed = milliseconds(trip.Smoothed)
				if trip.Min > 0 {
					least = milliseconds(trip.Min)
				}
			}
			fmt.Fprintf(w, "\t%s\t%s", smoothed, least)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if user {
		fmt.Fprintln(out, "* stamped in user space: a busy node spoils it")
	}
	if r.Unknown != "" {
		fmt.Fprintf(out, "no round trips of connections from %s: %s\n", node, r.Unknown)
	}
	return nil
}
