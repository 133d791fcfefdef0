package pressure

import "github.com/drover-project/drover/internal/model"

// Memory is how one container stalled for memory between two readings.
type Memory struct {
	// Stalled is the share of time in which a task of the container stalled for memory, by
	// its control group's PSI; nil where the kernel keeps none of it.
	Stalled *float64 `json:"stalled,omitempty"`
	// NodeStalled is that of the whole node.
	NodeStalled float64 `json:"nodeStalled"`
	// Faults are pages that the container had to wait for, from a disk: major faults and
	// refaults. NodeFaults are those of all containers. Both per second.
	Faults     float64 `json:"faults,omitempty"`
	NodeFaults float64 `json:"nodeFaults,omitempty"`
	// Usage is what it holds and could not give back at once, of its own Limit: the least of
	// its own, its pod's, and where these are throttled (memory.high). 0: none.
	Usage model.Bytes `json:"usage,omitempty"`
	Limit model.Bytes `json:"limit,omitempty"`
	// Held is Usage with all file cache.
	Held model.Bytes `json:"held,omitempty"`
	// NodeFree is the part of the node's memory that could be given to a new process, 0..1.
	NodeFree float64 `json:"nodeFree"`
	// NodeHeld is what the node holds with all file cache, of NodeSize; OwnHeld is the
	// container's part of it.
	NodeHeld model.Bytes `json:"nodeHeld,omitempty"`
	NodeSize model.Bytes `json:"nodeSize,omitempty"`
	OwnHeld  model.Bytes `json:"ownHeld,omitempty"`
}

const (
	// NearLimit is the share of its own limit from which a container suffers from itself.
	NearLimit = 0.9
	// Short: a node is short of memory with less than this part free;
	Short = 0.1
	// and with this part held, cache and all, once pages are missed that were dropped from it.
	full = 0.95
)

// OfLimit is Usage as a share of Limit, 0 without one.
func (m Memory) OfLimit() float64 {
	if m.Limit <= 0 {
		return 0
	}
	return max(0, float64(m.Usage)/float64(m.Limit))
}

// own says whether it is its own limit that the container runs into: it holds nearly as much, or
// does with its cache, and misses what was dropped from that.
func (m Memory) own() bool {
	return m.OfLimit() >= NearLimit || m.Faults > 0 && m.Limit > 0 && float64(m.Held) >= NearLimit*float64(m.Limit)
}

// short says whether the node has too little for all that is on it.
func (m Memory) short() bool {
	return m.NodeFree < Short || m.Faults > 0 && m.NodeSize > 0 && float64(m.NodeHeld) >= full*float64(m.NodeSize)
}

// Stall is the share of time for which others keep the container from memory: while the node is
// short of it, their part of what is held is their part of its stall. There is none while
// it runs into its own limit: that goes with it, and moving it helps nobody.
func (m Memory) Stall() float64 {
	if m.own() || !m.short() {
		return 0
	}
	return m.All() * share(1-float64(m.OwnHeld)/float64(m.NodeHeld))
}

// All is the share of time for which it stalls, whoever causes it. A kernel that keeps no PSI
// of the container is asked for the node's instead: its part of the pages that were waited for
// is its part of the stall.
func (m Memory) All() float64 {
	if m.Stalled != nil {
		return share(*m.Stalled)
	}
	return share(m.NodeStalled) * share(m.Faults/m.NodeFaults)
}

// IO is how one container stalled for block devices between two readings.
type IO struct {
	// Stalled is the share of time in which a task of the container waited for a device, by
	// its control group's PSI; nil where the kernel keeps none of it.
	Stalled *float64 `json:"stalled,omitempty"`
	// NodeStalled is that of the whole node.
	NodeStalled float64 `json:"nodeStalled"`
	// Own, Others and Node are the bytes that the container, all other containers, and the
	// node's devices read and wrote, per second. Node holds the others, and what is charged
	// to nobody: with cgroup v1 all that is written back later.
	Own    float64 `json:"own,omitempty"`
	Others float64 `json:"others,omitempty"`
	Node   float64 `json:"node,omitempty"`
	// Limited: the container, or its pod, has an IO limit of its own.
	Limited bool `json:"limited,omitempty"`
}

// Stall is the share of time for which others keep the container from the devices: their part
// of the bytes is their part of its stall. What is charged to nobody may be the
// container's own, and blames no one; one with a limit of its own is taken to wait for that.
func (i IO) Stall() float64 {
	total := max(i.Node, i.Own+i.Others)
	if i.Limited || !(total > 0) {
		return 0
	}
	return i.All() * share(i.Others/total)
}

// All is the share of time for which it stalls, whoever causes it. A kernel that keeps no PSI
// of the container is asked for the node's instead, shared out by the bytes.
func (i IO) All() float64 {
	if i.Stalled != nil {
		return share(*i.Stalled)
	}
	return share(i.NodeStalled) * share(i.Own/max(i.Node, i.Own+i.Others))
}
