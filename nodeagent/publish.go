package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/nodeagent/measure"
)

// publish looks at this node once a second, until ctx ends, and has gossip tell the others what
// has changed.
func (a *agent) publish(ctx context.Context) error {
	tick := time.NewTicker(publishInterval)
	defer tick.Stop()
	told := ""
	for {
		if err := a.publishOnce(ctx); err != nil && ctx.Err() == nil {
			// The same trouble every second is told once.
			if err.Error() != told {
				a.log.Warn("this node's state was not published", "error", err)
			}
			told = err.Error()
		} else {
			told = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *agent) publishOnce(ctx context.Context) error {
	pods, err := a.refresh(ctx)
	if err != nil {
		return fmt.Errorf("list the node's pods: %w", err)
	}
	if err := a.followPeers(ctx, pods); err != nil {
		return err
	}
	node, deleted, err := a.ownNode(ctx)
	if err != nil {
		return err
	}
	load, err := a.load.Read(time.Now(), resources(node.Status.Allocatable), requested(pods))
	if err != nil {
		return err
	}
	// The rest is told without it.
	bandwidth, unknown := a.links.Read(time.Now())
	a.places.Retry()
	podAddress, podRoutes := a.podPath.Snapshot()
	ends, heaviest := a.talk(time.Now(), pods)
	err = a.gossip.Publish(model.NodeState{
		Phase: a.phase(node, deleted), Silent: a.routes.Silent(time.Now()),
		Address: a.cfg.Address.String(), BootID: a.bootID, PodAddress: host(podAddress), Load: load, Bandwidth: bandwidth,
		Routes: a.routes.Snapshot(), PodRoutes: podRoutes, Suffering: a.contention.Current(time.Now()).Suffering(),
		CannotRestore: a.cannotRestore(), CPU: a.cpu, Pods: holding(pods), Ends: ends, Edges: heaviest,
	})
	return errors.Join(err, unknown)
}

// followPeers probes those nodes of its plan that gossip knows, at the addresses that their Node
// objects name, and by the pod path at those that they tell themselves. Only they are answered:
// every plan is theirs, too. Those that are no members any more are among them: whether their
// kernels answer is what tells a dead node from a dead agent.
func (a *agent) followPeers(ctx context.Context, pods []corev1.Pod) error {
	nodes, err := a.cluster.nodes(ctx)
	if err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	s := a.gossip.Snapshot()
	all := members(a.cfg.Node, addressesOf(nodes), s.Nodes)
	self := model.NodeID(a.cfg.Node)
	peers := planned(self, all, zonesOf(nodes))
	a.routes.SetPeers(peers)
	c := companion(a.cfg.Namespace, pods)
	a.podPath.Follow(c, podPeers(self, c.Address, peers, s.Nodes, nodes))
	return nil
}

// members are the nodes of the picture with their addresses: those of their Node objects. Who has
// none any more, and is not forgotten yet, is looked for where it said last that it is, unless
// that is another's address.
func members(self string, objects map[model.NodeID]netip.Addr, known map[model.NodeID]view.Node) map[model.NodeID]netip.Addr {
	all, taken := map[model.NodeID]netip.Addr{}, map[netip.Addr]bool{}
	for id, addr := range objects {
		taken[addr] = true
		if _, is := known[id]; is || string(id) == self {
			all[id] = addr
		}
	}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		if _, has := objects[id]; has {
			continue
		}
		if addr, err := netip.ParseAddr(known[id].State.Address); err == nil && addr.IsGlobalUnicast() && !taken[addr.Unmap()] {
			all[id], taken[addr.Unmap()] = addr.Unmap(), true
		}
	}
	return all
}

// host is an address as others are told it; empty: none.
func host(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// planned are the nodes that self probes, of all those that can be.
func planned(self model.NodeID, all map[model.NodeID]netip.Addr, zones map[model.NodeID]string) map[model.NodeID]netip.Addr {
	members := make(map[model.NodeID]string, len(all))
	for id := range all {
		members[id] = zones[id]
	}
	peers := map[model.NodeID]netip.Addr{}
	for _, id := range linkstate.Plan(self, members) {
		peers[id] = all[id]
	}
	return peers
}

// holding lists the pods that have not ended, in the order of model.ComparePods.
func holding(pods []corev1.Pod) []model.PodID {
	held := make([]model.PodID, 0, len(pods))
	for i := range pods {
		if holds(&pods[i]) {
			held = append(held, podID(&pods[i]))
		}
	}
	slices.SortFunc(held, model.ComparePods)
	return held
}

// kubepods finds the control group that holds this node's pods.
func (a *agent) kubepods() (measure.Cgroups, measure.Group, error) {
	groups, err := measure.OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		return groups, "", err
	}
	g, err := groups.FindKubepods(a.cfg.PodUID)
	return groups, g, err
}
