// Command drover-simulate says where profiles of the scheduler would have placed pods.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/peers"
	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
)

func main() {
	klog.SetLogger(logr.Discard()) // what goes wrong comes back as errors
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(genericclioptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}).ExecuteContext(ctx)
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

// none is said instead of a file of measurements.
const none = "none"

// tool is what the command line says.
type tool struct {
	genericclioptions.IOStreams
	flags         *genericclioptions.ConfigFlags
	system        string // Drover's own namespace
	cluster, pods []string
	config        string
	measurements  string
	output        string
	runs          int
	seed          uint64
	failOnPending bool
}

func command(streams genericclioptions.IOStreams) *cobra.Command {
	t := &tool{IOStreams: streams, flags: genericclioptions.NewConfigFlags(true)}
	t.flags.ClusterName, t.flags.CacheDir = nil, nil // --cluster is ours
	c := &cobra.Command{
		Use:   "drover-simulate --pods FILE [--cluster PATH --measurements FILE] [--config FILE]",
		Short: "Where would profiles of the scheduler have placed these pods?",
		Long: `Places a list of pods in a cluster by several profiles of the scheduler, and compares them. Nothing is
placed in any cluster: a cluster is read from files, or, without --cluster, from the API server,
and never written to.

Each profile places all pods for itself, in the order in which they are given, from the same start; a pod sees
those that were placed before it. The code is kube-scheduler's own. It draws lots among nodes of equal
points: here by --seed, so that the same question has the same answer. With --runs N the lots are drawn N
times, and a node is told with how many times it was chosen.

Not simulated: preemption (a pod that would have to preempt is pending), extenders, the order of the
scheduler's queue, volumes that are made only when a pod is bound, and what happens while pods start.

docs/simulate.md has an example and tells what each figure of the summary is.`,
		Example: `  drover-simulate --cluster cluster/ --measurements view.json --pods shop.yaml
  drover-simulate --pods shop.yaml --config profiles.yaml --runs 20`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("there is an argument %q: files are given by flags (%w)", args[0], errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return t.run(cmd.Context()) },
	}
	f := c.Flags()
	t.flags.AddFlags(f)
	f.StringVar(&t.system, "drover-namespace", "drover-system", "namespace that Drover is installed in")
	f.StringArrayVar(&t.cluster, "cluster", nil, "file or directory of Nodes, Pods and what else the scheduler reads, in YAML or JSON; may be given again. Without it the cluster is read from the API server")
	f.StringArrayVar(&t.pods, "pods", nil, "file or directory of the Pods, Deployments, ReplicaSets, StatefulSets and Jobs to place, in their order; may be given again")
	f.StringVar(&t.measurements, "measurements", "", "file of loads and route times: \"kubectl drover status -o json\" gives it; \"none\": do without, RouteTime then scores all nodes alike. Without it an agent of the cluster is asked")
	f.StringVar(&t.config, "config", "", "file of a KubeSchedulerConfiguration with the profiles to compare. Without it: default-scheduler, and Drover's as it is configured in the cluster, or by the chart's default values")
	f.IntVar(&t.runs, "runs", 1, "how many times each profile places the pods, each time with other lots")
	f.Uint64Var(&t.seed, "seed", 1, "by what the lots are drawn")
	f.StringVarP(&t.output, "output", "o", "", "wide: with each pod's route time, and all nodes; json: for programs")
	f.BoolVar(&t.failOnPending, "fail-on-pending", false, "exit with 1 if any profile leaves a pod pending")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w (%w)", err, errUsage) })
	return c
}

// validate checks what can be checked without reading anything.
func (t *tool) validate() error {
	switch {
	case len(t.pods) == 0:
		return fmt.Errorf("--pods is missing: it names the pods to place (%w)", errUsage)
	case t.output != "" && t.output != "wide" && t.output != "json":
		return fmt.Errorf("output %q: want wide, json or nothing (%w)", t.output, errUsage)
	case t.runs < 1:
		return fmt.Errorf("--runs is %d, want 1 or more (%w)", t.runs, errUsage)
	case len(t.cluster) > 0 && t.measurements == "":
		return fmt.Errorf("--cluster needs --measurements: a file from \"kubectl drover status -o json\", or %q to do without (%w)", none, errUsage)
	}
	return nil
}

func (t *tool) run(ctx context.Context) error {
	if err := t.validate(); err != nil {
		return err
	}
	q, err := t.question(ctx)
	if err != nil {
		return err
	}
	a, err := simulate.Ask(ctx, *q)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := show(&out, a, t.output); err != nil {
		return err
	}
	if _, err := t.Out.Write(out.Bytes()); err != nil {
		return err
	}
	return t.pending(a)
}

