// Package model holds the nouns that every part of Drover shares: nodes, pods, loads,
// route times and locations. Units live in the types. It has no behaviour beyond
// conversion and ordering, and imports the standard library alone.
package model

import (
	"cmp"
	"strings"
	"time"
)

// NodeID is the name of a Kubernetes Node object.
type NodeID string

// PodID names one pod object: a name may be used again, a UID never is.
type PodID struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// String gives namespace/name, the form users type.
func (p PodID) String() string { return p.Namespace + "/" + p.Name }

// ComparePods orders pods by namespace, name and UID.
func ComparePods(a, b PodID) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.UID, b.UID))
}

// Cores is an amount of CPU: 1 is one logical processor for all of the time.
type Cores float64

// Bytes is an amount of memory or data.
type Bytes int64

// Binary multiples of a byte.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

// GiB gives the amount in binary gigabytes, the unit of M in the formula.
func (b Bytes) GiB() float64 { return float64(b) / float64(GiB) }

// Rate is bytes per second.
type Rate float64

// Resources is an amount of CPU and memory.
type Resources struct {
	CPU    Cores `json:"cpu"`
	Memory Bytes `json:"memory"`
}

// Plus is the sum of both.
func (r Resources) Plus(s Resources) Resources { return Resources{r.CPU + s.CPU, r.Memory + s.Memory} }

// Load is what one node says of its own resources at one moment.
type Load struct {
	// Allocatable is what pods may use at most: the Node's allocatable, or less where a
	// control group above the pods allows less.
	Allocatable Resources `json:"allocatable"`
	// Requested is the sum of the requests of the pods bound to the node.
	Requested Resources `json:"requested"`
	// Used is what is measured in use by everything on the node.
	Used Resources `json:"used"`
	// Pressure is the share of time (0..1) in which some runnable task waited for CPU.
	Pressure float64 `json:"pressure"`
	// Pressures is the same for every resource that is known; an agent may not tell.
	Pressures map[Resource]float64 `json:"pressures,omitempty"`
	// At is when it was measured, by the clock of the node that measured it.
	At time.Time `json:"at"`
}

// Idle is what of Allocatable is neither requested nor in use: less the greater of both.
func (l *Load) Idle() Resources {
	return Resources{
		CPU:    max(0, l.Allocatable.CPU-max(l.Requested.CPU, l.Used.CPU)),
		Memory: max(0, l.Allocatable.Memory-max(l.Requested.Memory, l.Used.Memory)),
	}
}

// Stamp tells where the time stamps of a route time were taken.
type Stamp string

const (
	// StampKernel: the packet was stamped and answered by eBPF programs.
	StampKernel Stamp = "kernel"
	// StampUser: stamped and answered in user space; a busy node spoils it.
	StampUser Stamp = "user"
)

// Path is by which of two ways packets go from node to node.
type Path string

const (
	// PathNode leads from a node's own address to the other's.
	PathNode Path = "node"
	// PathPod leads from a pod's address to another's, through all that the cluster's network
	// puts between pods.
	PathPod Path = "pod"
)

// RouteTime is the measured round trip from one node to another.
type RouteTime struct {
	// RTT is a robust mean over the paths of the window's samples (linkstate.Window).
	RTT time.Duration `json:"rtt"`
	// Spread is how far from it a round trip may well be: by its path, and by disturbances.
	Spread time.Duration `json:"spread"`
	// Samples is how many answers the window holds.
	Samples int   `json:"samples"`
	Stamp   Stamp `json:"stamp"`
	// At is when the last answer came, by the clock of the node that asked.
	At time.Time `json:"at"`
}

// Bandwidth is what the devices that lead to other nodes carry, all of them together.
type Bandwidth struct {
	// Sent and Received are in use by everything on the node, a mean of the last seconds.
	Sent     Rate `json:"sent"`
	Received Rate `json:"received"`
	// Capacity is what the devices can carry in each direction; 0: they do not all tell.
	Capacity Rate `json:"capacity,omitempty"`
}

// Spare is what is left in the direction that has less; false: the capacity is not known.
func (b Bandwidth) Spare() (Rate, bool) {
	return max(0, b.Capacity-max(b.Sent, b.Received)), b.Capacity > 0
}

// Location tells where a pod went in its last move.
type Location struct {
	// Origin is the UID of the first pod of the lineage: it survives every move.
	Origin string `json:"origin"`
	// Pod is the pod object that runs now.
	Pod PodID `json:"pod"`
	// Node is where it runs.
	Node NodeID `json:"node"`
	// From is where it came from.
	From NodeID `json:"from"`
	// Epoch orders the moves of one lineage: of two locations the greater epoch is right.
	Epoch uint64 `json:"epoch"`
	// Migration is the name of the PodMigration that records the move.
	Migration string `json:"migration"`
	// At is when the move was committed.
	At time.Time `json:"at"`
}

