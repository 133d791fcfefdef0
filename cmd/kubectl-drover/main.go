// Command kubectl-drover is the hand tool: on the PATH it answers to "kubectl drover".
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

func main() {
	klog.SetLogger(logr.Discard()) // libraries' complaints come back as errors
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// errUsage marks errors of the command line itself: exit code 2, all others 1.
var errUsage = errors.New("see --help")

// tool is what every verb works with.
type tool struct {
	flags  *genericclioptions.ConfigFlags
	system string // Drover's own namespace
	genericclioptions.IOStreams
}

func root() *cobra.Command {
	t := &tool{
		flags:     genericclioptions.NewConfigFlags(true),
		IOStreams: genericclioptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
	}
	c := &cobra.Command{
		Use:           "kubectl-drover",
		Short:         "See where pods are best placed, why, and move them while they run",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q (%w)", args[0], errUsage)
			}
			return nil
		},
		RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl drover"},
	}
	t.flags.AddFlags(c.PersistentFlags())
	c.PersistentFlags().StringVar(&t.system, "drover-namespace", "drover-system", "namespace that Drover is installed in")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w (%w)", err, errUsage) })
	c.AddCommand(t.statusCommand(), t.explainCommand(), t.contentionCommand(), t.routesCommand(), t.trafficCommand(), t.checkCommand(), t.migrateCommand(), t.whereCommand(), t.resolveCommand(), t.rotateKeyCommand())
	return c
}

// onePod checks that a verb was given exactly one pod.
func onePod(c *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return fmt.Errorf("%s takes the name of one pod, got %d arguments (%w)", c.Name(), len(args), errUsage)
	}
	return nil
}

// oneNode checks that a verb was given exactly one node.
func oneNode(c *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return fmt.Errorf("%s takes the name of one node, got %d arguments (%w)", c.Name(), len(args), errUsage)
	}
	return nil
}

func (t *tool) config() (*rest.Config, error) {
	cfg, err := t.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 50, 100
	return cfg, nil
}

// client gives a client and the namespace that the user means.
func (t *tool) client() (client.WithWatch, string, error) {
	cfg, err := t.config()
	if err != nil {
		return nil, "", err
	}
	ns, _, err := t.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig: namespace: %w", err)
	}
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		return nil, "", err
	}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: s})
	if err != nil {
		return nil, "", fmt.Errorf("API server %s: %w", cfg.Host, err)
	}
	return c, ns, nil
}

func getPod(ctx context.Context, c client.Client, ns, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := c.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, pod)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no pod %q in namespace %q", name, ns)
	}
	if err != nil {
		return nil, fmt.Errorf("read pod %s/%s: %w", ns, name, err)
	}
	return pod, nil
}
