package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"

	corev1 "k8s.io/api/core/v1"
)

// Kubectl runs kubectl with args and gives all that it printed.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	cmd, err := c.kubectl(ctx, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *Cluster) kubectl(ctx context.Context, args ...string) (*exec.Cmd, error) {
	path, err := c.Lab.Kubectl()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Lab.Kubeconfig())
	return cmd, nil
}

var forwarding = regexp.MustCompile(`^Forwarding from (127\.0\.0\.1:\d+)`)

// Forwarded gets http path from a port of the pod by kubectl port-forward.
func (c *Cluster) Forwarded(ctx context.Context, p *corev1.Pod, port int, path string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd, err := c.kubectl(ctx, "port-forward", "-n", p.Namespace, "pod/"+p.Name, fmt.Sprintf(":%d", port))
	if err != nil {
		return "", err
	}
	cmd.Stderr = c.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("kubectl port-forward: %w", err)
	}
	defer func() {
		cancel()
		cmd.Wait() // ended by cancel
	}()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		at := forwarding.FindStringSubmatch(lines.Text())
		if at == nil {
			continue
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at[1]+path, nil)
		if err != nil {
			return "", err
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	return "", fmt.Errorf("kubectl port-forward to port %d of pod %s/%s forwards nothing", port, p.Namespace, p.Name)
}
