package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// answer is what one agent said, or why it said nothing.
type answer struct {
	node model.NodeID
	view view.Snapshot
	err  error
}

// ask asks the agents, all at once, and gives their answers by node. No agent at all is
// an error; an agent that does not answer is an answer.
func (t *tool) ask(ctx context.Context, c client.Client) ([]answer, error) {
	pods, cfg, err := t.agents(ctx, c)
	if err != nil {
		return nil, err
	}
	answers := make([]answer, len(pods))
	var wg sync.WaitGroup
	for i := range pods {
		wg.Go(func() {
			answers[i].node = model.NodeID(pods[i].Spec.NodeName)
			answers[i].err = agentclient.Fetch(ctx, cfg, &pods[i], agentclient.StatusPort, "/v1/view", agentclient.JSON(&answers[i].view))
		})
	}
	wg.Wait()
	sort.Slice(answers, func(i, j int) bool { return answers[i].node < answers[j].node })
	return answers, nil
}

// askNode asks the agent on one node for a path.
func (t *tool) askNode(ctx context.Context, c client.Client, node, path string, into any) error {
	pods, cfg, err := t.agents(ctx, c)
	if err != nil {
		return err
	}
	for i := range pods {
		if pods[i].Spec.NodeName == node {
			return agentclient.Fetch(ctx, cfg, &pods[i], agentclient.StatusPort, path, agentclient.JSON(into))
		}
	}
	return fmt.Errorf("there is no agent on node %s", node)
}

// agents are the agents' pods, and how the API server is reached.
func (t *tool) agents(ctx context.Context, c client.Client) ([]corev1.Pod, *rest.Config, error) {
	pods, err := t.podsOf(ctx, c, "drover-agent", "agents")
	if err != nil {
		return nil, nil, err
	}
	if len(pods) == 0 {
		return nil, nil, fmt.Errorf("there is no agent in namespace %q: is Drover installed there? (--drover-namespace)", t.system)
	}
	cfg, err := t.config()
	return pods, cfg, err
}

// podsOf lists the pods of one of Drover's programs; what is what they are to the user.
func (t *tool) podsOf(ctx context.Context, c client.Client, program, what string) ([]corev1.Pod, error) {
	pods := &corev1.PodList{}
	if err := c.List(ctx, pods, client.InNamespace(t.system), client.MatchingLabels{"app.kubernetes.io/name": program}); err != nil {
		return nil, fmt.Errorf("list %s in namespace %q: %w", what, t.system, err)
	}
	return pods.Items, nil
}

// one gives the first good answer.
func one(answers []answer) (view.Snapshot, error) {
	var errs []error
	for _, a := range answers {
		if a.err == nil {
			return a.view, nil
		}
		errs = append(errs, fmt.Errorf("agent on %s: %w", a.node, a.err))
	}
	return view.Snapshot{}, fmt.Errorf("no agent answers: %w", errors.Join(errs...))
}
