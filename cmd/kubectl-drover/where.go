package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
)

func (t *tool) whereCommand() *cobra.Command {
	var agent string
	c := &cobra.Command{
		Use:   "where POD",
		Short: "Where a pod is now, and whether every agent knows it",
		Long: `Where a pod is now. POD may be its name today or the name it had before it was moved.
Every agent is asked; it is an error when they disagree.

With --agent one agent alone is asked, and the API server is not: any agent knows where every pod is,
and goes on knowing while the API server is away. Agents answer on the loopback of their nodes: run
this on a node, or come by ssh -L 7950:127.0.0.1:7950 NODE. POD may be a UID then, too.`,
		Example: `  kubectl drover where web-dm2
  kubectl drover where web --agent http://127.0.0.1:7950`,
		Args: onePod,
		RunE: func(cmd *cobra.Command, args []string) error {
			if agent != "" {
				ns, _, err := t.flags.ToRawKubeConfigLoader().Namespace()
				if err != nil {
					return fmt.Errorf("kubeconfig: namespace: %w", err)
				}
				return t.whereBy(cmd.Context(), agent, ns, args[0])
			}
			c, ns, err := t.client()
			if err != nil {
				return err
			}
			return awayHint(t.where(cmd.Context(), c, ns, args[0]))
		},
	}
	agentFlag(c, &agent)
	return c
}

func (t *tool) where(ctx context.Context, c client.Client, ns, name string) error {
	pod, err := currentPod(ctx, c, ns, name)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "%s/%s is on %s\n", ns, pod.Name, orNone(pod.Spec.NodeName))
	origin, moved := pod.Annotations[v1alpha1.AnnotationOrigin]
	if !moved {
		fmt.Fprintln(t.Out, "it was never moved")
		return nil
	}
	answers, err := t.ask(ctx, c)
	if err != nil {
		return err
	}
	wrong := 0
	for _, a := range answers {
		said, right := says(a, origin, model.NodeID(pod.Spec.NodeName))
		if !right {
			wrong++
		}
		fmt.Fprintf(t.Out, "  the agent on %s says: %s\n", a.node, said)
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d agents do not say that %s/%s is on %s", wrong, len(answers), ns, pod.Name, pod.Spec.NodeName)
	}
	return nil
}

// says puts an agent's answer about a lineage in words, and tells whether it is node.
func says(a answer, origin string, node model.NodeID) (string, bool) {
	if a.err != nil {
		return "nothing (" + a.err.Error() + ")", false
	}
	l, ok := a.view.Location(origin)
	if !ok {
		return "it knows of no move", false
	}
	return fmt.Sprintf("%s on %s, from %s, epoch %d", l.Pod.Name, l.Node, l.From, l.Epoch), l.Node == node
}

// currentPod finds a pod by its name, or by a name that it had before a move.
func currentPod(ctx context.Context, c client.Client, ns, name string) (*corev1.Pod, error) {
	pod, err := getPod(ctx, c, ns, name)
	if err == nil {
		return pod, nil
	}
	moves := &v1alpha1.PodMigrationList{}
	if lerr := c.List(ctx, moves, client.InNamespace(ns)); lerr != nil {
		return nil, fmt.Errorf("%w, and its moves cannot be read: %w", err, lerr)
	}
	next := map[string]string{}
	for _, m := range moves.Items {
		if m.Status.Decision == v1alpha1.Commit && !m.Status.Returned && !m.Status.Lost {
			next[m.Spec.PodName] = m.Status.Target.PodName
		}
	}
	for range moves.Items { // at most one step a move
		to, ok := next[name]
		if !ok {
			break
		}
		name = to
		if pod, nerr := getPod(ctx, c, ns, name); nerr == nil {
			return pod, nil
		}
	}
	return nil, err
}

func orNone(node string) string {
	if node == "" {
		return "no node"
	}
	return node
}
