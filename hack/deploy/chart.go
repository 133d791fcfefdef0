package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// Namespace is where Drover is installed.
const Namespace = "drover-system"

const release = "drover"

// Install installs the chart of the checkout at root into the cluster that kubeconfig
// names, or upgrades it if it is there, and waits until every program is ready.
// values override the chart's.
func Install(ctx context.Context, root, kubeconfig string, values map[string]any) error {
	cfg, err := configuration(kubeconfig)
	if err != nil {
		return err
	}
	chart, err := loader.Load(filepath.Join(root, "manifests", "drover"))
	if err != nil {
		return fmt.Errorf("load chart: %w", err)
	}
	_, err = action.NewStatus(cfg).Run(release)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound):
		i := action.NewInstall(cfg)
		i.ReleaseName, i.Namespace, i.CreateNamespace = release, Namespace, true
		i.Wait, i.Timeout = true, 3*time.Minute
		_, err = i.RunWithContext(ctx, chart, values)
	case err == nil:
		u := action.NewUpgrade(cfg)
		u.Namespace, u.Wait, u.Timeout = Namespace, true, 3*time.Minute
		_, err = u.RunWithContext(ctx, release, chart, values)
	}
	if err != nil {
		return fmt.Errorf("install chart %s into %s: %w", chart.Name(), Namespace, err)
	}
	return nil
}

func configuration(kubeconfig string) (*action.Configuration, error) {
	if _, err := os.Stat(kubeconfig); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	ns := Namespace
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig, flags.Namespace = &kubeconfig, &ns
	cfg := new(action.Configuration)
	if err := cfg.Init(flags, Namespace, "secret", func(string, ...any) {}); err != nil {
		return nil, fmt.Errorf("helm with %s: %w", kubeconfig, err)
	}
	return cfg, nil
}
