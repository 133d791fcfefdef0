package controller

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/drover-project/drover/api/v1alpha1"
)

// Name is the controller's, in logs, metrics and events.
const Name = "drover-controller"

// Setup adds a Reconciler to the manager. Nothing runs before the manager is started.
// Metrics go to controller-runtime's registry.
func Setup(mgr ctrl.Manager, c Config) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("configure the controller: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("make a client that asks what the API server serves: %w", err)
	}
	r := &Reconciler{
		Reader:  mgr.GetAPIReader(),
		Kinds:   &remembered{kinds: kinds, now: time.Now},
		Writer:  mgr.GetClient(),
		Status:  mgr.GetClient(),
		Events:  mgr.GetEventRecorderFor(Name),
		Now:     time.Now,
		Metrics: NewMetrics(metrics.Registry),
		Config:  c.WithDefaults(),
	}
	if err := metrics.Registry.Register(NewPhaseCollector(mgr.GetCache(), time.Now)); err != nil {
		return fmt.Errorf("register the metric of phases: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("podmigration").
		For(&v1alpha1.PodMigration{}).
		// Only names and annotations of pods are kept; what counts is read live.
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(involved(mgr.GetCache())), builder.OnlyMetadata).
		// The second step of a pod that keeps its name wakes the first.
		Watches(&v1alpha1.PodMigration{}, handler.EnqueueRequestForOwner(mgr.GetScheme(), mgr.GetRESTMapper(), &v1alpha1.PodMigration{}, handler.OnlyControllerOwner())).
		// The newest move of a pod wakes those by which it had other addresses.
		Watches(&v1alpha1.PodMigration{}, handler.EnqueueRequestsFromMapFunc(alongWith)).
		Complete(r)
}

// involved maps a pod to the moves that it is the source or the replacement of, and to those whose addresses go
// along by these: where the pod is about to go, nothing is to be sent on to it any more.
func involved(moves client.Reader) handler.MapFunc {
	return func(ctx context.Context, o client.Object) (out []reconcile.Request) {
		moving, _, _ := strings.Cut(o.GetAnnotations()[v1alpha1.AnnotationMoving], "/")
		for _, name := range []string{moving, o.GetAnnotations()[v1alpha1.AnnotationMigration]} {
			if name == "" {
				continue
			}
			key := types.NamespacedName{Namespace: o.GetNamespace(), Name: name}
			out = append(out, reconcile.Request{NamespacedName: key})
			var m v1alpha1.PodMigration
			if moves.Get(ctx, key, &m) == nil { // one that is not known yet has an event of its own
				out = append(out, alongWith(ctx, &m)...)
			}
		}
		return out
	}
}

// alongWith maps a move to those whose addresses go along by it: its record tells what becomes of their leases.
func alongWith(_ context.Context, o client.Object) (out []reconcile.Request) {
	m, is := o.(*v1alpha1.PodMigration)
	if !is || m.Status.Connections == nil {
		return nil
	}
	for _, e := range m.Status.Connections.Earlier {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: m.Namespace, Name: e.Migration}})
	}
	return out
}
