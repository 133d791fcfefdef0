// Command drover-scheduler is kube-scheduler with the plugin RouteTime, and with the
// plugins of sigs.k8s.io/scheduler-plugins beside it for profiles that combine them. It
// takes part in the gossip of the agents as an observer.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // registers metrics of the API client
	_ "k8s.io/component-base/metrics/prometheus/version"  // registers the version metric
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() { os.Exit(cli.Run(command())) }

// command is kube-scheduler's own, with flags for the gossip and with what has to run
// beside the scheduler.
func command() *cobra.Command {
	registry := prometheus.NewRegistry()
	o := newOptions()
	obs := &observer{}
	cmd := app.NewSchedulerCommand(plugins(obs, registry)...)
	cmd.Use = "drover-scheduler"
	cmd.Long = "kube-scheduler with the plugin RouteTime, which places pods by idle CPU, idle memory and measured route time."
	o.addTo(cmd)

	schedule := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := o.validate(); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		ended, err := beside(ctx, o, obs, registry)
		if err != nil {
			return err
		}
		err = schedule(cmd, args)
		stop()
		<-ended
		return err
	}
	return cmd
}

// beside starts what runs beside the scheduler: the metrics' server and the observer.
// ended is closed once ctx has ended and both have. Scheduling goes on without them; so
// only wrong options are errors.
func beside(ctx context.Context, o *options, obs *observer, registry *prometheus.Registry) (ended <-chan struct{}, err error) {
	log := klog.Background()
	var run func(context.Context)
	if o.gossipKeyFile == "" {
		log.Info("No --gossip-key-file: nothing is heard from the agents, so RouteTime scores all nodes alike")
	} else if run, err = obs.prepare(o, registry, log); err != nil {
		return nil, fmt.Errorf("prepare to observe the agents' gossip: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		metrics := make(chan struct{})
		go func() {
			defer close(metrics)
			serveMetrics(ctx, o.metricsAddress, registry, log)
		}()
		if run != nil {
			run(ctx)
		}
		<-metrics
	}()
	return done, nil
}
