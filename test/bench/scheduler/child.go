package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	_ "sigs.k8s.io/scheduler-plugins/apis/config/scheme" // registers the arguments of the plugins below
	"sigs.k8s.io/scheduler-plugins/pkg/networkaware/networkoverhead"
	"sigs.k8s.io/scheduler-plugins/pkg/trimaran/targetloadpacking"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/plugin"
)

// profile is one that is compared.
type profile struct {
	name    string
	plugins string // beside the default ones, YAML
	peers   string // of its pods
	rival   bool   // RouteTime is held against it
}

// profiles are all of them; watcher is the address of a load-watcher.
func profiles(watcher string) []profile {
	enabled := func(name, args string) string {
		text := fmt.Sprintf("    plugins: {multiPoint: {enabled: [{name: %s, weight: 10}]}}\n", name)
		if args != "" {
			text += fmt.Sprintf("    pluginConfig: [{name: %s, args: %s}]\n", name, args)
		}
		return text
	}
	return []profile{
		{name: "default"},
		{name: "routetime", plugins: enabled(plugin.Name, "")},
		{name: "routetime+peers", plugins: enabled(plugin.Name, ""), peers: peersOfPods},
		{name: "networkoverhead", plugins: enabled(networkoverhead.Name, fmt.Sprintf("{namespaces: [default], weightsName: UserDefined, networkTopologyName: %s}", group)), rival: true},
		{name: "targetloadpacking", plugins: enabled(targetloadpacking.Name, fmt.Sprintf("{watcherAddress: %q}", watcher)), rival: true},
	}
}

// configuration of a scheduler with one profile.
func (p profile) configuration(kubeconfig string) string {
	return fmt.Sprintf(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %s, qps: 5000, burst: 5000}
profiles:
  - schedulerName: %s
%s`, kubeconfig, schedulerName, p.plugins)
}

// schedule runs a scheduler by a configuration file until ctx ends: kube-scheduler with the plugins that
// are compared, as drover-scheduler has them, and a picture of nodes nodes.
func schedule(ctx context.Context, configuration string, nodes int, events bool) error {
	o := options.NewOptions()
	flags := pflag.NewFlagSet("scheduler", pflag.ContinueOnError)
	for _, set := range o.Flags.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse([]string{"--config", configuration, "--secure-port=0"}); err != nil {
		return err
	}
	if err := o.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	c := plugin.Config{Views: newWorld(nodes), Metrics: plugin.NewMetrics(), Decisions: decision.NewLog(1000, 16*model.MiB), Events: events, Now: time.Now}
	config, scheduler, err := app.Setup(ctx, o,
		app.WithPlugin(plugin.Name, plugin.Factory(c)),
		app.WithPlugin(networkoverhead.Name, networkoverhead.New),
		app.WithPlugin(targetloadpacking.Name, targetloadpacking.New))
	if err != nil {
		return fmt.Errorf("set up the scheduler of %s: %w", configuration, err)
	}
	for name, profile := range scheduler.Profiles {
		scheduler.Profiles[name] = plugin.Listen(profile, scheduler.Extenders...)
	}
	if err := app.Run(ctx, config, scheduler); err != nil && ctx.Err() == nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "the scheduler has ended")
	return nil
}