// pending is the error that --fail-on-pending asks for.
func (t *tool) pending(a *simulate.Answer) error {
	for _, p := range a.Profiles {
		if left := float64(p.Summary.Pods) - p.Summary.Placed; t.failOnPending && left > 0 {
			return fmt.Errorf("%s leaves %s of %d pods pending (--fail-on-pending)", p.Name, number(left), p.Summary.Pods)
		}
	}
	return nil
}

// question reads all there is to read.
func (t *tool) question(ctx context.Context) (*simulate.Question, error) {
	objects, source, err := t.objects(ctx)
	if err != nil {
		return nil, err
	}
	cluster, err := simulate.NewCluster(objects)
	if err != nil {
		return nil, err
	}
	if cluster.Waiting > 0 {
		t.note("%d pods of the cluster are on no node: they are not placed, give them with --pods to have them placed", cluster.Waiting)
	}
	namespace, _, err := t.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: namespace: %w", err)
	}
	pods, err := t.workload(cluster, namespace)
	if err != nil {
		return nil, err
	}
	measured, err := t.measured(ctx, source)
	if err != nil {
		return nil, err
	}
	if t.measurements == none {
		t.note("without measurements RouteTime scores all nodes alike")
	} else if missing, err := cluster.Match(measured); err != nil {
		return nil, err
	} else if missing > 0 {
		t.note("%d of %d nodes were not measured", missing, len(cluster.Nodes))
	}
	more := plugins(measured)
	conf, err := t.profiles(ctx, source)
	if err != nil {
		return nil, err
	}
	return &simulate.Question{
		Cluster: cluster, Pods: pods, Measured: measured, Config: conf, More: more,
		Runs: t.runs, Seed: t.seed, Progress: t.progress(),
	}, nil
}

// workload reads the pods to place.
func (t *tool) workload(cluster *simulate.Cluster, namespace string) ([]*corev1.Pod, error) {
	var manifests []simulate.Object
	for _, path := range t.pods {
		some, err := simulate.Read(path, simulate.Strict)
		if err != nil {
			return nil, err
		}
		manifests = append(manifests, some...)
	}
	pods, err := cluster.Workload(manifests, namespace)
	if err != nil {
		return nil, err
	}
	told := map[string]bool{}
	for _, pod := range pods {
		raw := pod.Annotations[v1alpha1.AnnotationPeers]
		if _, err := peers.Parse(raw); err != nil && !told[raw] {
			told[raw] = true
			t.note("%s/%s: annotation %s is malformed, so the pod is placed as one without peers: %v", pod.Namespace, pod.Name, v1alpha1.AnnotationPeers, err)
		}
	}
	return pods, nil
}

// objects reads the cluster. source is the API server that it was read from; nil: from files.
func (t *tool) objects(ctx context.Context) (objects []simulate.Object, source *server, err error) {
	if len(t.cluster) == 0 {
		if source, err = t.server(); err != nil {
			return nil, nil, err
		}
		objects, err = source.objects(ctx)
		return objects, source, err
	}
	for _, path := range t.cluster {
		some, err := simulate.Read(path, simulate.Lenient)
		if err != nil {
			return nil, nil, err
		}
		objects = append(objects, some...)
	}
	return objects, nil, nil
}

func (t *tool) measured(ctx context.Context, source *server) (view.Snapshot, error) {
	switch {
	case t.measurements == none:
		return view.Snapshot{At: time.Unix(0, 0)}, nil
	case t.measurements != "":
		return simulate.ReadMeasured(t.measurements)
	}
	return source.measured(ctx)
}

func (t *tool) profiles(ctx context.Context, source *server) (*config.KubeSchedulerConfiguration, error) {
	if t.config != "" {
		raw, err := os.ReadFile(t.config)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.config, err)
		}
		return simulate.Configuration(raw, t.config, plugins(view.Snapshot{}))
	}
	if source != nil {
		raw, from, err := source.configuration(ctx)
		if err == nil {
			return withDefault(raw, from)
		}
		t.note("the scheduler's configuration cannot be read, the chart's defaults are used: %v", err)
	}
	return simulate.Configuration([]byte(defaultConfig), "default", plugins(view.Snapshot{}))
}

// note tells of something that the user may not expect.
func (t *tool) note(format string, args ...any) { fmt.Fprintf(t.ErrOut, "note: "+format+"\n", args...) }

// progress tells every two seconds how far it is.
func (t *tool) progress() func(done, of int) {
	last := time.Now()
	return func(done, of int) {
		if now := time.Now(); now.Sub(last) >= 2*time.Second {
			last = now
			fmt.Fprintf(t.ErrOut, "%d of %d pods, of all profiles and runs\n", done, of)
		}
	}
}
