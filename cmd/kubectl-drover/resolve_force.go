package main

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// force takes the decision: one compare-and-swap onto the record as it was shown.
func (t *tool) force(ctx context.Context, c client.Client, m *v1alpha1.PodMigration, ends []end, w word) error {
	if w.onTrust() {
		if err := surelyOff(ctx, c, m, ends, w.off); err != nil {
			return err
		}
	}
	user, err := whoAmI(ctx, c)
	if err != nil {
		return err
	}
	if err := decide(m, w, user, time.Now()); err != nil {
		return err
	}
	err = c.Status().Update(ctx, m)
	switch {
	case apierrors.IsConflict(err):
		return fmt.Errorf("%s/%s has changed meanwhile, nothing was decided: look at it again: %w", m.Namespace, m.Name, err)
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return fmt.Errorf("decide %s/%s: refused, nothing was decided: %w", m.Namespace, m.Name, err)
	case err != nil:
		return fmt.Errorf("decide %s/%s: whether it was decided is not known, look at it again: %w", m.Namespace, m.Name, err)
	}
	fmt.Fprintf(t.Out, "decided: %s\n", inWords(m))
	return nil
}

// decide changes the record as the user's word has it, by the rules of the machines.
func decide(m *v1alpha1.PodMigration, w word, user string, now time.Time) error {
	verb := handoff.Abort
	switch {
	case w.back:
		verb = handoff.Return
	case w.forget:
		verb = handoff.Lose
	}
	if err := (migrate.Word{Verb: verb, User: user, Off: w.off}).Write(m, now); err != nil {
		return fmt.Errorf("the move does not allow it (%s): %w", inWords(m), err)
	}
	return nil
}

// surelyOff holds the user's word that the target is powered off against what can be seen.
func surelyOff(ctx context.Context, c client.Client, m *v1alpha1.PodMigration, ends []end, off string) error {
	if to := m.Status.Target.Node; off != to {
		return fmt.Errorf("--i-am-sure-node-is-off %s: the target of %s/%s is node %q: nothing was decided (%w)", off, m.Namespace, m.Name, to, errUsage)
	}
	for _, e := range ends {
		if e.role == migrate.RoleTarget && e.heard() {
			return fmt.Errorf("node %s is not off: its agent answers; nothing was decided", off)
		}
	}
	node := &corev1.Node{}
	err := c.Get(ctx, client.ObjectKey{Name: off}, node)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node %s, to see whether it is off: %w", off, err)
	}
	for _, cond := range node.Status.Conditions {
		if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
			return fmt.Errorf("node %s is not off: its kubelet reported that it is ready at %s; nothing was decided", off, cond.LastHeartbeatTime.Format(time.RFC3339))
		}
	}
	return nil
}

// whoAmI is the user's name as the API server knows it.
func whoAmI(ctx context.Context, c client.Client) (string, error) {
	r := &authenticationv1.SelfSubjectReview{}
	if err := c.Create(ctx, r); err != nil {
		return "", fmt.Errorf("ask the API server for your name: %w", err)
	}
	return r.Status.UserInfo.Username, nil
}
