package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/hack/lab"
	labcgroup "github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/nodeagent/measure"
	"github.com/drover-project/drover/test/beat"
	"github.com/drover-project/drover/test/cluster"
)

const (
	namespace = "bench"
	// registryPort is where containerd finds a registry on each node's loopback; it speaks plain
	// HTTP to one named localhost.
	registryPort = "5000"
)

// workload is a process that is moved.
type workload struct {
	mib   int
	dirty float64 // MiB/s
}

func (w workload) String() string {
	if w.dirty == 0 {
		return fmt.Sprintf("size=%dMiB/idle", w.mib)
	}
	return fmt.Sprintf("size=%dMiB/dirty=%g", w.mib, w.dirty)
}

// labor is the lab, with what is measured by.
type labor struct {
	*cluster.Cluster
	kube    *kubernetes.Clientset
	random  float64
	from    string // nodes
	to      string
	ear     *beat.Collector
	earAddr string
	cgroups measure.Cgroups
	groups  []measure.Group // of both nodes: all that runs there
	started uint64          // processes so far
	closers []func() error
}

func up(ctx context.Context, random float64) (*labor, error) {
	c, err := cluster.Up(ctx, cluster.Options{
		Lab:    lab.Config{Name: "bench", Nodes: []lab.Node{{Name: "n1"}, {Name: "n2"}}},
		Values: map[string]any{"mode": "observe"}, Log: os.Stderr,
	})
	if err != nil {
		return nil, err
	}
	l := &labor{Cluster: c, random: random, from: "n1", to: "n2"}
	if err := l.prepare(ctx); err != nil {
		return nil, errors.Join(err, l.down())
	}
	return l, nil
}

func (l *labor) prepare(ctx context.Context) (err error) {
	if l.kube, err = l.Lab.Client(); err != nil {
		return err
	}
	if err := l.listen(); err != nil {
		return err
	}
	if err := l.serveImage(); err != nil {
		return err
	}
	if err := l.account(); err != nil {
		return err
	}
	if err := allowCheckpoints(ctx, l.kube); err != nil {
		return err
	}
	if _, err := l.Namespace(ctx, namespace); err != nil { // the lab goes with it
		return err
	}
	return errors.Join(l.Measured(ctx), l.Able(ctx))
}

// down takes all away.
func (l *labor) down() error {
	var errs []error
	for _, f := range l.closers {
		errs = append(errs, f())
	}
	return errors.Join(append(errs, l.Down())...)
}

// listen hears beats where the control plane is: outside of every node.
func (l *labor) listen() error {
	host, err := l.Lab.Address(lab.ControlPlane)
	if err != nil {
		return err
	}
	conn, err := l.Lab.ListenPacket("udp4", net.JoinHostPort(host, "0"))
	if err != nil {
		return fmt.Errorf("hear beats: %w", err)
	}
	l.closers = append(l.closers, conn.Close)
	l.ear, l.earAddr = beat.NewCollector(conn), conn.LocalAddr().String()
	go func() {
		if err := l.ear.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return nil
}

// serveImage has the programs' image pulled from a registry: of one that was imported, containerd
// cannot restore a checkpoint.
func (l *labor) serveImage() error {
	_, tar := l.AppsImage()
	img, err := tarball.ImageFromPath(tar, nil)
	if err != nil {
		return fmt.Errorf("image %s: %w", tar, err)
	}
	handler, err := serve(img)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler}
	l.closers = append(l.closers, server.Close)
	for _, node := range []string{l.from, l.to} {
		on, err := l.Lab.ListenOn(node, "tcp4", "127.0.0.1:"+registryPort)
		if err != nil {
			return fmt.Errorf("registry on %s: %w", node, err)
		}
		go server.Serve(on)
	}
	return nil
}

// pulled is the reference by which the nodes pull the programs' image.
func (l *labor) pulled() string {
	ref, _ := l.AppsImage()
	return "localhost:" + registryPort + "/apps" + ref[strings.LastIndexByte(ref, ':'):]
}

