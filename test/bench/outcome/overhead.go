package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	appgroup "github.com/diktyo-io/appgroup-api/pkg/apis/appgroup/v1alpha1"
	topology "github.com/diktyo-io/networktopology-api/pkg/apis/networktopology/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/scheduler-plugins/pkg/networkaware/networkoverhead"

	"github.com/drover-project/drover/test/bench/overhead"
)

// What NetworkOverhead reads.
const (
	group   = "chain"    // the AppGroup
	tables  = "tables"   // the NetworkTopology
	weights = "Measured" // its set of weights
)

// unit is what a cost of 1 stands for, which is NetworkOverhead's own for two nodes of one zone.
const unit = 350 * time.Microsecond

// dearest is the most that NetworkOverhead takes for a cost that is known.
const dearest = networkoverhead.MaxCost - 1

// startServer starts an API server that knows NetworkOverhead's kinds.
func startServer() (*rest.Config, func() error, error) {
	env := &envtest.Environment{CRDs: overhead.Definitions()}
	config, err := env.Start()
	if err != nil {
		return nil, nil, fmt.Errorf("start an API server (KUBEBUILDER_ASSETS names the directory of kube-apiserver and etcd): %w", err)
	}
	config.QPS, config.Burst = 1000, 1000
	return config, env.Stop, nil
}

// fillTables tells NetworkOverhead of a world in place of any before: who talks to whom, and
// what the ways between zones cost.
func (w *world) fillTables(ctx context.Context, server *rest.Config) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), appgroup.AddToScheme(scheme), topology.AddToScheme(scheme)); err != nil {
		return err
	}
	c, err := client.New(server, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if err := c.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	for _, o := range []client.Object{w.appGroup(), w.networkTopology()} {
		if err := client.IgnoreNotFound(c.Delete(ctx, o.DeepCopyObject().(client.Object))); err != nil {
			return err
		}
		if err := c.Create(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// appGroup says of each service that it depends on the one that calls it and on the one that it
// calls, as the peers of RouteTime do.
func (w *world) appGroup() *appgroup.AppGroup {
	g := &appgroup.AppGroup{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: group},
		Spec:       appgroup.AppGroupSpec{NumMembers: int32(len(w.chain) + 1), TopologySortingAlgorithm: appgroup.AppGroupKahnSort},
	}
	member := func(name string) appgroup.AppGroupWorkloadInfo {
		return appgroup.AppGroupWorkloadInfo{Kind: "Pod", Name: name, Selector: name, APIVersion: "v1", Namespace: namespace}
	}
	names := []string{usersName}
	for _, s := range w.chain {
		names = append(names, s.name)
	}
	for i, name := range names {
		one := appgroup.AppGroupWorkload{Workload: member(name)}
		for _, j := range []int{i - 1, i + 1} {
			if j >= 0 && j < len(names) {
				one.Dependencies = append(one.Dependencies, appgroup.DependenciesInfo{Workload: member(names[j]), MaxNetworkCost: 10_000})
			}
		}
		g.Spec.Workloads = append(g.Spec.Workloads, one)
	}
	return g
}

// networkTopology gives the cost of every way between two zones: the mean of the round trips between
// their nodes.
func (w *world) networkTopology() *topology.NetworkTopology {
	sums, counts := map[[2]string]time.Duration{}, map[[2]string]int{}
	var zones []string
	for i, from := range w.nodes {
		if i == 0 || w.nodes[i-1].zone != from.zone {
			zones = append(zones, from.zone)
		}
		for j, to := range w.nodes {
			if from.zone != to.zone {
				sums[[2]string{from.zone, to.zone}] += w.trip[i][j]
				counts[[2]string{from.zone, to.zone}]++
			}
		}
	}
	var origins topology.OriginList
	for _, from := range zones {
		o := topology.OriginInfo{Origin: from}
		for _, to := range zones {
			if way := [2]string{from, to}; counts[way] > 0 {
				mean := sums[way] / time.Duration(counts[way])
				cost := math.Round(float64(mean) / float64(unit))
				o.CostList = append(o.CostList, topology.CostInfo{Destination: to, NetworkCost: int64(min(dearest, max(2, cost)))})
			}
		}
		origins = append(origins, o)
	}
	return &topology.NetworkTopology{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: tables},
		Spec: topology.NetworkTopologySpec{Weights: topology.WeightList{{
			Name: weights, TopologyList: topology.TopologyList{{TopologyKey: topology.NetworkTopologyZone, OriginList: origins}},
		}}},
	}
}
