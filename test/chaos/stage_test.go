package chaos

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/hack/deploy"
	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/test/cluster"
)

const (
	// third is the node that pods never move from or to: the witness, the controller and the
	// scheduler are there.
	third = "n3"
	ns    = "chaos"
	// diskMiB is the size of a node's disk for fences and notes, vault that of the tmpfs for
	// images: room for those of one move, and what an agent keeps free.
	diskMiB = 64
	vault   = "512M"
)

// stage is the cluster that all cases share.
var stage theStage

// theStage is brought up by the first test that needs it.
type theStage struct {
	sync.Once
	*cluster.Cluster
	err  error
	left []string // remains that have been told
	last *result  // of the case before
}

func TestMain(m *testing.M) {
	code := m.Run()
	switch {
	case stage.Cluster == nil:
	case os.Getenv("DROVER_KEEP_LAB") != "":
		fmt.Fprintln(os.Stderr, "chaos: DROVER_KEEP_LAB is set: the lab chaos is left up")
	default:
		if err := stage.Down(); err != nil {
			fmt.Fprintln(os.Stderr, "chaos: down:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func needStage(t *testing.T) *cluster.Cluster {
	t.Helper()
	stage.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		stage.err = raise(ctx)
	})
	if stage.err != nil {
		t.Fatal("no cluster: ", stage.err)
	}
	return stage.Cluster
}

func raise(ctx context.Context) error {
	cfg := lab.Config{Name: "chaos"}.Default()
	for i := range cfg.Nodes {
		cfg.Nodes[i].Disks = map[string]int{layout.Default.State: diskMiB}
	}
	var err error
	stage.Cluster, err = cluster.Up(ctx, cluster.Options{
		Lab: cfg, WitnessOn: third, Log: os.Stderr,
		Values: map[string]any{"agent": map[string]any{"images": map[string]any{"memory": vault}}},
	})
	if err != nil {
		return err
	}
	if err := stage.gather(ctx); err != nil {
		return err
	}
	if _, err := stage.Namespace(ctx, ns); err != nil {
		return err
	}
	return well(ctx, stage.Cluster)
}

// gather brings the controller and the scheduler to the third node, and keeps other pods away
// from it.
func (s *theStage) gather(ctx context.Context) error {
	for _, n := range s.Nodes() {
		if err := s.Cordon(ctx, n, n != third); err != nil {
			return err
		}
	}
	for _, name := range []string{"drover-controller", "drover-scheduler"} {
		pods := &corev1.PodList{}
		if err := s.Client.List(ctx, pods, client.InNamespace(deploy.Namespace)); err != nil {
			return err
		}
		for i := range pods.Items {
			if p := &pods.Items[i]; p.Spec.NodeName != third && p.Labels["app.kubernetes.io/name"] == name {
				if err := s.Client.Delete(ctx, p, client.GracePeriodSeconds(0)); err != nil {
					return err
				}
			}
		}
	}
	for _, n := range s.Nodes() {
		if err := s.Cordon(ctx, n, n == third); err != nil {
			return err
		}
	}
	return nil
}

// well waits until nothing of Drover is missing and every node knows of every other: what a
// fault has broken has come back.
func well(ctx context.Context, c *cluster.Cluster) error {
	for _, n := range c.Nodes() {
		if err := c.Lab.WaitReady(ctx, n); err != nil {
			return err
		}
	}
	err := cluster.Eventually(ctx, "all of Drover is ready", func(ctx context.Context) (bool, string) {
		var d appsv1.DaemonSetList
		var p appsv1.DeploymentList
		if err := c.Client.List(ctx, &d, client.InNamespace(deploy.Namespace)); err != nil {
			return false, err.Error()
		}
		if err := c.Client.List(ctx, &p, client.InNamespace(deploy.Namespace)); err != nil {
			return false, err.Error()
		}
		for _, s := range d.Items {
			if s.Status.NumberReady < s.Status.DesiredNumberScheduled || s.Status.NumberReady == 0 {
				return false, fmt.Sprintf("%s: %d of %d ready", s.Name, s.Status.NumberReady, s.Status.DesiredNumberScheduled)
			}
		}
		for _, s := range p.Items {
			if s.Status.ReadyReplicas < *s.Spec.Replicas {
				return false, fmt.Sprintf("%s: %d ready", s.Name, s.Status.ReadyReplicas)
			}
		}
		return true, ""
	})
	if err != nil {
		return err
	}
	return c.Measured(ctx)
}
