package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/component-base/term"
	"k8s.io/component-base/version/verflag"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/plugin"
)

// command is kube-scheduler's own (app.NewSchedulerCommand) with flags of Drover's. That one
// makes and runs the scheduler in one step; here RouteTime is put between, to hear what the
// other plugins say.
func command() *cobra.Command {
	theirs, ours := scheduleroptions.NewOptions(), newOptions()
	cmd := &cobra.Command{
		Use:               "drover-scheduler",
		Long:              "kube-scheduler with the plugin RouteTime, which places pods by idle CPU, idle memory and measured route time.",
		PersistentPreRunE: func(*cobra.Command, []string) error { return theirs.ComponentGlobalsRegistry.Set() },
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd, theirs, ours) },
	}
	sets := theirs.Flags
	verflag.AddFlags(sets.FlagSet("global"))
	globalflag.AddGlobalFlags(sets.FlagSet("global"), cmd.Name(), logs.SkipLoggingConfigurationFlags())
	ours.addTo(sets.FlagSet("Drover"))
	for _, set := range sets.FlagSets {
		cmd.Flags().AddFlagSet(set)
	}
	width, _, _ := term.TerminalSize(cmd.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(cmd, *sets, width)
	_ = cmd.MarkFlagFilename("config", "yaml", "yml", "json") // for completion
	return cmd
}

// run runs the scheduler, and what is beside it, until it is told to end. A second signal
// ends the process at once.
func run(cmd *cobra.Command, theirs *scheduleroptions.Options, ours *options) error {
	verflag.PrintAndExitIfRequested()
	gate := theirs.ComponentGlobalsRegistry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(theirs.Logs, gate); err != nil {
		return err
	}
	cliflag.PrintFlags(cmd.Flags())
	if err := ours.validate(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	registry, obs := prometheus.NewRegistry(), &observer{}
	decisions := decision.NewLog(ours.decisions, ours.decisionBytes())
	ended, err := beside(ctx, ours, obs, decisions, registry)
	if err != nil {
		return err
	}
	err = schedule(ctx, theirs, plugins(ours, obs, decisions, registry))
	stop()
	<-ended
	return err
}

// schedule makes the scheduler and runs it until ctx ends.
func schedule(ctx context.Context, o *scheduleroptions.Options, plugins []app.Option) error {
	config, scheduler, err := app.Setup(ctx, o, plugins...)
	if err != nil {
		return err
	}
	for name, profile := range scheduler.Profiles {
		scheduler.Profiles[name] = plugin.Listen(profile, scheduler.Extenders...)
	}
	gate := o.ComponentGlobalsRegistry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	if gate, ok := gate.(featuregate.MutableFeatureGate); ok {
		gate.AddMetrics()
	}
	o.ComponentGlobalsRegistry.AddMetrics()
	return app.Run(ctx, config, scheduler)
}
