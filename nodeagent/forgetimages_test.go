package nodeagent

import (
	"context"
	"errors"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/drover-project/drover/api/v1alpha1"
)

// pile is a directory of images.
type pile struct{ names, forgotten []string }

func (h *pile) Leftovers() ([]string, error) { return h.names, nil }
func (h *pile) Forget(_ context.Context, name string) error {
	h.forgotten = append(h.forgotten, name)
	return nil
}

func TestImagesOfMovesThatHaveEnded(t *testing.T) {
	record := func(uid string, finished bool) *v1alpha1.PodMigration {
		m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: uid, UID: types.UID(uid)}}
		if finished {
			m.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionComplete, Status: metav1.ConditionTrue}}
		}
		return m
	}
	a, _, _ := testAgent(t, Act, record("a-1", false), record("b-1", true)) // c-1 is gone
	h := &pile{names: []string{"a-1-2", "b-1-2", "b-1-3", "c-1-2", "plain", ".x-1"}}
	if err := a.forgetImages(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if want := []string{"b-1-2", "b-1-3", "c-1-2"}; !slices.Equal(h.forgotten, want) {
		t.Errorf("removed %q, want %q", h.forgotten, want)
	}
	away := errors.New("away")
	a.cluster.direct = interceptor.NewClient(a.cluster.direct.(client.WithWatch), interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return away },
	})
	h.forgotten = nil
	if err := a.forgetImages(t.Context(), h); !errors.Is(err, away) || len(h.forgotten) > 0 {
		t.Errorf("nothing is known of the moves: %v, removed %q", err, h.forgotten)
	}
	h.names = nil
	if err := a.forgetImages(t.Context(), h); err != nil {
		t.Errorf("nothing to remove, and somebody was asked: %v", err)
	}
}
