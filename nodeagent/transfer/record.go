package transfer

import (
	"context"
	"fmt"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Records reads PodMigrations from the API server itself; migrate.Kube fits.
type Records interface {
	Get(ctx context.Context, namespace, name string) (*v1alpha1.PodMigration, error)
}

// ByRecord admits what the record of the move allows.
type ByRecord struct{ Records Records }

var _ Admission = ByRecord{}

// Admit implements Admission.
func (a ByRecord) Admit(ctx context.Context, _ string, begin *agentv1.Begin) (migrate.Move, error) {
	pm, err := a.Records.Get(ctx, begin.GetNamespace(), begin.GetMigration())
	if err != nil {
		return migrate.Move{}, err
	}
	switch {
	case pm.Status.Decision != v1alpha1.Undecided:
		return migrate.Move{}, fmt.Errorf("%w: it is decided already: %s", ErrRefused, pm.Status.Decision)
	case pm.DeletionTimestamp != nil:
		return migrate.Move{}, fmt.Errorf("%w: its PodMigration is being deleted", ErrRefused)
	case !pm.Status.Target.Waiting:
		// That is this node's own word, and no source dumps before it.
		return migrate.Move{}, fmt.Errorf("%w: no create waits for its images", ErrRefused)
	}
	return migrate.MoveOf(pm), nil
}
