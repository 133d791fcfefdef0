package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/remains"
	"github.com/drover-project/drover/test/witness"
)

const (
	app = "counter"
	// heapMiB makes dump, transfer and restore last long enough to be hit.
	heapMiB = 64
	// bound is after how long a case counts as stuck. The longest wait in the product is that
	// of a create, 100 s; an abort and kubelet's next try may follow it.
	bound = 3 * time.Minute
	// cleanBound is after how long, once all has ended, what is left behind is left for good.
	// A kubelet that lost the API server may hear of a pod's end two minutes late. client-go's
	// longest pause between two tries is 30 s, and up to as much again by chance; it forgets
	// that it failed after two good minutes alone, and here one outage follows another; and a
	// watch that ends in its first second is a failure, too.
	cleanBound = 3 * time.Minute
)

// scene is one move that a fault strikes.
type scene struct {
	*cluster.Cluster
	lab            *lab.Lab
	pod            *corev1.Pod
	was            witness.Tick
	source, target place
	move           *v1alpha1.PodMigration
	held           [][2]string // links that were slowed down to hit a step
	before         []string    // remains of the case before, which may still be cleared away
}

// place is a node of the scene.
type place struct {
	name string
	root string // of its file system, until it is restarted
	pods string // control group
}

// set starts a pod that ticks, and knows where it is and will go.
func set(ctx context.Context, c *cluster.Cluster) (*scene, error) {
	s := &scene{Cluster: c, lab: c.Lab}
	var err error
	if s.before, err = remains.Find(ctx, c.Lab, c.Client); err != nil {
		return nil, err
	}
	d := c.Deployment(cluster.Ticker{Namespace: ns, Name: app, HeapMiB: heapMiB, Movable: true})
	if err := c.Client.Create(ctx, d); err != nil {
		return nil, err
	}
	if s.pod, err = c.OnlyPod(ctx, ns, app); err != nil {
		return nil, err
	}
	if s.was, err = c.Status(ctx, s.pod); err != nil {
		return nil, err
	}
	if err := c.Witness.Await(ctx, s.was.Instance, 10); err != nil {
		return nil, err
	}
	other := map[string]string{"n1": "n2", "n2": "n1"}[s.pod.Spec.NodeName]
	for name, p := range map[string]*place{s.pod.Spec.NodeName: &s.source, other: &s.target} {
		p.name = name
		if p.root, err = c.Lab.Root(name); err != nil {
			return nil, err
		}
		if p.pods, err = c.Lab.PodsGroup(name); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// errMissed: the move was over before the step was seen.
var errMissed = errors.New("the step was missed")

// reach orders the move and returns when it has come to the step.
func (s *scene) reach(ctx context.Context, at step) error {
	w, err := s.Client.Watch(ctx, &v1alpha1.PodMigrationList{}, client.InNamespace(ns))
	if err != nil {
		return fmt.Errorf("watch moves: %w", err)
	}
	defer w.Stop()
	if s.move, err = s.Order(ctx, s.pod, s.target.name); err != nil {
		return err
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("move %s did not come to %s: %w", s.move.Name, at, ctx.Err())
		case e, open := <-w.ResultChan():
			if !open {
				return errors.New("the watch of moves was closed")
			}
			if there, err := s.seen(e, at); there || err != nil {
				return err
			}
		case <-look.C:
			if at.shown(s) {
				return nil
			}
			if err := s.hold(ctx, at); err != nil {
				return err
			}
		}
	}
}

// seen takes in what the record says.
func (s *scene) seen(e watch.Event, at step) (bool, error) {
	m, is := e.Object.(*v1alpha1.PodMigration)
	if !is || m.UID != s.move.UID {
		return false, nil
	}
	if at.recorded(m) {
		return true, nil
	}
	if v1alpha1.Finished(m) || at < committed && m.Status.Decision != v1alpha1.Undecided {
		return false, fmt.Errorf("%w: %s: phase %s: %s: %s", errMissed, at, m.Status.Phase, m.Status.DecisionReason, m.Status.DecisionMessage)
	}
	return false, nil
}

// farAway is the one-way delay of a link that gives time to strike: what is in the record is
// then not known yet to the agent that waits for it.
const farAway = 300 * time.Millisecond

// hold slows down, once the images are there, the link to the agent whose next step would
// come too soon.
func (s *scene) hold(ctx context.Context, at step) error {
	slow := map[step]string{restored: s.target.name, committed: s.target.name, starting: s.target.name, resumed: s.source.name}[at]
	if slow == "" || s.held != nil || !sent.shown(s) {
		return nil
	}
	s.held = [][2]string{{slow, lab.ControlPlane}}
	return s.lab.SetDelay(ctx, slow, lab.ControlPlane, farAway)
}

// quicken undoes hold.
func (s *scene) quicken(ctx context.Context) error {
	var errs []error
	for _, l := range s.held {
		errs = append(errs, s.lab.SetDelay(ctx, l[0], l[1], 0))
	}
	return errors.Join(errs...)
}

// suffer is the fault from its beginning to its end.
func (s *scene) suffer(ctx context.Context, f fault) error {
	err := f.strike(ctx, s)
	if !f.cuts {
		err = errors.Join(err, s.quicken(ctx))
	}
	if f.heal == nil || errors.Is(err, errNothing) {
		return err
	}
	if f.lasts > 0 {
		<-time.After(f.lasts) // the fault's own length; nothing is waited for
	}
	return errors.Join(err, f.heal(ctx, s))
}

// settled returns when the move has ended and one pod is there and answers.
func (s *scene) settled(ctx context.Context) (*v1alpha1.PodMigration, error) {
	end, err := s.Ended(ctx, s.move)
	if err == nil {
		_, _, err = s.answer(ctx)
	}
	return end, err
}

// clean waits until nothing is left behind, and gives what was, by this case and by the one
// before: what a pod's end should have taken along shows only then. What is left for good is
// told once.
func (s *scene) clean(ctx context.Context) (mine, before []string, err error) {
	bounded, cancel := context.WithTimeout(ctx, cleanBound)
	defer cancel()
	var left []string
	err = cluster.Eventually(bounded, "nothing is left behind", func(ctx context.Context) (bool, string) {
		found, err := remains.Find(ctx, s.lab, s.Client)
		if err != nil {
			return false, err.Error()
		}
		left = slices.DeleteFunc(found, func(l string) bool { return slices.Contains(stage.left, l) })
		return len(left) == 0, strings.Join(left, "; ")
	})
	if len(left) > 0 {
		err = nil // it is told by the lists
	}
	stage.left = append(stage.left, left...)
	for _, l := range left {
		if slices.Contains(s.before, l) {
			before = append(before, "left behind: "+l)
		} else {
			mine = append(mine, "left behind: "+l)
		}
	}
	return mine, before, err
}

// clear ends the scene: the pod and the move's record go. What only they keep on the nodes
// must be gone when the next case is clean.
func (s *scene) clear(ctx context.Context) error {
	now := metav1.DeletePropagationForeground
	d := s.Deployment(cluster.Ticker{Namespace: ns, Name: app})
	if err := s.Client.Delete(ctx, d, &client.DeleteOptions{PropagationPolicy: &now}); client.IgnoreNotFound(err) != nil {
		return err
	}
	if err := s.Client.DeleteAllOf(ctx, &v1alpha1.PodMigration{}, client.InNamespace(ns)); err != nil {
		return err
	}
	return cluster.Eventually(ctx, "the pods and the move's record are gone", func(ctx context.Context) (bool, string) {
		var pods corev1.PodList
		var moves v1alpha1.PodMigrationList
		if err := errors.Join(s.Client.List(ctx, &pods, client.InNamespace(ns)), s.Client.List(ctx, &moves, client.InNamespace(ns))); err != nil {
			return false, err.Error()
		}
		return len(pods.Items)+len(moves.Items) == 0, fmt.Sprintf("%d pods, %d moves", len(pods.Items), len(moves.Items))
	})
}
