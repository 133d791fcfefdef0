package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
)

// thousand is a cluster of nodes in zones, 0.3 ms apart in a zone and 2 ms between zones, with a
// database of three pods for each service; what is measured is what agents of so many nodes do.
func thousand(nodes, services, zones int) ([]simulate.Object, view.Snapshot) {
	var objects []simulate.Object
	name := func(i int) model.NodeID { return model.NodeID(fmt.Sprintf("n%04d", i)) }
	zone := map[model.NodeID]string{}
	ids := make([]model.NodeID, nodes)
	for i := range nodes {
		ids[i] = name(i)
		zone[ids[i]] = fmt.Sprintf("z%02d", i%zones)
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: string(ids[i]), Labels: map[string]string{
			corev1.LabelHostname: string(ids[i]), corev1.LabelTopologyZone: zone[ids[i]],
		}}}
		n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("8"), "memory": resource.MustParse("32Gi"), "pods": resource.MustParse("110")}
		objects = append(objects, simulate.Object{Object: n, Where: "here"})
	}
	for s := range services {
		for r := range 3 {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("db%d-%d", s, r), Namespace: "default", Labels: map[string]string{"app": fmt.Sprintf("db%d", s)}}}
			p.Spec.NodeName = string(name((s*97 + r*zones) % nodes))
			p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
			objects = append(objects, simulate.Object{Object: p, Where: "here"})
		}
	}
	all := map[model.NodeID]view.Node{}
	for _, id := range ids {
		routes := map[model.NodeID]float64{}
		for _, to := range linkstate.Plan(id, zone) {
			routes[to] = 2
			if zone[to] == zone[id] {
				routes[to] = 0.3
			}
		}
		n := heard(model.Resources{CPU: 8, Memory: 32 * model.GiB}, model.Resources{CPU: 2, Memory: 8 * model.GiB}, routes)
		n.State.Pods = []model.PodID{{Namespace: "default", Name: "p"}}
		all[id] = n
	}
	return objects, view.Snapshot{At: taken, Nodes: all}
}
