package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

const (
	rack    = 16 // nodes that are near to each other
	zones   = 20 // of the tables for NetworkOverhead: one per rack would not fit into one object
	regions = 4

	nodeCores, nodeGiB = 32, 128
)

// world is a cluster that does not exist: 0.2 to 0.5 ms within a rack, 1 to 3 ms beyond, each node
// a tenth to a half in use. It implements plugin.Views: what it tells was heard just now.
type world struct {
	names []string
	used  []float64 // share

	mu      sync.Mutex
	picture view.Snapshot
}

func newWorld(n int) *world {
	r := rand.New(rand.NewSource(6))
	w := &world{picture: view.Snapshot{Nodes: map[model.NodeID]view.Node{}}}
	racks, start := map[model.NodeID]string{}, time.Now()
	for i := range n {
		name := fmt.Sprintf("node-%04d", i)
		share := 0.1 + 0.4*r.Float64()
		w.names, w.used = append(w.names, name), append(w.used, share)
		racks[model.NodeID(name)] = fmt.Sprint(i / rack)
		w.picture.Nodes[model.NodeID(name)] = view.Node{Alive: true, State: model.NodeState{
			Node: model.NodeID(name), Routes: map[model.NodeID]model.RouteTime{}, RoutesAt: start,
			Load: model.Load{
				At:          start,
				Allocatable: model.Resources{CPU: nodeCores, Memory: nodeGiB * model.GiB},
				Used:        model.Resources{CPU: model.Cores(nodeCores * share), Memory: model.Bytes(share * nodeGiB * float64(model.GiB))},
			},
		}}
	}
	for _, name := range w.names {
		from := model.NodeID(name)
		for _, to := range linkstate.Plan(from, racks) {
			if _, known := w.picture.Nodes[from].State.Routes[to]; known {
				continue
			}
			rtt := time.Millisecond + time.Duration(r.Intn(2000))*time.Microsecond
			if racks[from] == racks[to] {
				rtt = 200*time.Microsecond + time.Duration(r.Intn(300))*time.Microsecond
			}
			route := model.RouteTime{RTT: rtt, Spread: rtt / 50, Samples: 50, Stamp: model.StampKernel, At: start}
			w.picture.Nodes[from].State.Routes[to], w.picture.Nodes[to].State.Routes[from] = route, route
		}
	}
	return w
}

// Snapshot implements plugin.Views. Agents tell what they have at least so often.
func (w *world) Snapshot() view.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); w.picture.Age(now) > 4*time.Second {
		heard := maps.Clone(w.picture.Nodes) // one that was handed out stays as it is
		for id, n := range heard {
			n.Received = now
			heard[id] = n
		}
		w.picture.Nodes, w.picture.At = heard, now
	}
	return w.picture
}

func zoneOf(i int) string   { return fmt.Sprint("zone-", i/rack%zones) }
func regionOf(i int) string { return fmt.Sprint("region-", i/rack%zones%regions) }

// node is one of its Node objects, as it is when its kubelet has told that it is ready.
func (w *world) node(i int) *corev1.Node {
	most := corev1.ResourceList{"cpu": resource.MustParse(fmt.Sprint(nodeCores)), "memory": resource.MustParse(fmt.Sprint(nodeGiB, "Gi")), "pods": resource.MustParse("110")}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: w.names[i], Labels: map[string]string{corev1.LabelHostname: w.names[i], corev1.LabelTopologyZone: zoneOf(i), corev1.LabelTopologyRegion: regionOf(i)}},
		Status:     corev1.NodeStatus{Capacity: most, Allocatable: most, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

// peerNodes is how many nodes the peers of the pods run on.
const peerNodes = 3

// peers are the pods that the others talk to, bound already.
func (w *world) peers() (pods []*corev1.Pod) {
	for i := range peerNodes {
		p := newPod(fmt.Sprint("db-", i), "")
		p.Spec.NodeName = w.names[(i*len(w.names)/peerNodes+7)%len(w.names)]
		p.Labels = map[string]string{"app": "db", groupLabel: group, workloadLabel: "db"}
		pods = append(pods, p)
	}
	return pods
}

const (
	schedulerName = "bench"
	peersOfPods   = "app=db"

	group         = "bench"
	groupLabel    = "appgroup.diktyo.x-k8s.io"
	workloadLabel = "appgroup.diktyo.x-k8s.io.workload"
)

// newPod is a pod that requests a little, with peers or without.
func newPod(name, peers string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web", groupLabel: group, workloadLabel: "web"}},
		Spec: corev1.PodSpec{SchedulerName: schedulerName, Containers: []corev1.Container{{
			Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("50m"), "memory": resource.MustParse("64Mi")}},
		}}},
	}
	if peers != "" {
		p.Annotations = map[string]string{"drover.dev/peers": peers}
	}
	return p
}

// ServeHTTP gives the same figures of use as a load-watcher does.
func (w *world) ServeHTTP(to http.ResponseWriter, _ *http.Request) {
	type metric struct {
		Name     string  `json:"name"`
		Type     string  `json:"type"`
		Operator string  `json:"operator"`
		Value    float64 `json:"value"` // percent
	}
	type metrics struct {
		Metrics []metric `json:"metrics"`
	}
	nodes, now := map[string]metrics{}, time.Now().Unix()
	for i, name := range w.names {
		nodes[name] = metrics{[]metric{{"cpu", "CPU", "AVG", 100 * w.used[i]}, {"memory", "Memory", "AVG", 100 * w.used[i]}}}
	}
	to.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(to).Encode(map[string]any{
		"timestamp": now, "window": map[string]any{"duration": "15m", "start": now - 900, "end": now}, "source": "bench",
		"data": map[string]any{"NodeMetricsMap": nodes},
	})
}