// NodeState is all that one node tells the others about itself.
type NodeState struct {
	Node NodeID `json:"node"`
	// Phase is Joining, Normal or Leaving; empty, from an agent that does not tell: Normal.
	Phase Phase `json:"phase,omitempty"`
	// Address is the node's address for agents, host only.
	Address string `json:"address"`
	// BootID is the kernel's boot ID: when it changes, nothing from before is alive.
	BootID string `json:"bootID"`
	Load   Load   `json:"load"`
	// PodAddress is where the pod path to this node ends, host only; empty: nowhere.
	PodAddress string `json:"podAddress,omitempty"`
	// Routes holds the measured route time to every other node by the node path, PodRoutes by
	// the pod path.
	Routes    map[NodeID]RouteTime `json:"routes,omitempty"`
	PodRoutes map[NodeID]RouteTime `json:"podRoutes,omitempty"`
	// RoutesAt is what their At are told relative to, by the node's clock: at Load.At each
	// measurement was as old as it had been then, until the node says otherwise. Zero: Load.At.
	RoutesAt time.Time `json:"routesAt,omitzero"`
	// Pods lists the pods of the node that have not ended, in the order of ComparePods.
	Pods []PodID `json:"pods,omitempty"`
	// Silent lists the nodes that answer none of this one's probes, by the node path, in order.
	Silent []NodeID `json:"silent,omitempty"`
	// Bandwidth of the node; nil: not known, or not yet.
	Bandwidth *Bandwidth `json:"bandwidth,omitempty"`
	// Ends lists pods of the node that talk, by their first address; Edges what its workloads have
	// carried most of, the most first.
	Ends  []End  `json:"ends,omitempty"`
	Edges []Edge `json:"edges,omitempty"`
	// Suffering lists the containers in contention now, tight or severe, one by resource.
	Suffering []Contention `json:"suffering,omitempty"`
	// CanRestore is empty when this node can take a moved pod, else the reason why not.
	CannotRestore string `json:"cannotRestore,omitempty"`
	// CPU is what its processors offer.
	CPU CPU `json:"cpu,omitzero"`
	// Version grows with every change, so that of two states the newer is known.
	Version uint64 `json:"version"`
}

// Phase is where a node is in its life.
type Phase string

// The phases. The first three a node says of itself, the others are what it is held for:
// internal/lifecycle says when.
const (
	Joining   Phase = "joining"   // its load and what it can do are not known yet
	Normal    Phase = "normal"    //
	Leaving   Phase = "leaving"   // announced: nothing is placed on it any more
	Suspected Phase = "suspected" // no member any more, and nobody knows why
	Dead      Phase = "dead"      // its kernel answers nobody either
	Left      Phase = "left"      // it is gone as it had announced: everybody forgets it
)

// Phases lists all of them.
var Phases = []Phase{Joining, Normal, Leaving, Suspected, Dead, Left}

// RoutesBy gives the route times by one of the paths.
func (s *NodeState) RoutesBy(p Path) map[NodeID]RouteTime {
	if p == PathPod {
		return s.PodRoutes
	}
	return s.Routes
}

// CPU is what the processors of a node offer to programs: see internal/cpufeature.
type CPU struct {
	// Architecture is Go's name for it.
	Architecture string `json:"architecture,omitempty"`
	// Features are bits in hexadecimal; empty: not known.
	Features string `json:"features,omitempty"`
}

// Resource is one that the kernel keeps pressure stall information of, named as the kernel
// names it.
type Resource string

// The resources.
const (
	OnCPU    Resource = "cpu"
	OnMemory Resource = "memory"
	OnIO     Resource = "io"
)

// Grade says how bad contention is.
type Grade string

// The grades: internal/pressure says what each of them takes.
const (
	Fine   Grade = "fine"
	Tight  Grade = "tight"  // told, and nothing else
	Severe Grade = "severe" // moves a pod
)

// Contention is one container that others keep from a resource more than they should.
type Contention struct {
	Pod       PodID  `json:"pod"`
	Container string `json:"container"`
	// Resource is what it is kept from; empty, from an agent that does not tell: CPU.
	Resource Resource `json:"resource,omitempty"`
	// Grade is never Fine; empty, from an agent that does not tell: Severe.
	Grade Grade `json:"grade,omitempty"`
	// Wait is the stall that others cause, 0..1: see internal/pressure.
	Wait float64 `json:"wait"`
	// Since is when it crossed the trigger of its grade.
	Since time.Time `json:"since"`
}

// Severe says whether it is bad enough to move a pod. A grade that is not known is not.
func (c Contention) Severe() bool { return c.Grade == Severe || c.Grade == "" }
