package plugin

import (
	"fmt"

	"github.com/drover-project/drover/internal/cpufeature"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// unable tells why a node is known to be unable to restore a pod that comes from source; empty
// when nothing speaks against it. A node that nothing is known of passes while the picture
// does not even know the source: then the observer has only just joined, and a cluster
// without measurements must not be one without moves.
func unable(s view.Snapshot, source model.NodeID, name string) string {
	id := model.NodeID(name)
	n, known := s.Nodes[id]
	switch {
	case !known && s.Nodes[source].Alive:
		return "no drover-agent is known on this node, so it cannot restore the pod"
	case !known:
		return ""
	case n.Closed() != "":
		return "no pod is moved to this node: " + n.Closed()
	case n.State.CannotRestore != "":
		return fmt.Sprintf("this node cannot restore the pod: %s", n.State.CannotRestore)
	}
	if why := cpufeature.Obstacle(s.Nodes[source].State.CPU, n.State.CPU); why != "" {
		return "this node cannot restore the pod: " + why
	}
	return ""
}
