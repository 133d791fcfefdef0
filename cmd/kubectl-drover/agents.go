package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// statusPort is where an agent serves its picture, on its node's loopback alone: the way
// there is the API server's port-forward, so that RBAC decides who may see it.
const statusPort = 7950

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
			answers[i].err = fetch(ctx, cfg, &pods[i], statusPort, "/v1/view", asJSON(&answers[i].view))
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
			return fetch(ctx, cfg, &pods[i], statusPort, path, asJSON(into))
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

// refusal is an agent's answer that is not what it was asked for. It lives, then.
type refusal struct{ path, status, said string }

func (r refusal) Error() string {
	return fmt.Sprintf("ask it for %s: %s: %s", r.path, r.status, r.said)
}

// fetch has an answer read to a path of one pod.
func fetch(ctx context.Context, cfg *rest.Config, pod *corev1.Pod, port int, path string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	local, stop, err := forward(ctx, cfg, pod, port)
	if err != nil {
		return err
	}
	defer stop()
	return get(ctx, fmt.Sprintf("http://127.0.0.1:%d", local), path, read)
}

// get has the answer read of who answers at a URL.
func get(ctx context.Context, base, path string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask it for %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return refusal{path, resp.Status, strings.TrimSpace(string(said))}
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("its answer to %s is not readable: %w", path, err)
	}
	return nil
}

// asJSON reads an answer into something.
func asJSON(into any) func(io.Reader) error {
	return func(r io.Reader) error { return json.NewDecoder(r).Decode(into) }
}

// forward opens a port-forward to a port of the pod and gives the local one.
func forward(ctx context.Context, cfg *rest.Config, pod *corev1.Pod, to int) (port uint16, stop func(), err error) {
	set, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return 0, nil, err
	}
	url := set.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	rt, upgrader, err := spdy.RoundTripperFor(cfg)
	if err != nil {
		return 0, nil, err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: rt}, http.MethodPost, url)
	done, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.New(dialer, []string{fmt.Sprintf("0:%d", to)}, done, ready, io.Discard, io.Discard)
	if err != nil {
		return 0, nil, err
	}
	failed := make(chan error, 1)
	go func() { failed <- f.ForwardPorts() }()
	stop = sync.OnceFunc(func() { close(done) })
	select {
	case <-ready:
	case err := <-failed:
		return 0, nil, fmt.Errorf("port-forward to %s/%s: %w", pod.Namespace, pod.Name, err)
	case <-ctx.Done():
		stop()
		return 0, nil, fmt.Errorf("port-forward to %s/%s: %w", pod.Namespace, pod.Name, ctx.Err())
	}
	ports, err := f.GetPorts()
	if err != nil || len(ports) != 1 {
		stop()
		return 0, nil, fmt.Errorf("port-forward to %s/%s: no local port: %w", pod.Namespace, pod.Name, err)
	}
	return ports[0].Local, stop, nil
}
