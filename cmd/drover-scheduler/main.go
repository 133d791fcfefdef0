// Command drover-scheduler is kube-scheduler with the plugin RouteTime, and with the
// plugins of sigs.k8s.io/scheduler-plugins beside it for profiles that combine them. It
// takes part in the gossip of the agents as an observer.
package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // registers metrics of the API client
	_ "k8s.io/component-base/metrics/prometheus/version"  // registers the version metric
	"k8s.io/klog/v2"

	"github.com/drover-project/drover/internal/decision"
)

func main() { os.Exit(cli.Run(command())) }

// beside starts what runs beside the scheduler: the servers of metrics and of status, and
// the observer. ended is closed once ctx has ended and all have. Scheduling goes on without
// them; so only wrong options are errors.
func beside(ctx context.Context, o *options, obs *observer, decisions *decision.Log, registry *prometheus.Registry) (ended <-chan struct{}, err error) {
	log := klog.Background()
	run := func(context.Context) {}
	if o.gossipKeyFile == "" {
		log.Info("No --gossip-key-file: nothing is heard from the agents, so RouteTime scores all nodes alike")
	} else if run, err = obs.prepare(o, registry, log); err != nil {
		return nil, fmt.Errorf("prepare to observe the agents' gossip: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { serve(ctx, "Metrics", o.metricsAddress, metricsHandler(registry), log) })
	wg.Go(func() { serve(ctx, "Decisions and the picture", o.statusAddress, statusHandler(decisions, obs), log) })
	wg.Go(func() { run(ctx) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		wg.Wait()
	}()
	return done, nil
}
