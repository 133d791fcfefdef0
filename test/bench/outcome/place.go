package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	appgroup "github.com/diktyo-io/appgroup-api/pkg/apis/appgroup/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	_ "sigs.k8s.io/scheduler-plugins/apis/config/scheme" // registers the arguments of NetworkOverhead
	"sigs.k8s.io/scheduler-plugins/pkg/networkaware/networkoverhead"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/plugin"
)

const (
	namespace = "outcome"
	usersName = "users"
)

// taken is when the picture of a world was.
var taken = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// nodeObjects are the world's nodes as the API server knows them.
func (w *world) nodeObjects() []*corev1.Node {
	var all []*corev1.Node
	for _, n := range w.nodes {
		amounts := corev1.ResourceList{
			corev1.ResourceCPU:    cores(n.cores),
			corev1.ResourceMemory: gibibytes(n.memory),
			corev1.ResourcePods:   resource.MustParse("110"),
		}
		all = append(all, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{
				corev1.LabelHostname: n.name, corev1.LabelTopologyZone: n.zone, corev1.LabelTopologyRegion: "world",
			}},
			Status: corev1.NodeStatus{
				Capacity: amounts, Allocatable: amounts,
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		})
	}
	return all
}

// running are the pods that are there: the neighbours, and where users come in.
func (w *world) running() []*corev1.Pod {
	var all []*corev1.Pod
	for _, n := range w.nodes {
		all = append(all, podObject("neighbours-"+n.name, n.name, cores(n.requested), gibibytes(n.held)))
	}
	all = append(all, podObject(usersName, w.nodes[w.users].name, resource.MustParse("0"), resource.MustParse("0")))
	for _, p := range all {
		p.Status.Phase = corev1.PodRunning // else they count as pods that have just come, beside the loads that tell of them
	}
	return all
}

// waiting are the pods of the chain, in the order in which they are placed.
func (w *world) waiting() []*corev1.Pod {
	var all []*corev1.Pod
	before := usersName
	for i, s := range w.chain {
		p := podObject(s.name, "", cores(s.request), resource.MustParse("128Mi"))
		peers := []string{"app=" + before}
		if i+1 < len(w.chain) {
			peers = append(peers, fmt.Sprintf("app=%s:%d", w.chain[i+1].name, s.calls))
		}
		p.Annotations = map[string]string{v1alpha1.AnnotationPeers: strings.Join(peers, ",")}
		all = append(all, p)
		before = s.name
	}
	return all
}

func podObject(name, node string, cpu, memory resource.Quantity) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), Labels: map[string]string{
			"app": name, appgroup.AppGroupLabel: group, appgroup.AppGroupSelectorLabel: name,
		}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
			Name: "main", Image: "none",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory}},
		}}},
	}
}

func cores(n float64) resource.Quantity {
	return *resource.NewMilliQuantity(int64(n*1000), resource.DecimalSI)
}

func gibibytes(n float64) resource.Quantity {
	return *resource.NewQuantity(int64(n*float64(model.GiB)), resource.BinarySI)
}

// picture is what Drover's agents have measured in the world.
func (w *world) picture() view.Snapshot {
	s := view.Snapshot{At: taken, Nodes: map[model.NodeID]view.Node{}}
	for i, n := range w.nodes {
		routes := map[model.NodeID]model.RouteTime{}
		for j, to := range w.nodes {
			if i != j {
				routes[model.NodeID(to.name)] = model.RouteTime{
					RTT: w.trip[i][j], Spread: w.trip[i][j] / 50, Samples: 100, Stamp: model.StampKernel, At: taken,
				}
			}
		}
		s.Nodes[model.NodeID(n.name)] = view.Node{
			Alive: true, Received: taken, Phase: model.Normal,
			State: model.NodeState{
				Node: model.NodeID(n.name), Phase: model.Normal, Routes: routes, PodRoutes: routes,
				Load: model.Load{
					At:          taken,
					Allocatable: model.Resources{CPU: model.Cores(n.cores), Memory: model.Bytes(n.memory * float64(model.GiB))},
					Requested:   model.Resources{CPU: model.Cores(n.requested), Memory: model.Bytes(n.held * float64(model.GiB))},
					// No node uses more than it has.
					Used: model.Resources{CPU: model.Cores(min(n.used, n.cores)), Memory: model.Bytes(n.held * float64(model.GiB))},
				},
			},
		}
	}
	return s
}

// runs is how often each profile places: kube-scheduler draws lots between nodes that score alike.
const runs = 5

// profiles are the three that are compared; RouteTime's weight is the chart's.
const profiles = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: ` + byDefault + `
- schedulerName: ` + byRoute + `
  plugins:
    multiPoint:
      enabled: [{name: RouteTime, weight: 10}]
  pluginConfig:
  - name: RouteTime
    args: {apiVersion: drover.dev/v1alpha1, kind: RouteTimeArgs}
- schedulerName: ` + byOverhead + `
  plugins:
    multiPoint:
      enabled: [{name: NetworkOverhead, weight: 10}]
  pluginConfig:
  - name: NetworkOverhead
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NetworkOverheadArgs
      namespaces: [` + namespace + `]
      weightsName: ` + weights + `
      networkTopologyName: ` + tables + `
`

// withServer is a scheduler's handle for plugins that read objects of their own from an API server.
type withServer struct {
	framework.Handle
	server *rest.Config
}

func (h withServer) KubeConfig() *rest.Config { return h.server }

// placements gives where each profile puts the chain, run by run.
func placements(ctx context.Context, server *rest.Config, w *world) (map[string][][]int, error) {
	if err := w.fillTables(ctx, server); err != nil {
		return nil, fmt.Errorf("fill NetworkOverhead's tables: %w", err)
	}
	more := frameworkruntime.Registry{
		plugin.Name: plugin.Still(w.picture()),
		networkoverhead.Name: func(ctx context.Context, args runtime.Object, h framework.Handle) (framework.Plugin, error) {
			return networkoverhead.New(ctx, args, withServer{h, server})
		},
	}
	config, err := simulate.Configuration([]byte(profiles), "the benchmark's profiles", more)
	if err != nil {
		return nil, err
	}
	var objects []simulate.Object
	at := map[string]int{}
	for i, n := range w.nodeObjects() {
		at[n.Name] = i
		objects = append(objects, simulate.Object{Object: n, Where: n.Name})
	}
	for _, p := range w.running() {
		objects = append(objects, simulate.Object{Object: p, Where: p.Name})
	}
	cluster, err := simulate.NewCluster(objects)
	if err != nil {
		return nil, err
	}
	all := map[string][][]int{}
	for n := range runs {
		answer, err := simulate.Ask(ctx, simulate.Question{
			Cluster: cluster, Pods: w.waiting(), Measured: w.picture(), Config: config, More: more, Runs: 1, Seed: w.seed*runs + uint64(n),
		})
		if err != nil {
			return nil, err
		}
		for _, p := range answer.Profiles {
			var place []int
			for _, pod := range p.Pods {
				node, known := at[pod.Node]
				if !known {
					return nil, fmt.Errorf("%s: pod %s is on no node: %s", p.Name, pod.Name, pod.Reason)
				}
				place = append(place, node)
			}
			all[p.Name] = append(all[p.Name], place)
		}
	}
	return all, nil
}
