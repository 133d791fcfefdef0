package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/drover-project/drover/hack/lab"
	labcgroup "github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/cluster"
)

// trial is one placement of one chain in the lab. Its nodes n1 and n2 have a core each, to which
// all that their pods run is kept; users are on n3, which runs nothing else.
type trial struct {
	name       string
	place      []int // of each service: 0 is n1, 1 is n2
	neighbours [2]int
	oneWay     time.Duration // between any two nodes
	demand     float64
}

// trials; the first is what the cost of a call is taken from.
var trials = []trial{
	{name: "together, alone", place: []int{0, 0, 0}, demand: 20},
	{name: "apart, alone", place: []int{0, 1, 0}, oneWay: time.Millisecond, demand: 20},
	{name: "together, more load", place: []int{1, 1, 1}, demand: 60},
	{name: "together, one neighbour", place: []int{0, 0, 0}, neighbours: [2]int{1, 0}, demand: 20},
	{name: "apart, two neighbours", place: []int{0, 1, 1}, neighbours: [2]int{0, 2}, oneWay: 500 * time.Microsecond, demand: 20},
	{name: "apart, neighbours on both", place: []int{1, 0, 1}, neighbours: [2]int{1, 1}, oneWay: 2 * time.Millisecond, demand: 15},
}

var trialChain = []service{
	{name: "s1", work: 2 * time.Millisecond, calls: 2, request: .25},
	{name: "s2", work: time.Millisecond, calls: 1, request: .25},
	{name: "s3", work: 3 * time.Millisecond, request: .25},
}

const (
	trialCalls       = 1500
	neighbourRequest = .1 // cores, of each neighbour
)

// outcome is what a trial took in the lab and in the model.
type outcome struct {
	trial
	lab, model []time.Duration
}

// calibrate plays the trials in a lab and in the model, and gives the cost of a call that the
// model takes from the first.
func calibrate(ctx context.Context) (cost time.Duration, all []outcome, err error) {
	c, err := cluster.Up(ctx, cluster.Options{
		Lab: lab.Config{Name: "outcome", Nodes: []lab.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}}, Log: os.Stderr,
	})
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	if err := c.Measured(ctx); err != nil {
		return 0, nil, err
	}
	for i, t := range trials {
		fmt.Fprintf(os.Stderr, "lab: %s\n", t.name)
		took, w, err := t.play(ctx, c, fmt.Sprintf("trial%d", i))
		if err != nil {
			return 0, nil, fmt.Errorf("%s: %w", t.name, err)
		}
		if i == 0 {
			cost = fit(w, t.place, took)
		}
		w.cost = cost
		all = append(all, outcome{t, took, open(&w, t.place, 20*trialCalls, uint64(i))})
	}
	return cost, all, nil
}

// fit finds the cost of a call with which the model's median is the lab's.
func fit(w world, place []int, took []time.Duration) time.Duration {
	want := quantile(took, .5)
	low, high := time.Duration(0), 5*time.Millisecond
	for high-low > time.Microsecond {
		w.cost = (low + high) / 2
		if quantile(open(&w, place, 20*trialCalls, 0), .5) < want {
			low = w.cost
		} else {
			high = w.cost
		}
	}
	return high
}

// play plays a trial in the lab, and gives the world that it was.
func (t trial) play(ctx context.Context, c *cluster.Cluster, ns string) ([]time.Duration, world, error) {
	remove, err := c.Namespace(ctx, ns)
	if err != nil {
		return nil, world{}, err
	}
	defer remove()
	nodes := c.Nodes()
	for _, ab := range [][2]string{{nodes[0], nodes[1]}, {nodes[0], nodes[2]}, {nodes[1], nodes[2]}} {
		if err := c.Lab.SetDelay(ctx, ab[0], ab[1], t.oneWay); err != nil {
			return nil, world{}, err
		}
	}
	var pods []*corev1.Pod
	start := func(p *corev1.Pod) (*corev1.Pod, error) {
		if err := c.Client.Create(ctx, p); err != nil {
			return nil, err
		}
		p, err := c.Ready(ctx, p.Namespace, p.Name)
		pods = append(pods, p)
		return p, err
	}
	for node, threads := range t.neighbours {
		if threads == 0 {
			continue
		}
		request := resource.MustParse(fmt.Sprintf("%dm", int(neighbourRequest*float64(threads)*1000)))
		if _, err := start(c.Busy(ns, "busy-"+nodes[node], nodes[node], threads, request)); err != nil {
			return nil, world{}, err
		}
	}
	url := ""
	for i := len(trialChain) - 1; i >= 0; i-- {
		s := trialChain[i]
		p, err := start(c.Link(cluster.Link{
			Namespace: ns, Name: s.name, Node: nodes[t.place[i]], CPU: "250m", Work: s.work, Next: url, Calls: s.calls,
		}))
		if err != nil {
			return nil, world{}, err
		}
		url = fmt.Sprintf("http://%s:8080/", p.Status.PodIP)
	}
	users, err := start(c.Link(cluster.Link{Namespace: ns, Name: "users", Node: nodes[2], CPU: "250m"}))
	if err != nil {
		return nil, world{}, err
	}
	for core := range 2 {
		if err := keepOn(c, nodes[core], core); err != nil {
			return nil, world{}, err
		}
	}
	if _, err := c.Load(ctx, users, url, t.demand, trialCalls/10); err != nil { // connections are made
		return nil, world{}, err
	}
	took, err := c.Load(ctx, users, url, t.demand, trialCalls)
	if err != nil {
		return nil, world{}, err
	}
	w, err := t.world(ctx, c)
	for _, p := range pods {
		err = errors.Join(err, c.Client.Delete(ctx, p))
	}
	return took, w, err
}

// world is the model's of a trial: the route times are those that Drover has measured meanwhile.
func (t trial) world(ctx context.Context, c *cluster.Cluster) (world, error) {
	w := world{users: 2, chain: trialChain, demand: t.demand}
	nodes := c.Nodes()
	views, err := c.Views(ctx)
	if err != nil {
		return w, err
	}
	for i, name := range nodes {
		n := node{name: name, cores: 1}
		if i < 2 {
			n.used, n.requested = float64(t.neighbours[i]), float64(t.neighbours[i])*neighbourRequest
		}
		w.nodes = append(w.nodes, n)
		w.trip = append(w.trip, make([]time.Duration, len(nodes)))
		for j, to := range nodes {
			w.trip[i][j] = loopback
			if i != j {
				w.trip[i][j] = views[name].Nodes[model.NodeID(name)].State.PodRoutes[model.NodeID(to)].RTT
			}
		}
	}
	return w, nil
}

// keepOn keeps every thread of a node's pods on one CPU.
func keepOn(c *cluster.Cluster, node string, cpu int) error {
	group, err := c.Lab.PodsGroup(node)
	if err != nil {
		return err
	}
	tree, err := labcgroup.Detect()
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	pids, err := tree.Processes(group)
	if err != nil {
		return err
	}
	kept := 0
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				return err
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("keep thread %d on CPU %d: %w", tid, cpu, err)
			}
			kept++
		}
	}
	if kept == 0 {
		return fmt.Errorf("keep the pods of %s on CPU %d: no threads in %s", node, cpu, group)
	}
	return nil
}
