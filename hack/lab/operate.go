package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/drover-project/drover/hack/lab/boot"
	"github.com/drover-project/drover/hack/lab/fabricd"
)

// Delay is the one-way delay between two machines; negative: nothing passes.
type Delay = fabricd.Delay

// SetDelay sets the one-way delay between two machines (a node, or "cp"), both ways: a round trip
// takes twice that. Negative: nothing passes.
func (l *Lab) SetDelay(ctx context.Context, a, b string, oneWay time.Duration) error {
	for _, name := range []string{a, b} {
		if _, err := l.find(name); err != nil {
			return err
		}
	}
	if a == b {
		return fmt.Errorf("set delay of %s to itself: there is no such link", a)
	}
	if oneWay > maxDelay {
		return fmt.Errorf("set delay of %s: at most %s", oneWay, maxDelay)
	}
	return retry(ctx, func() error {
		return fabricd.SetDelay(ctx, l.switchSocket(), Delay{A: a, B: b, OneWay: oneWay})
	})
}

// SetLoss sets how likely a frame between two machines, both ways, is lost: 0 none, 1 all.
func (l *Lab) SetLoss(ctx context.Context, a, b string, rate float64) error {
	for _, name := range []string{a, b} {
		if _, err := l.find(name); err != nil {
			return err
		}
	}
	return fabricd.SetLoss(ctx, l.switchSocket(), fabricd.Loss{A: a, B: b, Rate: rate})
}

// retry is for a switch that is just starting.
func retry(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return until(ctx, "the switch answers", func(context.Context) error { return f() })
}

// Delays lists the one-way delays of all pairs.
func (l *Lab) Delays(ctx context.Context) ([]Delay, error) {
	return fabricd.Delays(ctx, l.switchSocket())
}

// SetSpeed limits a node's pods to that many cores of CPU time; 0 takes the limit away.
func (l *Lab) SetSpeed(node string, cores float64) error {
	m, err := l.find(node)
	if err != nil {
		return err
	}
	if m.index == 0 {
		return errors.New("set speed: the control plane runs no pods")
	}
	if err := checkSpeed(cores); err != nil {
		return err
	}
	return l.tree.SetSpeed(m.pods(), cores)
}

// StopNode ends a node as a power cut does: all of its processes at once. Its disk stays.
func (l *Lab) StopNode(ctx context.Context, node string) error {
	m, err := l.find(node)
	if err != nil {
		return err
	}
	if m.index == 0 {
		return errors.New("stop node: use StopService for the control plane")
	}
	p, err := loadProcess(m.pidFile())
	if err != nil {
		return err
	}
	p.kill()
	for _, group := range []string{m.pods(), m.daemons()} {
		if err := l.tree.Kill(ctx, group); err != nil {
			return fmt.Errorf("stop node %s: %w", node, err)
		}
		if err := l.tree.Remove(ctx, group); err != nil {
			return fmt.Errorf("stop node %s: %w", node, err)
		}
	}
	return until(ctx, "node "+node+" has ended", func(context.Context) error {
		if p.alive() {
			return fmt.Errorf("process %d lives", p.PID)
		}
		return nil
	})
}

// StartNode starts a node that was stopped: it boots, with a new boot ID, from its disk. It returns
// at once; WaitReady waits for it.
func (l *Lab) StartNode(node string) error {
	m, err := l.find(node)
	if err != nil {
		return err
	}
	if p, err := loadProcess(m.pidFile()); err != nil || p.alive() {
		return errors.Join(fmt.Errorf("start node %s: it runs", node), err)
	}
	i := slices.IndexFunc(l.Config.Nodes, func(n Node) bool { return n.Name == node })
	if i < 0 {
		return fmt.Errorf("start node %s: it is no node", node)
	}
	return l.startNode(m, l.Config.Nodes[i].Speed)
}

// WaitReady waits until the node is registered and Ready.
func (l *Lab) WaitReady(ctx context.Context, node string) error {
	m, err := l.find(node)
	if err != nil {
		return err
	}
	client, err := l.Client()
	if err != nil {
		return err
	}
	return settleNode(ctx, client, m, nil)
}

// StopService kills a program of a machine (SIGKILL) and keeps it down: a node's "containerd",
// "kubelet", "kube-proxy", or the control plane's.
func (l *Lab) StopService(ctx context.Context, machine, service string) error {
	return l.ask(ctx, machine, boot.Kill, service)
}

// StartService starts a program that was stopped.
func (l *Lab) StartService(ctx context.Context, machine, service string) error {
	return l.ask(ctx, machine, boot.Run, service)
}

// StopAPIServer kills the API server and keeps it down.
func (l *Lab) StopAPIServer(ctx context.Context) error {
	return l.StopService(ctx, ControlPlane, "kube-apiserver")
}

// StartAPIServer starts the API server again, and waits until it is ready.
func (l *Lab) StartAPIServer(ctx context.Context) error {
	if err := l.StartService(ctx, ControlPlane, "kube-apiserver"); err != nil {
		return err
	}
	client, err := l.Client()
	if err != nil {
		return err
	}
	return until(ctx, "the API server answers", func(ctx context.Context) error {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

func (l *Lab) ask(ctx context.Context, name string, verb boot.Verb, service string) error {
	m, err := l.find(name)
	if err != nil {
		return err
	}
	_, err = boot.Ask(ctx, m.control(), verb, service)
	return err
}

// LoadImage imports a tar of images (docker or OCI layout) on the nodes, on all if none is named.
func (l *Lab) LoadImage(ctx context.Context, tar string, nodes ...string) error {
	if len(nodes) == 0 {
		for _, n := range l.Config.Nodes {
			nodes = append(nodes, n.Name)
		}
	}
	var g errgroup.Group
	for _, node := range nodes {
		g.Go(func() error {
			f, err := os.Open(tar)
			if err != nil {
				return fmt.Errorf("load image: %w", err)
			}
			defer f.Close()
			cmd, err := l.Command(ctx, node, "ctr", "-n", "k8s.io", "images", "import", "--local", "-")
			if err != nil {
				return fmt.Errorf("load image: %w", err)
			}
			cmd.Stdin = f
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("load image %s on %s: %w\n%s", filepath.Base(tar), node, err, out)
			}
			return nil
		})
	}
	return g.Wait()
}

// Kubectl is the path of a kubectl of the lab's version.
func (l *Lab) Kubectl() (string, error) {
	for _, layer := range l.layers {
		path := filepath.Join(layer, "usr/local/bin/kubectl")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no kubectl in the cache entries of lab %s: %v", l.Config.Name, l.layers)
}
