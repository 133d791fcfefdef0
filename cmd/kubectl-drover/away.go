package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/internal/location"
)

// agentFlag lets a command ask one agent, without the API server.
func agentFlag(c *cobra.Command, agent *string) {
	c.Flags().StringVar(agent, "agent", "", "ask the agent at this URL alone, without the API server: http://127.0.0.1:7950 on a node")
}

// askAt asks the agent at a URL that a user gave.
func askAt(ctx context.Context, base, path string, into any) error {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return fmt.Errorf("--agent %q is no URL of an agent, as http://127.0.0.1:7950 is (%w)", base, errUsage)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	err = agentclient.Get(ctx, "http://"+u.Host, path, agentclient.JSON(into))
	if said := (agentclient.Refusal{}); errors.As(err, &said) {
		return errors.New(said.Said)
	}
	if err != nil {
		return fmt.Errorf("no agent answers at %s: agents answer on the loopback of their nodes: %w", base, err)
	}
	return nil
}

// awayHint adds to an error that the API server did not answer how to do without it.
func awayHint(err error) error {
	var lost net.Error
	if !errors.As(err, &lost) {
		return err
	}
	return fmt.Errorf("%w\nwhile the API server is away an agent can be asked: --agent http://127.0.0.1:7950, on a node or through ssh -L 7950:127.0.0.1:7950 NODE", err)
}

// whereBy asks one agent where a pod is.
func (t *tool) whereBy(ctx context.Context, agent, namespace, pod string) error {
	var a location.Answer
	if err := askAt(ctx, agent, "/v1/where/"+url.PathEscape(namespace)+"/"+url.PathEscape(pod), &a); err != nil {
		return err
	}
	if len(a.Places) == 1 {
		printPlace(t.Out, a, a.Places[0])
		return nil
	}
	w := tabwriter.NewWriter(t.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "POD\tUID\tNODE")
	for _, p := range a.Places {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Pod, p.Pod.UID, p.Node)
	}
	w.Flush()
	return fmt.Errorf("%q in namespace %q is %d pods: name one by its UID", pod, namespace, len(a.Places))
}

func printPlace(out io.Writer, a location.Answer, p location.Place) {
	fmt.Fprintf(out, "%s is on %s\n", p.Pod, p.Node)
	if l := p.Moved; l != nil {
		fmt.Fprintf(out, "  it came from %s, epoch %d\n", l.From, l.Epoch)
	}
	switch {
	case p.Age == nil:
		fmt.Fprintf(out, "  the agent on %s has heard nothing of %s itself\n", a.Self, p.Node)
	default:
		fmt.Fprintf(out, "  the agent on %s holds %s for %s, and heard it last %s ago\n", a.Self, p.Node, p.Phase, p.Age.Round(100*time.Millisecond))
	}
}
