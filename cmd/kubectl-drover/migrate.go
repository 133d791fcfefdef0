package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
)

func (t *tool) migrateCommand() *cobra.Command {
	var to string
	var wait, postCopy bool
	c := &cobra.Command{
		Use:   "migrate POD",
		Short: "Move a pod to another node with its memory",
		Long: `Move a pod to another node with its memory, while it runs.

The pod has to have opted in (annotation drover.dev/migrate: "true") and to run under the
RuntimeClass "drover". Without --to the scheduler chooses the node. With --wait the steps
are shown as they happen, with how far its memory is, and the exit code is 0 only if the pod
has moved.

With --post-copy the pod stands still for less long, whatever its memory: it runs on the target before
all of that is there. Until it is, the pod depends on both nodes and on the network between them: if the
source's processes end, what had not come is lost, and the containers that lack it start anew, with
empty memory.`,
		Example: "  kubectl drover migrate counter --to n2 --wait",
		Args:    onePod,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, ns, err := t.client()
			if err != nil {
				return err
			}
			m, err := order(cmd.Context(), c, ns, args[0], v1alpha1.PodMigrationSpec{TargetNode: to, PostCopy: postCopy})
			if err != nil {
				return err
			}
			fmt.Fprintf(t.Out, "podmigration.drover.dev/%s created\n", m.Name)
			if !wait {
				return nil
			}
			return follow(cmd.Context(), c, m, t.Out)
		},
	}
	c.Flags().StringVar(&to, "to", "", "node to move it to (default: the scheduler chooses)")
	c.Flags().BoolVar(&postCopy, "post-copy", false, "let the pod run before all of its memory is there, at its risk (see above)")
	c.Flags().BoolVar(&wait, "wait", false, "show the steps and wait for the end")
	return c
}

// order creates the PodMigration. What can be judged here is judged here, so that a slip
// of the hand leaves nothing behind; the controller judges again.
func order(ctx context.Context, c client.Client, ns, name string, wish v1alpha1.PodMigrationSpec) (*v1alpha1.PodMigration, error) {
	pod, err := getPod(ctx, c, ns, name)
	if err != nil {
		return nil, err
	}
	if to := wish.TargetNode; to != "" {
		err := c.Get(ctx, client.ObjectKey{Name: to}, &corev1.Node{})
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("there is no node %q to move %s/%s to", to, ns, name)
		}
		if err != nil {
			return nil, fmt.Errorf("read node %q: %w", to, err)
		}
	}
	wish.PodName, wish.PodUID, wish.Reason, wish.Message = name, pod.UID, "User", "asked for with kubectl drover migrate"
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: v1alpha1.MoveName(name, rand.String(5))}, Spec: wish}
	if err := c.Create(ctx, m); err != nil {
		return nil, fmt.Errorf("create PodMigration for %s/%s: %w", ns, name, err)
	}
	return m, nil
}

// follow prints the steps of a move as they are recorded, until it has ended.
func follow(ctx context.Context, c client.WithWatch, m *v1alpha1.PodMigration, out io.Writer) error {
	p := printer{out: out, terminal: isTerminal(out)}
	defer p.clear()
	for {
		ended, err := followOnce(ctx, c, m, &p)
		if ended || err != nil {
			return err
		}
		// The watch was closed by the server, or the server is away: again.
		select {
		case <-ctx.Done():
			return fmt.Errorf("stopped waiting for %s: the move itself goes on", m.Name)
		case <-time.After(time.Second):
		}
	}
}

func followOnce(ctx context.Context, c client.WithWatch, m *v1alpha1.PodMigration, p *printer) (bool, error) {
	w, err := c.Watch(ctx, &v1alpha1.PodMigrationList{}, client.InNamespace(m.Namespace),
		client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", m.Name)})
	if err != nil {
		p.clear()
		fmt.Fprintf(p.out, "the API server does not answer, trying again: %v\n", err)
		return false, nil
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		now, ok := e.Object.(*v1alpha1.PodMigration)
		if !ok {
			return false, nil
		}
		p.print(now)
		if v1alpha1.Finished(now) {
			return true, outcome(now)
		}
	}
	return false, nil
}

// outcome is an error unless the pod has moved; the message is the record's own.
func outcome(m *v1alpha1.PodMigration) error {
	if m.Status.Phase == v1alpha1.PhaseCompleted {
		return nil
	}
	message := "no reason was given"
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionComplete); c != nil {
		message = c.Message
	}
	return fmt.Errorf("%s/%s was not moved (%s): %s", m.Namespace, m.Spec.PodName, m.Status.Phase, message)
}

// printer prints each entry of the timeline once, with the time since the start.
type printer struct {
	out     io.Writer
	start   time.Time
	printed int
	done    bool
	// terminal: the line about the transfer is written anew in its place; open: it stands there.
	terminal, open bool
	said           string
}

func (p *printer) print(m *v1alpha1.PodMigration) {
	for ; p.printed < len(m.Status.Timeline); p.printed++ {
		e := m.Status.Timeline[p.printed]
		if p.start.IsZero() {
			p.start = e.At.Time
		}
		p.clear()
		fmt.Fprintf(p.out, "%8.3fs  %-12s %-16s %s\n", e.At.Sub(p.start).Seconds(), e.By, e.Step, e.Message)
	}
	p.progress(m)
	if m.Status.Phase == v1alpha1.PhaseCompleted && !p.done {
		p.done = true
		p.clear()
		frozen := "unknown"
		if m.Status.FrozenTime != nil {
			frozen = m.Status.FrozenTime.Duration.Round(time.Millisecond).String()
		}
		fmt.Fprintf(p.out, "%s runs on %s as %s; frozen for %s, %.1f MiB moved\n",
			m.Spec.PodName, m.Status.Target.Node, m.Status.Target.PodName, frozen, float64(m.Status.Bytes)/(1<<20))
	}
}