// account finds the control groups of all that runs on the nodes, and makes one on each for what
// the benchmark runs there itself.
func (l *labor) account() (err error) {
	if l.cgroups, err = measure.OpenCgroups("/sys/fs/cgroup"); err != nil {
		return err
	}
	tree, err := labcgroup.Detect()
	if err != nil {
		return err
	}
	for _, node := range []string{l.from, l.to} {
		pods, err := l.Lab.PodsGroup(node)
		if err != nil {
			return err
		}
		daemons, err := l.Lab.DaemonsGroup(node)
		if err != nil {
			return err
		}
		l.groups = append(l.groups, measure.Group(pods), measure.Group(daemons))
		if err := tree.Make(filepath.Join(pods, "bench"), false); err != nil {
			return err
		}
	}
	return nil
}

// used is the CPU time that both nodes have used so far.
func (l *labor) used() (sum time.Duration, err error) {
	for _, g := range l.groups {
		d, err := l.cgroups.CPUTime(g)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// command is one that runs on a node and is accounted to it.
func (l *labor) command(ctx context.Context, node string, argv ...string) (*exec.Cmd, error) {
	pods, err := l.Lab.PodsGroup(node)
	if err != nil {
		return nil, err
	}
	// 0 is who writes it. Of the hierarchies of v1 the one that counts CPU time is enough.
	const join = `for root in /sys/fs/cgroup/cpuacct /sys/fs/cgroup; do
	[ -e "$root$0/cgroup.procs" ] && echo 0 > "$root$0/cgroup.procs" && exec "$@"
done
echo "no control group $0" >&2; exit 1`
	return l.Lab.Command(ctx, node, append([]string{"sh", "-c", join, filepath.Join(pods, "bench")}, argv...)...)
}

// run runs a command to its end. It has no standard streams but the one for errors: what it leaves
// behind has none.
func (l *labor) run(ctx context.Context, node string, argv ...string) error {
	cmd, err := l.command(ctx, node, argv...)
	if err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s on %s: %w", strings.Join(argv, " "), node, err)
	}
	return nil
}

// process gives a name that no process had.
func (l *labor) process() uint64 { l.started++; return l.started }

// command line of a process that beats.
func (l *labor) arguments(process uint64, w workload) []string {
	return []string{
		fmt.Sprintf("--name=%d", process), "--to=" + l.earAddr, "--every=" + every.String(), fmt.Sprintf("--mib=%d", w.mib),
		fmt.Sprintf("--dirty=%g", w.dirty), fmt.Sprintf("--random=%g", l.random),
	}
}

// pod is one with a process that beats.
func (l *labor) pod(process uint64, w workload, node string, movable bool) *corev1.Pod {
	p := l.Pod(cluster.Ticker{Namespace: namespace, Name: fmt.Sprintf("p%d", process), Node: node, Movable: movable})
	box := &p.Spec.Containers[0]
	box.Name, box.Command, box.Args, box.ReadinessProbe = "beat", []string{"/beat"}, l.arguments(process, w), nil
	return p
}

// start makes a pod, and waits until it is ready.
func (l *labor) start(ctx context.Context, p *corev1.Pod) (*corev1.Pod, error) {
	if err := l.Client.Create(ctx, p); err != nil {
		return nil, fmt.Errorf("create pod %s: %w", p.Name, err)
	}
	return l.Ready(ctx, namespace, p.Name)
}

// clear deletes all pods and waits until they are gone, with their memory.
func (l *labor) clear(process uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l.ear.Forget(process)
	if err := l.Client.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(namespace)); err != nil {
		return err
	}
	return cluster.Eventually(ctx, "the pods are gone", func(ctx context.Context) (bool, string) {
		left := &corev1.PodList{}
		if err := l.Client.List(ctx, left, client.InNamespace(namespace)); err != nil {
			return false, err.Error()
		}
		return len(left.Items) == 0, fmt.Sprintf("%d are there", len(left.Items))
	})
}

// gone waits until a pod's object is gone: kubelet has ended its processes.
func (l *labor) gone(ctx context.Context, p *corev1.Pod) error {
	return cluster.Eventually(ctx, "pod "+p.Name+" is gone", func(ctx context.Context) (bool, string) {
		err := l.Client.Get(ctx, client.ObjectKeyFromObject(p), &corev1.Pod{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
}
