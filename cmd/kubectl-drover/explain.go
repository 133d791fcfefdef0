package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/arrivals"
	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/fit"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peers"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/plugin/args"
)

func (t *tool) explainCommand() *cobra.Command {
	var now bool
	var output string
	c := &cobra.Command{
		Use:   "explain POD",
		Short: "Why a pod was placed where it is, or where it would be placed: every node's score, with its parts",
		Long: `Every node's score for a pod: A = (alpha*C + beta*M) / (tau*T^exponent).

C is the CPU and M the memory that is really idle there, T the route time from the pod's
peers, those that its annotation drover.dev/peers names, or else those that pods of its workload
were seen to talk to; of a pod without peers the route time from the node
it is on, and of a pod on no node the mean to all others. The line "peers" says which it is. PATH says which way T is
of: "pod", between pods, or "node", between the nodes; nothing where it is of both, or of a node
to itself. AGE is how long before the node was last heard.

Where the scheduler still has what it decided about the pod, the figures are those of then, of the
nodes that it scored, with the points that all plugins gave the chosen node and those that came next;
also of a pod that is gone. It keeps the newest decisions, in memory. Else, and with --now, they are those of now: what RouteTime would
say if the pod were to be placed. The first line says which of the two it is.`,
		Example: "  kubectl drover explain web\n  kubectl drover explain web --now",
		Args:    onePod,
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := validOutput(output); err != nil {
				return err
			}
			c, ns, err := t.client()
			if err != nil {
				return err
			}
			e := explanation{tool: t, output: output, now: now, decided: t.decided}
			return e.explain(cmd.Context(), c, ns, names[0])
		},
	}
	c.Flags().BoolVar(&now, "now", false, "how it would be placed now, even if it is known what was decided")
	outputFlag(c, &output)
	return c
}

// explanation is one call of explain.
type explanation struct {
	*tool
	output string
	now    bool
	// decided asks the schedulers what was decided about pods of that name, the newest first.
	decided func(ctx context.Context, c client.Client, ns, name string) ([]decision.Decision, error)
}

// explain shows what was decided, or what would be.
func (e *explanation) explain(ctx context.Context, c client.Client, ns, name string) error {
	pod, missing := getPod(ctx, c, ns, name)
	why := "as --now asks"
	if !e.now {
		all, err := e.decided(ctx, c, ns, name)
		past := about(all, pod)
		switch {
		case err != nil && past == nil:
			why = fmt.Sprintf("the scheduler cannot be asked what it decided: %v", err)
		case past == nil:
			why = "no decision about it is kept: the scheduler has the newest alone, since its start"
		case len(past.Nodes) > 0 || missing != nil || e.output != "":
			return e.show(past, func() { printPast(e.Out, past, pod, time.Now()) })
		default:
			why = fmt.Sprintf("nothing was scored when it was placed on %s: one node alone was feasible", past.Winner)
		}
	}
	if missing != nil {
		return missing
	}
	return e.hypothetical(ctx, c, pod, why)
}

// about is the newest decision about the pod; of one that is not there any more, about the last
// of its name.
func about(all []decision.Decision, pod *corev1.Pod) *decision.Decision {
	i := slices.IndexFunc(all, func(d decision.Decision) bool { return pod == nil || d.UID == string(pod.UID) })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// show gives a decision to programs, or to people by print.
func (e *explanation) show(d *decision.Decision, print func()) error {
	if e.output != "" {
		return printJSON(e.Out, d)
	}
	print()
	return nil
}

// hypothetical shows how the pod would be placed now.
func (e *explanation) hypothetical(ctx context.Context, c client.Client, pod *corev1.Pod, why string) error {
	answers, err := e.ask(ctx, c)
	if err != nil {
		return err
	}
	s, err := one(answers)
	if err != nil {
		return err
	}
	params, err := e.params(ctx)
	if err != nil {
		fmt.Fprintf(e.ErrOut, "the scheduler's arguments cannot be read, the defaults are shown: %v\n", err)
		params = placement.Defaults()
	}
	at, found, err := viewpoint(ctx, c, pod, s)
	if err != nil {
		return err
	}
	nodes := &corev1.NodeList{}
	if err := c.List(ctx, nodes); err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	d := wouldBe(s, pod, params, at)
	d.PeersBy, d.PeersWhy = string(found.By), found.Why()
	d.Cluster = len(nodes.Items)
	return e.show(d, func() {
		fmt.Fprintf(e.Out, "HYPOTHETICAL: how %s/%s, which is on %s, would be placed now; %s\n", pod.Namespace, pod.Name, orNone(pod.Spec.NodeName), why)
		fmt.Fprintf(e.Out, "route times are %s\n%s%s\n\n", whence(d), peersOf(d), formula(params))
		marks := map[model.NodeID]string{model.NodeID(pod.Spec.NodeName): " (here)"}
		printScores(e.Out, d.Nodes, marks, fit.Barred(pod, nodes.Items))
	})
}

// wouldBe ranks all nodes by one picture, the best first.
func wouldBe(s view.Snapshot, pod *corev1.Pod, params placement.Params, at placement.Viewpoint) *decision.Decision {
	d := &decision.Decision{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Profile: pod.Spec.SchedulerName,
		Ranked: s.At, Params: params, Peers: at.Peers, Source: at.Source, Nodes: []decision.Node{},
	}
	survey := placement.NewSurvey(s, params, s.At)
	at.Needs = arrivals.Expected(fit.Requests(pod), survey.PodUse())
	for _, score := range placement.Rank(params, survey.Candidates(at, s.IDs()...)) {
		age, heard := s.Nodes[score.Node].Age(s.At)
		if !heard {
			age = decision.NotHeard
		}
		d.Nodes = append(d.Nodes, decision.Node{Score: score, Age: age})
	}
	return d
}

// viewpoint is from where T is seen, and by whom.
func viewpoint(ctx context.Context, c client.Client, pod *corev1.Pod, s view.Snapshot) (placement.Viewpoint, peers.Found, error) {
	found, err := peers.Find(pod, func(sel labels.Selector) ([]*corev1.Pod, error) {
		found := &corev1.PodList{}
		err := c.List(ctx, found, client.InNamespace(pod.Namespace), client.MatchingLabelsSelector{Selector: sel})
		pods := make([]*corev1.Pod, len(found.Items))
		for i := range found.Items {
			pods[i] = &found.Items[i]
		}
		return pods, err
	}, s.Indexed())
	return placement.Viewpoint{Peers: found.Nodes, Source: model.NodeID(pod.Spec.NodeName)}, found, err
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
