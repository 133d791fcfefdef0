package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// keeper holds parts of pods that move: dumps, copies.
type keeper interface {
	// Pods are the UIDs of the pods of which something is held.
	Pods() ([]string, error)
	// EndPod kills what is held of the pod, without a moment in which it runs.
	EndPod(ctx context.Context, uid string) error
}

// burial is how long the end of one pod may take before others have their turn.
const burial = time.Minute

// orphans are the pods that are held here and whose record is gone. Nobody will ever decide
// about them: what the record said is lost, so none of them may be let run.
type orphans struct {
	left prometheus.Gauge
	told map[string]bool
}

func newOrphans() *orphans {
	return &orphans{told: map[string]bool{}, left: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "drover_held_without_record",
		Help: "Pods that are held on this node by a move whose PodMigration is gone: each stands still until it is deleted.",
	})}
}

func (a *agent) keepEndingOrphans(ctx context.Context, from ...keeper) error {
	tick := time.NewTicker(forgetInterval)
	defer tick.Stop()
	o := newOrphans()
	a.registry.MustRegister(o.left)
	for {
		if err := a.endOrphans(ctx, o, from...); err != nil && ctx.Err() == nil {
			a.log.Warn("cannot end all that is held of pods and moves that are gone, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// endOrphans kills what is held of pods that are gone, or are being deleted, once the records of
// their moves are gone, too. kubelet cannot: drover-runc keeps it from what is held. The fence
// stays until kubelet has forgotten the pod, for a kubelet that is cut off would start it again.
func (a *agent) endOrphans(ctx context.Context, o *orphans, from ...keeper) error {
	held, err := heldBy(from)
	if err != nil {
		return err
	}
	// The cache first: nearly always it has the records, and nothing is asked.
	if held, err = unrecorded(ctx, a.cluster.cache, held); err != nil {
		return err
	}
	var there map[string]*corev1.Pod
	if len(held) > 0 {
		// From the API server itself, and after what is here: what is held had a record before.
		if held, err = unrecorded(ctx, a.cluster.direct, held); err != nil {
			return err
		}
		if there, err = a.cluster.podsNow(ctx); err != nil {
			return err
		}
	}
	var errs []error
	left := map[string]bool{}
	for _, uid := range held {
		if p := there[uid]; p != nil && p.DeletionTimestamp == nil {
			left[uid] = true
			o.tell(a, p)
			continue
		}
		a.log.Warn("a pod is held here that is gone, as is the record of its move: it is ended", "pod", uid)
		errs = append(errs, a.endOrphan(ctx, uid, from))
	}
	maps.DeleteFunc(o.told, func(uid string, _ bool) bool { return !left[uid] })
	o.left.Set(float64(len(left)))
	return errors.Join(errs...)
}

func (a *agent) endOrphan(ctx context.Context, uid string, from []keeper) error {
	ctx, cancel := context.WithTimeout(ctx, burial)
	defer cancel()
	if err := a.marks.Forget(migrate.Move{Target: migrate.Pod{UID: uid}}); err != nil {
		return err
	}
	for _, k := range from {
		if err := k.EndPod(ctx, uid); err != nil {
			return fmt.Errorf("end what is held of pod %s: %w", uid, err)
		}
	}
	return nil
}

// tell says once what only people can decide.
func (o *orphans) tell(a *agent, p *corev1.Pod) {
	if o.told[string(p.UID)] {
		return
	}
	o.told[string(p.UID)] = true
	message := fmt.Sprintf("node %s holds the pod for a move whose PodMigration is gone: nobody can tell any more which end may run, so this one stays held; delete the pod to end it", a.cfg.Node)
	a.log.Error(message, "pod", p.Namespace+"/"+p.Name, "uid", p.UID)
	a.events.Event(p, corev1.EventTypeWarning, "HeldWithoutRecord", message)
}

// heldBy gives the UIDs, each once, in order.
func heldBy(from []keeper) ([]string, error) {
	held := map[string]bool{}
	for _, k := range from {
		uids, err := k.Pods()
		if err != nil {
			return nil, fmt.Errorf("look for what is held here: %w", err)
		}
		for _, uid := range uids {
			held[uid] = true
		}
	}
	return slices.Sorted(maps.Keys(held)), nil
}

// unrecorded are those pods that are neither end of any move.
func unrecorded(ctx context.Context, from client.Reader, uids []string) ([]string, error) {
	if len(uids) == 0 {
		return nil, nil
	}
	var l v1alpha1.PodMigrationList
	if err := from.List(ctx, &l); err != nil {
		return nil, fmt.Errorf("list PodMigrations: %w", err)
	}
	recorded := map[types.UID]bool{}
	for i := range l.Items {
		s := &l.Items[i].Status
		recorded[s.Source.PodUID], recorded[s.Target.PodUID] = true, true
	}
	return slices.DeleteFunc(uids, func(uid string) bool { return recorded[types.UID(uid)] }), nil
}

// podsNow are the node's pods, by UID, as the API server has them now.
func (c *cluster) podsNow(ctx context.Context) (map[string]*corev1.Pod, error) {
	var l corev1.PodList
	err := c.direct.List(ctx, &l, client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("spec.nodeName", c.node)})
	if err != nil {
		return nil, fmt.Errorf("list the pods of node %s: %w", c.node, err)
	}
	pods := map[string]*corev1.Pod{}
	for i := range l.Items {
		pods[string(l.Items[i].UID)] = &l.Items[i]
	}
	return pods, nil
}
