// Package e2e tests Drover as a user has it: real kubelets, a real API server, real CRIU,
// the chart installed, and a witness outside the pods.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/cluster"
)

var (
	labName    = flag.String("e2e.lab", "e2e", "name of the lab: by two names two parts of these tests run side by side")
	podNetwork = flag.String("e2e.podnetwork", "", "the lab's podNetwork")
)

// shared is the one cluster of this package; each test has a namespace of its own.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cfg := lab.Config{Name: *labName, PodNetwork: lab.PodNetwork(*podNetwork)}.Default()
	for i := range cfg.Nodes {
		cfg.Nodes[i].Speed = 0.6 // a busy node leaves the others alone on a machine of two cores
	}
	var err error
	shared, err = cluster.Up(ctx, cluster.Options{Lab: cfg, Values: values("observe"), Log: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: no cluster:", err)
		return 1
	}
	code := 1
	if err := shared.Measured(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	} else {
		if code = m.Run(); code == 0 {
			if err := tunnelsGone(); err != nil {
				fmt.Fprintln(os.Stderr, "e2e:", err)
				code = 1
			}
		}
	}
	if os.Getenv("DROVER_KEEP_LAB") != "" {
		fmt.Fprintln(os.Stderr, "e2e: DROVER_KEEP_LAB is set: the lab "+*labName+" is left up")
		return code
	}
	if err := shared.Down(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: down:", err)
		return 1
	}
	return code
}

// values of the chart in these tests: measurements go stale soon, so that the tests of
// missing measurements need not wait long.
func values(mode string) map[string]any {
	return map[string]any{
		"mode":      mode,
		"scheduler": map[string]any{"routeTime": map[string]any{"staleAfter": "12s"}},
	}
}

// scene is one test's namespace and context.
func scene(t *testing.T, name string) (context.Context, *cluster.Cluster, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	ns := "e2e-" + name + "-" + rand.String(4) // -count runs a test again while its last namespace is being deleted
	remove, err := shared.Namespace(ctx, ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	return ctx, shared, ns
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
