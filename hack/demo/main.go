// Command demo tells Drover's story on a terminal: three nodes with different link
// delays; a service is placed near its peer; a noisy neighbour starves it; the agent
// notices and moves it; its counter goes on with memory intact; every node knows where it
// is. It exits 0 only if all of that was true, and writes what it saw to out/demo.json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/cluster"
)

func main() {
	keep := flag.Bool("keep", false, "leave the lab up at the end")
	setup := flag.Bool("setup-only", false, "bring up the lab and Drover, and tell no story")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 40*time.Minute) // a cold cache builds Kubernetes
	defer cancel()
	if err := run(ctx, *keep, *setup); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// config is the demo's lab: n1 and n2 are near each other, n3 is far; each node has
// 0.6 cores, so that a busy one leaves the others alone on a machine of two.
func config() lab.Config {
	c := lab.Config{Name: "drover"}.Default()
	for i := range c.Nodes {
		c.Nodes[i].Speed = 0.6
	}
	c.Links = []lab.Link{
		{A: "n1", B: "n2", Delay: metav1.Duration{Duration: time.Millisecond}},
		{A: "n1", B: "n3", Delay: metav1.Duration{Duration: 5 * time.Millisecond}},
		{A: "n2", B: "n3", Delay: metav1.Duration{Duration: 4 * time.Millisecond}},
	}
	return c
}

func run(ctx context.Context, keep, setup bool) (err error) {
	start := time.Now()
	c, err := cluster.Up(ctx, cluster.Options{Lab: config(), Values: map[string]any{"mode": "act"}, Log: os.Stdout})
	if err != nil {
		return err
	}
	defer func() {
		if keep && err == nil {
			fmt.Printf("\nthe lab is up: export KUBECONFIG=%s   (end it: go run ./hack/lab/cmd/lab down)\n", c.Lab.Kubeconfig())
			return
		}
		err = errors.Join(err, c.Down())
	}()
	if err := c.Measured(ctx); err != nil {
		return err
	}
	fmt.Printf("set up in %.0f s\n", time.Since(start).Seconds())
	if setup {
		return nil
	}
	told := time.Now()
	if err := (&story{Cluster: c}).tell(ctx); err != nil {
		return err
	}
	fmt.Printf("\nall of it was true; told in %.0f s, see out/demo.json\n", time.Since(told).Seconds())
	return nil
}
