package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	labcgroup "github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/test/cluster"
)

// play plays a trial in the lab.
func (t trial) play(ctx context.Context, c *cluster.Cluster, ns string) (found, error) {
	f := found{Trial: t.String()}
	remove, err := c.Namespace(ctx, ns)
	if err != nil {
		return f, err
	}
	defer remove()
	nodes := c.Nodes()
	for _, ab := range [][2]string{{nodes[0], nodes[1]}, {nodes[0], nodes[2]}, {nodes[1], nodes[2]}} {
		if err := c.Lab.SetDelay(ctx, ab[0], ab[1], t.oneWay); err != nil {
			return f, err
		}
	}
	pods, users, url, err := t.start(ctx, c, ns)
	if err != nil {
		return f, err
	}
	for core := range 2 {
		if err := keepOn(c, nodes[core], core); err != nil {
			return f, err
		}
	}
	if f.Rounds, f.Cost, err = t.load(ctx, c, pods, users, url); err != nil {
		return f, err
	}
	f.Trip, err = trips(ctx, c)
	for _, p := range pods {
		err = errors.Join(err, c.Client.Delete(ctx, p))
	}
	return f, err
}

// start starts the chain, its neighbours, and the pod that calls it at url.
func (t trial) start(ctx context.Context, c *cluster.Cluster, ns string) (pods []*corev1.Pod, users *corev1.Pod, url string, err error) {
	nodes := c.Nodes()
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
			return nil, nil, "", err
		}
	}
	for i := len(trialChain) - 1; i >= 0; i-- {
		s := trialChain[i]
		p, err := start(c.Link(cluster.Link{
			Namespace: ns, Name: s.name, Node: nodes[t.place[i]], CPU: "250m", Work: s.work, Next: url, Calls: s.calls,
		}))
		if err != nil {
			return nil, nil, "", err
		}
		url = fmt.Sprintf("http://%s:8080/", p.Status.PodIP)
	}
	users, err = start(c.Link(cluster.Link{Namespace: ns, Name: usersName, Node: nodes[2], CPU: "250m"}))
	return pods, users, url, err
}

// beyond is what the services have used of the CPU until now beyond their work.
func beyond(ctx context.Context, c *cluster.Cluster, pods []*corev1.Pod) (sum time.Duration, err error) {
	for _, p := range pods {
		if !slices.ContainsFunc(trialChain, func(s service) bool { return s.name == p.Name }) {
			continue // a neighbour, or who calls
		}
		cpu, work, err := c.Spent(ctx, p)
		if err != nil {
			return 0, err
		}
		sum += cpu - work
	}
	return sum, nil
}

// calls is how many calls of services a request makes.
func calls(chain []service) int {
	sum, visits := 0, 1
	for _, s := range chain {
		sum += visits
		visits *= s.calls
	}
	return sum
}

// load calls the chain round by round, until the rounds agree or there were attempts enough, and gives
// what agrees best, with what a call took of the CPU beyond its work.
func (t trial) load(ctx context.Context, c *cluster.Cluster, pods []*corev1.Pod, users *corev1.Pod, url string) (calmest [][]time.Duration, cost time.Duration, err error) {
	least := 0.
	for range attempts {
		if _, err := c.Load(ctx, users, url, t.demand, trialCalls/4); err != nil { // connections are made
			return nil, 0, err
		}
		before, err := beyond(ctx, c, pods)
		if err != nil {
			return nil, 0, err
		}
		var rounds [][]time.Duration
		for range trialRounds {
			took, err := c.Load(ctx, users, url, t.demand, trialCalls)
			if err != nil {
				return nil, 0, err
			}
			rounds = append(rounds, took)
		}
		after, err := beyond(ctx, c, pods)
		if err != nil {
			return nil, 0, err
		}
		low, high := between(rounds, .5)
		apart := float64(high)/float64(low) - 1
		if calmest == nil || apart < least {
			calmest, least = rounds, apart
			cost = (after - before) / time.Duration(trialRounds*trialCalls*calls(trialChain))
		}
		if least <= calm {
			break
		}
		fmt.Fprintf(os.Stderr, "lab: the medians of the rounds are between %v and %v: something else runs on this machine\n", low, high)
	}
	return calmest, cost, nil
}

// trips are the round trips that Drover has measured between the nodes' pods.
func trips(ctx context.Context, c *cluster.Cluster) ([][]time.Duration, error) {
	nodes := c.Nodes()
	views, err := c.Views(ctx)
	if err != nil {
		return nil, err
	}
	var all [][]time.Duration
	for i, name := range nodes {
		all = append(all, make([]time.Duration, len(nodes)))
		for j, to := range nodes {
			all[i][j] = loopback
			if i != j {
				all[i][j] = views[name].Nodes[model.NodeID(name)].State.PodRoutes[model.NodeID(to)].RTT
			}
		}
	}
	return all, nil
}

// world is the model's of a trial.
func (t trial) world(trip [][]time.Duration) world {
	w := world{users: 2, chain: trialChain, demand: t.demand, trip: trip}
	for i := range trip {
		n := node{name: fmt.Sprintf("n%d", i+1), cores: 1}
		if i < len(t.neighbours) {
			n.used, n.requested = float64(t.neighbours[i]), float64(t.neighbours[i])*neighbourRequest
		}
		w.nodes = append(w.nodes, n)
	}
	return w
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
