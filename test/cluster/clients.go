package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/test/clients"
)

// Clients are some of a server, at work in a pod; see test/apps/load.
type Clients struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out bytes.Buffer
}

// StartClients has n clients begin to work from inside a ticker's pod, with the arguments of load.
func (c *Cluster) StartClients(ctx context.Context, from *corev1.Pod, n int, args ...string) (*Clients, error) {
	line := append([]string{"exec", "-i", "-n", from.Namespace, from.Name, "--", "/load", "-clients=" + strconv.Itoa(n)}, args...)
	cmd, err := c.kubectl(ctx, line...)
	if err != nil {
		return nil, err
	}
	w := &Clients{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &w.out, c.log
	if w.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start clients in %s: %w", from.Name, err)
	}
	return w, nil
}

// Phase begins a phase.
func (w *Clients) Phase(name string) error {
	_, err := fmt.Fprintln(w.in, name)
	return err
}

// End lets them end, and gives what they saw.
func (w *Clients) End() (r clients.Report, err error) {
	if err := errors.Join(w.in.Close(), w.cmd.Wait()); err != nil {
		return r, fmt.Errorf("clients: %w: %s", err, w.out.Bytes())
	}
	if err := json.Unmarshal(w.out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("what the clients saw: %w in %.200q", err, w.out.Bytes())
	}
	return r, nil
}
