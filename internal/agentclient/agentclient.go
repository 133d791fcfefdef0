// Package agentclient asks agents, and schedulers, for what they tell on their nodes' loopback.
package agentclient

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// StatusPort is where an agent serves its picture, on its node's loopback alone: the way
// there is the API server's port-forward, so that RBAC decides who may see it.
const StatusPort = 7950

// Refusal is an agent's answer that is not what it was asked for. It lives, then.
type Refusal struct{ Path, Status, Said string }

func (r Refusal) Error() string {
	return fmt.Sprintf("ask it for %s: %s: %s", r.Path, r.Status, r.Said)
}

// Fetch has an answer read to a path of one pod.
func Fetch(ctx context.Context, cfg *rest.Config, pod *corev1.Pod, port int, path string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	local, stop, err := forward(ctx, cfg, pod, port)
	if err != nil {
		return err
	}
	defer stop()
	return Get(ctx, fmt.Sprintf("http://127.0.0.1:%d", local), path, read)
}

// Get has the answer read of who answers at a URL.
func Get(ctx context.Context, base, path string, read func(io.Reader) error) error {
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
		return Refusal{path, resp.Status, strings.TrimSpace(string(said))}
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("its answer to %s is not readable: %w", path, err)
	}
	return nil
}

// JSON reads an answer into something.
func JSON(into any) func(io.Reader) error {
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
