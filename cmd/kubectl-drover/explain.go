package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fit"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peers"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/plugin/args"
)

func (t *tool) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain POD",
		Short: "Every node's score for a pod, with the parts it is made from",
		Long: `Every node's score for a pod: A = (alpha*C + beta*M) / (tau*T^exponent).

C is the CPU and M the memory that is really idle there, T the route time from the pod's
peers (annotation drover.dev/peers); of a pod without peers the route time from the node
it is on, and of a pod on no node the mean to all others. PATH says which way T is
of: "pod", between pods, or "node", between the nodes; nothing where it is of both, or of a node
to itself. The figures are those of now,
not those of the moment when the pod was placed.`,
		Args: onePod,
		RunE: func(cmd *cobra.Command, names []string) error {
			c, ns, err := t.client()
			if err != nil {
				return err
			}
			return t.explain(cmd.Context(), c, ns, names[0])
		},
	}
}

func (t *tool) explain(ctx context.Context, c client.Client, ns, name string) error {
	pod, err := getPod(ctx, c, ns, name)
	if err != nil {
		return err
	}
	answers, err := t.ask(ctx, c)
	if err != nil {
		return err
	}
	s, err := one(answers)
	if err != nil {
		return err
	}
	params, err := t.params(ctx)
	if err != nil {
		fmt.Fprintf(t.ErrOut, "the scheduler's arguments cannot be read, the defaults are shown: %v\n", err)
		params = placement.Defaults()
	}
	at, from, err := viewpoint(ctx, c, pod)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "%s/%s is on %s; route times are %s\n", ns, name, orNone(pod.Spec.NodeName), from)
	fmt.Fprintf(t.Out, "A = (%v*C + %v*M) / (%v*T^%v), T not below %v\n\n", params.Alpha, params.Beta, params.Tau, params.Exponent, params.Floor)
	nodes := &corev1.NodeList{}
	if err := c.List(ctx, nodes); err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	survey := placement.NewSurvey(s, params, s.At)
	scores := placement.Rank(params, survey.Candidates(at, s.IDs()...))
	printScores(t.Out, scores, model.NodeID(pod.Spec.NodeName), fit.Barred(pod, nodes.Items))
	return nil
}

// viewpoint is from where T is seen, and that in words.
func viewpoint(ctx context.Context, c client.Client, pod *corev1.Pod) (placement.Viewpoint, string, error) {
	v := placement.Viewpoint{Source: model.NodeID(pod.Spec.NodeName)}
	raw := pod.Annotations[v1alpha1.AnnotationPeers]
	terms, err := peers.Parse(raw)
	if err != nil {
		return v, "", fmt.Errorf("annotation %s of %s/%s: %w", v1alpha1.AnnotationPeers, pod.Namespace, pod.Name, err)
	}
	v.Peers, err = peers.Nodes(pod, terms, func(sel labels.Selector) ([]*corev1.Pod, error) {
		found := &corev1.PodList{}
		err := c.List(ctx, found, client.InNamespace(pod.Namespace), client.MatchingLabelsSelector{Selector: sel})
		pods := make([]*corev1.Pod, len(found.Items))
		for i := range found.Items {
			pods[i] = &found.Items[i]
		}
		return pods, err
	})
	switch {
	case err != nil:
		return v, "", err
	case len(v.Peers) > 0:
		return v, "those to its peers (" + raw + ")", nil
	case v.Source != "":
		return v, "those from " + pod.Spec.NodeName, nil
	}
	return v, "the means to all others", nil
}

// params reads the arguments that the cluster's scheduler runs with.
func (t *tool) params(ctx context.Context) (placement.Params, error) {
	cfg, err := t.config()
	if err != nil {
		return placement.Params{}, err
	}
	set, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return placement.Params{}, err
	}
	cm, err := set.CoreV1().ConfigMaps(t.system).Get(ctx, "drover-scheduler", metav1.GetOptions{})
	if err != nil {
		return placement.Params{}, err
	}
	return args.FromConfig([]byte(cm.Data["config.yaml"]), v1alpha1.SchedulerName)
}

// printScores prints a row a node; barred are those that the scheduler passes over.
func printScores(out io.Writer, scores []placement.Score, on model.NodeID, barred map[model.NodeID]string) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tSCORE\tA\tC (cores)\tM (GiB)\tT (ms)\tPATH\tWHY")
	for _, s := range scores {
		name := string(s.Node)
		if s.Node == on {
			name += " (here)"
		}
		var why []string
		if b := barred[s.Node]; b != "" {
			why = append(why, "not a candidate: "+b)
		}
		for _, r := range s.Reasons {
			why = append(why, r.String())
		}
		a, t, path := "-", "-", "-"
		if s.Known {
			a = fmt.Sprintf("%.2f", s.A)
		}
		if s.Route.Known {
			t = fmt.Sprintf("%.3f", float64(s.T)/float64(time.Millisecond))
			path = cmp.Or(string(s.Route.Path), path)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%.2f\t%.2f\t%s\t%s\t%s\n", name, s.Points, a, s.Idle.CPU, s.Idle.Memory.GiB(), t, path, strings.Join(why, "; "))
	}
	w.Flush()
}
