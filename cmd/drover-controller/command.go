package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/controller"
	"github.com/drover-project/drover/internal/identity/signer"
)

// options is what the command line says.
type options struct {
	controller     controller.Config
	agentSelector  string
	leaderElect    bool
	caCert, caKey  string
	agentAccount   string
	metricsAddress string
	healthAddress  string
	verbose        bool
}

func command() *cobra.Command {
	o := &options{}
	c := &cobra.Command{
		Use:           "drover-controller",
		Short:         "Makes, hands over and clears away the replacements of moving pods; signs the agents' certificates",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(c *cobra.Command, _ []string) error { return run(c.Context(), o) },
	}
	o.flags(c)
	return c
}

func (o *options) flags(c *cobra.Command) {
	f, d := c.Flags(), controller.Config{}.WithDefaults()
	f.StringVar(&o.controller.Namespace, "namespace", "drover-system", "namespace that Drover runs in")
	f.BoolVar(&o.leaderElect, "leader-elect", false, "let one of several replicas work at a time (lease drover-controller)")
	f.StringVar(&o.caCert, "ca-cert-file", "", "PEM certificate of Drover's CA; without it no certificates are signed")
	f.StringVar(&o.caKey, "ca-key-file", "", "PEM key of Drover's CA")
	f.StringVar(&o.agentAccount, "agent-service-account", signer.AgentServiceAccount, "service account of the agents; their requests are signed")
	f.StringVar(&o.agentSelector, "agent-selector", controller.DefaultAgentSelector, "labels of the agents' pods")
	f.StringVar(&o.controller.PauseImage, "pause-image", "", "image by digest (NAME@sha256:…) that does nothing and holds the old address of a pod that has moved with its connections; without it connections are closed")
	f.BoolVar(&o.controller.CarryEarlierAddresses, "carry-earlier-addresses", false, "let a pod that moves again take along the addresses that it still has by earlier moves; without it such a move closes connections")
	f.StringVar(&o.metricsAddress, "metrics-address", ":7949", "address of /metrics; 0 for none")
	f.StringVar(&o.healthAddress, "health-address", ":7951", "address of /healthz and /readyz; 0 for none")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every step")
	for _, t := range []struct {
		to    *time.Duration
		value time.Duration
		name  string
		usage string
	}{
		{&o.controller.UnschedulableAfter, d.UnschedulableAfter, "unschedulable-after", "abort a move whose replacement was called unschedulable and is this old"},
		{&o.controller.BindDeadline, d.BindDeadline, "bind-deadline", "abort a move whose replacement has no node at this age"},
		{&o.controller.BudgetDeadline, d.BudgetDeadline, "budget-deadline", "abort a move that has waited this long for its pod's PodDisruptionBudget"},
		{&o.controller.PrepareDeadline, d.PrepareDeadline, "prepare-deadline", "abort a move that is undecided this long after it was accepted"},
		{&o.controller.ReadyDeadline, d.ReadyDeadline, "ready-deadline", "hand an unready replacement over this long after the commit, if the source is not ready either; a source that is kept for its address until then is ended"},
		{&o.controller.EndDeadline, d.EndDeadline, "end-deadline", "delete the source pod this long after the commit even if its agent has not ended it"},
		{&o.controller.SettleDeadline, d.SettleDeadline, "settle-deadline", "do not wait longer for the agents after an abort before which no create waited"},
		{&o.controller.KeepFor, d.KeepFor, "keep-finished-for", "delete a finished PodMigration after this time; negative: never"},
	} {
		f.DurationVar(t.to, t.name, t.value, t.usage)
	}
}

// run wires everything together and works until ctx ends.
func run(ctx context.Context, o *options) error {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	selector, err := labels.Parse(o.agentSelector)
	if err != nil {
		return fmt.Errorf("flag --agent-selector=%q: %w", o.agentSelector, err)
	}
	o.controller.AgentSelector = selector
	if err := o.controller.Validate(); err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	authority, err := o.authority()
	if err != nil {
		return err
	}
	mgr, err := o.manager()
	if err != nil {
		return err
	}
	if err := controller.Setup(mgr, o.controller); err != nil {
		return err
	}
	if err := o.sign(mgr, authority); err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

func (o *options) manager() (ctrl.Manager, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register types: %w", err)
		}
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress:        o.healthAddress,
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              controller.Name,
		LeaderElectionNamespace:       o.controller.Namespace,
		LeaderElectionReleaseOnCancel: true,
		Cache:                         cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	for name, add := range map[string]func(string, healthz.Checker) error{
		"healthz": mgr.AddHealthzCheck, "readyz": mgr.AddReadyzCheck,
	} {
		if err := add(name, healthz.Ping); err != nil {
			return nil, fmt.Errorf("add %s: %w", name, err)
		}
	}
	return mgr, nil
}
