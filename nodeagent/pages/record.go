package pages

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

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
func (a ByRecord) Admit(ctx context.Context, namespace, name string) (migrate.Move, error) {
	pm, err := a.Records.Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return migrate.Move{}, fmt.Errorf("%w: %w", ErrOver, err)
	}
	if err != nil {
		return migrate.Move{}, err
	}
	switch r := migrate.RecordOf(pm); {
	case !r.Source.Offered && !r.Target.Waiting:
		return migrate.Move{}, fmt.Errorf("%w: no create waits for its copy", ErrRefused)
	case pm.Status.Decision == v1alpha1.Abort, r.Returned, r.Lost, r.Target.Failed:
		return migrate.Move{}, fmt.Errorf("%w: no copy may be made any more", ErrOver)
	case r.Target.Loaded:
		return migrate.Move{}, fmt.Errorf("%w: the copy has all of its memory", ErrOver)
	}
	return migrate.MoveOf(pm), nil
}
