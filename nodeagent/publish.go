package nodeagent

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/measure"
)

// publish tells the others this node's state, once a second, until ctx ends.
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
	if err := a.followPeers(ctx); err != nil {
		return err
	}
	pods, err := a.refresh(ctx)
	if err != nil {
		return fmt.Errorf("list the node's pods: %w", err)
	}
	node, err := a.cluster.self(ctx)
	if err != nil {
		return err
	}
	load, err := a.load.Read(time.Now(), resources(node.Status.Allocatable), requested(pods))
	if err != nil {
		return err
	}
	a.places.Retry()
	return a.gossip.Publish(model.NodeState{
		Address: a.cfg.Address.String(), BootID: a.bootID,
		Load: load, Routes: a.routes.Snapshot(), Suffering: a.contention.Snapshot().Suffering(),
		CannotRestore: a.cannotRestore(), CPU: a.cpu,
	})
}

// followPeers probes those nodes of its plan that gossip holds for alive, at the addresses
// that their Node objects name. Only they are answered: every plan is theirs, too.
func (a *agent) followPeers(ctx context.Context) error {
	nodes, err := a.cluster.nodes(ctx)
	if err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	all, s := addressesOf(nodes), a.gossip.Snapshot()
	for id := range all {
		if string(id) != a.cfg.Node && !s.Nodes[id].Alive {
			delete(all, id)
		}
	}
	a.routes.SetPeers(planned(model.NodeID(a.cfg.Node), all, zonesOf(nodes)))
	return nil
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

// kubepods finds the control group that holds this node's pods.
func (a *agent) kubepods() (measure.Cgroups, measure.Group, error) {
	groups, err := measure.OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		return groups, "", err
	}
	g, err := groups.FindKubepods(a.cfg.PodUID)
	return groups, g, err
}
