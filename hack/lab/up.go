package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/hack/lab/boot"
	"github.com/drover-project/drover/hack/lab/cache"
	"github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/hack/lab/fabricd"
)

// startTimeout bounds the time from the first process to the last Ready node.
const startTimeout = 3 * time.Minute

// Up brings the lab up and returns when all nodes are Ready. A lab that is up already is left as it
// is; what is left of one that broke is cleaned away first. If it fails it leaves nothing.
func Up(ctx context.Context, c Config) (*Lab, error) {
	c = c.Default()
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("lab configuration: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab needs root: it makes namespaces and cgroups")
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return nil, fmt.Errorf("a lab needs a kernel with IPv6 (is it off by ipv6.disable=1?): %w", err)
	}
	unlock, err := lockLab(ctx, c.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if old, err := Open(c.Name); err == nil && old.healthy() {
		if r, err := readRecord(c.Name); err == nil && r.Complete {
			return old.same(c)
		}
	}
	if leftovers(c.Name) {
		c.Report("lab %s: cleaning up what is left of an earlier one", c.Name)
		if err := clean(ctx, c.Name); err != nil {
			return nil, err
		}
	}
	layers, err := cache.Layers(ctx, c.Report)
	if err != nil {
		return nil, err
	}
	l := &Lab{Config: c, layers: layers}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not up after %s", startTimeout))
	defer cancel()
	if err := l.start(ctx); err != nil {
		err = fmt.Errorf("bring up lab %s: %w%s", c.Name, err, l.tails())
		if os.Getenv("DROVER_LAB_KEEP") == "1" {
			return nil, fmt.Errorf("%w\n(DROVER_LAB_KEEP=1: left as it is, logs in %s/machines/*/log)", err, l.dir())
		}
		return nil, errors.Join(err, clean(context.WithoutCancel(ctx), c.Name))
	}
	return l, nil
}

// same gives the running lab if it is the one that is asked for.
func (l *Lab) same(c Config) (*Lab, error) {
	if !reflect.DeepEqual(l.Config.Nodes, c.Nodes) {
		return nil, fmt.Errorf("lab %s is up with other nodes: take it down first", c.Name)
	}
	c.Report("lab %s: already up", c.Name)
	l.Config.Report = c.Report
	return l, nil
}

// healthy tells whether all of the lab's own processes live. What they supervise they start again
// themselves.
func (l *Lab) healthy() bool {
	files := []string{l.switchPID()}
	for _, m := range machines(l.Config) {
		files = append(files, m.pidFile())
	}
	for _, f := range files {
		if p, err := loadProcess(f); err != nil || !p.alive() {
			return false
		}
	}
	return true
}

func (l *Lab) start(ctx context.Context) error {
	begin := time.Now()
	step := func(format string, args ...any) {
		l.Config.Report("%5.1fs  %s", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	var err error
	if l.tree, err = cgroup.Detect(); err != nil {
		return err
	}
	credentials, err := newCredentials(l.Config.Name)
	if err != nil {
		return err
	}
	if err := l.startSwitch(); err != nil {
		return err
	}
	if err := l.startMachines(credentials); err != nil {
		return err
	}
	for _, link := range l.Config.Links {
		if err := l.SetDelay(ctx, link.A, link.B, link.Delay.Duration); err != nil {
			return err
		}
	}
	step("started the switch, the control plane and %d nodes", len(l.Config.Nodes))
	if err := l.await(ctx, step); err != nil {
		return err
	}
	r, err := readRecord(l.Config.Name)
	if err != nil {
		return err
	}
	r.Complete = true
	return r.save()
}

func (l *Lab) startMachines(c *credentials) error {
	all := machines(l.Config)
	if err := prepareControlPlane(all[0], all, c); err != nil {
		return err
	}
	ports, err := l.startControlPlane(all[0], all)
	if err != nil {
		return err
	}
	admin, err := c.kubeconfig("https://"+ports[0], "drover-lab-admin", "system:masters")
	if err != nil {
		return err
	}
	if err := writeFile(l.Kubeconfig(), admin); err != nil {
		return err
	}
	var g errgroup.Group
	for i, n := range l.Config.Nodes {
		g.Go(func() error {
			if err := prepareNode(all[i+1], n, l.Config.PodNetwork, all, c); err != nil {
				return err
			}
			return l.startNode(all[i+1], n.Speed)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return record{Config: l.Config, Layers: l.layers, Ports: ports}.save()
}

func (l *Lab) startSwitch() error {
	group := machine{lab: l.Config.Name, name: "switch"}.daemons()
	if err := l.tree.Make(group, false); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.switchSocket()), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(l.dir(), "switch.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := fabricd.Start(l.Config.Name, l.switchSocket(), group, log)
	if err != nil {
		return err
	}
	return adopt(p, l.switchPID())
}

// adopt saves a started process's identity, and reaps it if it ends before us.
func adopt(p *os.Process, pidFile string) error {
	id, err := identify(p.Pid)
	go func() { _, _ = p.Wait() }()
	if err != nil {
		return fmt.Errorf("process %d ended at once: %w", p.Pid, err)
	}
	return id.save(pidFile)
}

// startControlPlane gives the ports on 127.0.0.1 that lead to the API server and to Prometheus.
func (l *Lab) startControlPlane(m machine, all []machine) ([]string, error) {
	if err := l.tree.Make(m.daemons(), false); err != nil {
		return nil, err
	}
	var ports []string
	var files []*os.File
	for range 2 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("listen on 127.0.0.1: %w", err)
		}
		defer listener.Close()
		f, err := listener.(*net.TCPListener).File()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		ports, files = append(ports, listener.Addr().String()), append(files, f)
	}
	spec := controlPlaneSpec(m, all, l.layers, l.switchSocket())
	p, err := boot.Start(spec, filepath.Join(m.dir(), "spec.json"), files...)
	if err != nil {
		return nil, err
	}
	return ports, adopt(p, m.pidFile())
}

func (l *Lab) startNode(m machine, speed float64) error {
	if err := l.tree.Make(m.daemons(), false); err != nil {
		return err
	}
	if err := l.tree.Make(m.pods(), true); err != nil {
		return err
	}
	if err := l.tree.SetSpeed(m.pods(), speed); err != nil {
		return err
	}
	spec := nodeSpec(m, l.Config.PodNetwork, machines(l.Config), l.layers, l.switchSocket())
	p, err := boot.Start(spec, filepath.Join(m.dir(), "spec.json"))
	if err != nil {
		return err
	}
	return adopt(p, m.pidFile())
}

// await waits for the cluster to be usable.
func (l *Lab) await(ctx context.Context, step func(string, ...any)) error {
	client, err := l.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go l.watchProcesses(ctx, cancel)
	if err := until(ctx, "the API server answers", func(ctx context.Context) error {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	}); err != nil {
		return err
	}
	step("API server ready")
	if err := grantRoles(ctx, client); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for i, m := range machines(l.Config)[1:] {
		g.Go(func() error {
			if err := settleNode(gctx, client, m, l.Config.Nodes[i].Labels); err != nil {
				return err
			}
			step("node %s Ready", m.name)
			return nil
		})
	}
	g.Go(func() error {
		return until(gctx, "pods can be created", func(ctx context.Context) error {
			_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
			return err
		})
	})
	return g.Wait()
}

// watchProcesses ends the wait early when one of the lab's machines has died.
func (l *Lab) watchProcesses(ctx context.Context, cancel context.CancelCauseFunc) {
	for l.healthy() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
	cancel(errors.New("one of the lab's machines has died"))
}
