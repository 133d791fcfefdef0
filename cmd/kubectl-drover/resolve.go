package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/nodeagent/migrate"
)

func (t *tool) resolveCommand() *cobra.Command {
	var w word
	c := &cobra.Command{
		Use:   "resolve [PODMIGRATION]",
		Short: "What is held, what both ends look like, and what can be forced",
		Long: `What a move holds, what both ends look like, and what a forced decision would do.

Without a name: the moves that have not ended. With one: the record, what the agent on each
end finds on its node, and what each forced decision would do and risk. With a flag: that
decision, by the same compare-and-swap by which the agents decide; it is written into the
record with your name. It needs the verb "resolve" on the PodMigration.

  --abort    An undecided move is given up: the pod goes on where it was. Always safe: who
             decides first wins, and nobody can commit afterwards.
  --return   A committed move whose copy was not about to run yet is taken back: the pod goes
             on where it was, and the target may not let its copy run any more.
  --forget   A committed move whose copy was about to run is given up. It may have run, so
             the pod's memory is lost: both ends are ended, and its owner starts a new pod.

The last two are for a target that is dead and will not tell. Only you can know that its
machine is powered off: if it runs, and is merely not heard, its copy may run beside the pod
that goes on or starts anew: two copies, each with connections and writes of its own. Hence
--i-am-sure-node-is-off. There is nothing to force once the copy is known to run.`,
		Example: "  kubectl drover resolve counter-x7k2p\n  kubectl drover resolve counter-x7k2p --return --i-am-sure-node-is-off n2",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("resolve takes the name of one PodMigration, got %d arguments (%w)", len(args), errUsage)
			}
			return w.validate(len(args) == 1)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, ns, err := t.client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return t.listUnfinished(cmd.Context(), c, ns)
			}
			return t.resolve(cmd.Context(), c, client.ObjectKey{Namespace: ns, Name: args[0]}, w)
		},
	}
	c.Flags().BoolVar(&w.abort, "abort", false, "give up an undecided move; always safe")
	c.Flags().BoolVar(&w.back, "return", false, "take back a committed move whose target is powered off")
	c.Flags().BoolVar(&w.forget, "forget", false, "give up a committed move whose copy may have run on a target that is powered off: its memory is lost")
	c.Flags().StringVar(&w.off, "i-am-sure-node-is-off", "", "with --return and --forget: the target's name, by which you say that its machine is powered off")
	return c
}

// word is what the user has decided.
type word struct {
	abort, back, forget bool
	off                 string
}

func (w word) forces() bool { return w.abort || w.back || w.forget }

// onTrust tells that the decision rests on the user's word that the target is off.
func (w word) onTrust() bool { return w.back || w.forget }

// validate says what is wrong with the flags together.
func (w word) validate(named bool) error {
	switch {
	case w.abort && w.back || w.abort && w.forget || w.back && w.forget:
		return fmt.Errorf("--abort, --return and --forget exclude each other (%w)", errUsage)
	case w.forces() && !named:
		return fmt.Errorf("name the PodMigration to decide about (%w)", errUsage)
	case w.onTrust() && w.off == "":
		return fmt.Errorf("this can make two copies if the target still runs: power its machine off, then say so with --i-am-sure-node-is-off NODE (%w)", errUsage)
	case !w.onTrust() && w.off != "":
		return fmt.Errorf("--i-am-sure-node-is-off is a word for --return and --forget (%w)", errUsage)
	}
	return nil
}

// resolve shows the move, or decides.
func (t *tool) resolve(ctx context.Context, c client.Client, key client.ObjectKey, w word) error {
	m := &v1alpha1.PodMigration{}
	err := c.Get(ctx, key, m)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no PodMigration %q in namespace %q", key.Name, key.Namespace)
	}
	if err != nil {
		return fmt.Errorf("read PodMigration %s: %w", key, err)
	}
	if !w.forces() {
		printMove(t.Out, m, t.ends(ctx, c, m), time.Now())
		return nil
	}
	if err := decide(m.DeepCopy(), w, "you", time.Now()); err != nil {
		return err // before anybody is asked
	}
	var ends []end
	if w.onTrust() {
		ends = t.ends(ctx, c, m)
	}
	return t.force(ctx, c, m, ends, w)
}

// end is what one end's agent says of it.
type end struct {
	node  string
	role  migrate.Role
	found *migrate.Found // nil: it said nothing of this end
	err   error
}

// heard tells that the agent of the end's node answers, whatever it says.
func (e end) heard() bool { return e.err == nil || errors.As(e.err, &agentclient.Refusal{}) }

// patience is how long an end is waited for: one that is in trouble may not answer at all.
const patience = 5 * time.Second

// ends asks the agents of both ends, at once.
func (t *tool) ends(ctx context.Context, c client.Client, m *v1alpha1.PodMigration) []end {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	all := []end{{node: m.Status.Source.Node, role: migrate.RoleSource}, {node: m.Status.Target.Node, role: migrate.RoleTarget}}
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i].ask(ctx, t, c, m) })
	}
	wg.Wait()
	return all
}

// ask asks the end's agent what it finds.
func (e *end) ask(ctx context.Context, t *tool, c client.Client, m *v1alpha1.PodMigration) {
	if e.node == "" {
		e.err = errors.New("no node is chosen yet")
		return
	}
	var found []migrate.Found
	e.err = t.askNode(ctx, c, e.node, fmt.Sprintf("/v1/moves/%s/%s", m.Namespace, m.Name), &found)
	for _, f := range found {
		if f.Role == e.role {
			e.found = &f
		}
	}
}

func (t *tool) listUnfinished(ctx context.Context, c client.Client, ns string) error {
	all := &v1alpha1.PodMigrationList{}
	if err := c.List(ctx, all, client.InNamespace(ns)); err != nil {
		return fmt.Errorf("list PodMigrations in namespace %q: %w", ns, err)
	}
	printUnfinished(t.Out, ns, all.Items, time.Now())
	return nil
}

func printUnfinished(out io.Writer, ns string, all []v1alpha1.PodMigration, now time.Time) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	n := 0
	for i := range all {
		m := &all[i]
		if v1alpha1.Finished(m) {
			continue
		}
		if n++; n == 1 {
			fmt.Fprintln(w, "PODMIGRATION\tPOD\tFROM\tTO\tPHASE\tHELD FOR\tWAITS FOR")
		}
		held, waits := "-", "-"
		if h := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionHeld); h != nil && h.Status == "True" {
			held, waits = now.Sub(h.LastTransitionTime.Time).Round(time.Second).String(), h.Message
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Spec.PodName, orNone(m.Status.Source.Node), orNone(m.Status.Target.Node), m.Status.Phase, held, waits)
	}
	w.Flush()
	if n == 0 {
		fmt.Fprintf(out, "every move in namespace %s has ended\n", ns)
	}
}
