// Package blame tells who keeps a container from the CPU: of the time that it waits, the
// share that is owed to each neighbour, to its own threads, to quotas and to the node.
//
// It is pure: it is fed times and figures, and keeps no clock.
package blame

import (
	"cmp"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/health"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// Name is a container by the names that its users know.
type Name struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Container string `json:"container"`
}

// Waits is what one container ran and waited in some time, summed over its threads.
type Waits struct {
	Run  time.Duration // on a CPU
	Wait time.Duration // whatever the cause; what follows are its parts

	Own        time.Duration // other threads of the container itself ran
	Quota      time.Duration // the container's or its pod's CPU quota was used up
	NodeQuota  time.Duration // a quota above the pods was used up: that of the whole node
	Node       time.Duration // what belongs to no container ran: the kernel, daemons, sandboxes
	Neighbours map[Name]time.Duration
	Steal      time.Duration // a hypervisor took the CPU from whoever ran
	SoftIRQ    time.Duration // the kernel served soft interrupts on the time of whoever ran
}

// Neighbour is the sum of what is owed to neighbours.
func (w Waits) Neighbour() (sum time.Duration) {
	for _, d := range w.Neighbours {
		sum += d
	}
	return sum
}

// Idle is the rest: nobody ran, and the CPU was about to come to the container.
func (w Waits) Idle() time.Duration {
	return max(0, w.Wait-w.Own-w.Quota-w.NodeQuota-w.Node-w.Neighbour()-w.Steal-w.SoftIRQ)
}

// Cause is a part of a wait, in a word.
type Cause string

// The causes: what each of them is, Waits says.
const (
	ByNeighbours Cause = "neighbours"
	ByOwn        Cause = "own"
	ByQuota      Cause = "quota"
	ByNodeQuota  Cause = "node-quota"
	ByNode       Cause = "node"
	BySteal      Cause = "steal"
	BySoftIRQ    Cause = "softirq"
	ByIdle       Cause = "idle"
)

// Causes gives the wait by its causes; all of them are there.
func (w Waits) Causes() map[Cause]time.Duration {
	return map[Cause]time.Duration{
		ByNeighbours: w.Neighbour(), ByOwn: w.Own, ByQuota: w.Quota,
		ByNodeQuota: w.NodeQuota, ByNode: w.Node, BySteal: w.Steal, BySoftIRQ: w.SoftIRQ, ByIdle: w.Idle(),
	}
}

// Interrupt takes out of what is owed to whoever ran the parts (0..1) of that time in which a
// hypervisor had taken the CPU, and in which soft interrupts were served.
func (w *Waits) Interrupt(steal, softirq float64) {
	steal, softirq = max(0, min(1, steal)), max(0, softirq)
	softirq = min(softirq, 1-steal)
	owed := w.Own + w.Node + w.Neighbour()
	left := func(d time.Duration) time.Duration { return time.Duration(float64(d) * (1 - steal - softirq)) }
	w.Own, w.Node = left(w.Own), left(w.Node)
	for n, d := range w.Neighbours {
		w.Neighbours[n] = left(d)
	}
	w.Steal += time.Duration(float64(owed) * steal)
	w.SoftIRQ += time.Duration(float64(owed) * softirq)
}

// Add adds what came later, or is part of the same.
func (w *Waits) Add(more Waits) {
	w.Run += more.Run
	w.Wait += more.Wait
	w.Own += more.Own
	w.Quota += more.Quota
	w.NodeQuota += more.NodeQuota
	w.Node += more.Node
	w.Steal += more.Steal
	w.SoftIRQ += more.SoftIRQ
	for n, d := range more.Neighbours {
		w.Owe(n, d)
	}
}

// Owe adds what is owed to one neighbour.
func (w *Waits) Owe(to Name, d time.Duration) {
	if w.Neighbours == nil {
		w.Neighbours = map[Name]time.Duration{}
	}
	w.Neighbours[to] += d
}

// Neighbour is what is owed to one neighbour, in seconds per second.
type Neighbour struct {
	Name
	Wait float64 `json:"wait"`
}

// Shares are Waits in seconds per second: 0.5 is half a second waited every second. Run is in
// cores. The greatest neighbour is first.
type Shares struct {
	Name
	// Suffering: something is severe. Grades has it for every resource.
	Suffering bool                           `json:"suffering"`
	Grades    map[model.Resource]model.Grade `json:"grades"`
	Run       float64                        `json:"run"`
	Wait      float64                        `json:"wait"`
	Own       float64                        `json:"own"`
	Quota     float64                        `json:"quota"`
	NodeQuota float64                        `json:"nodeQuota"`
	Node      float64                        `json:"node"`
	Steal     float64                        `json:"steal"`
	SoftIRQ   float64                        `json:"softirq"`
	Idle      float64                        `json:"idle"`
	// Evidence is the container's own: what it tells of memory and IO.
	Evidence   pressure.Evidence `json:"evidence"`
	Neighbours []Neighbour       `json:"neighbours"`
}

// Report is who keeps whom from the CPU on one node, ordered by name.
type Report struct {
	At         time.Time `json:"at"`
	Containers []Shares  `json:"containers"`
	// Unwell are those that show something of ill health, also such as do not run now.
	Unwell []Unwell `json:"unwell"`
	// Steal is what a hypervisor took from the node, and SoftIRQ what the kernel needed for
	// soft interrupts, in CPU seconds per second, whoever waited.
	Steal   float64 `json:"steal"`
	SoftIRQ float64 `json:"softirq"`
}

// Unwell is a container with what it shows of itself.
type Unwell struct {
	Name
	health.Signs
}

// Per divides by the wall time in which it was waited.
func (w Waits) Per(wall time.Duration, name Name) Shares {
	rate := func(d time.Duration) float64 { return d.Seconds() / wall.Seconds() }
	s := Shares{Name: name, Run: rate(w.Run), Wait: rate(w.Wait), Own: rate(w.Own), Quota: rate(w.Quota),
		NodeQuota: rate(w.NodeQuota), Node: rate(w.Node), Steal: rate(w.Steal), SoftIRQ: rate(w.SoftIRQ),
		Idle: rate(w.Idle()), Neighbours: []Neighbour{}}
	for n, d := range w.Neighbours {
		s.Neighbours = append(s.Neighbours, Neighbour{n, rate(d)})
	}
	slices.SortFunc(s.Neighbours, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(b.Wait, a.Wait), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	return s
}

// Window sums up what was fed lately. Its zero value has no length: see NewWindow.
type Window struct {
	length  time.Duration
	samples []sample // oldest first
}

type sample struct {
	at    time.Time // its end
	wall  time.Duration
	waits Waits
}

// NewWindow gives an empty window.
func NewWindow(length time.Duration) *Window { return &Window{length: length} }

// Feed takes what was waited in the wall time before now, and forgets what had ended before
// the window begins.
func (w *Window) Feed(now time.Time, wall time.Duration, waits Waits) {
	w.samples = append(w.samples, sample{now, wall, waits})
	start := now.Add(-w.length)
	w.samples = slices.DeleteFunc(w.samples, func(s sample) bool { return !s.at.After(start) })
}

// Sum gives all of the window, and its wall time.
func (w *Window) Sum() (waits Waits, wall time.Duration) {
	for _, s := range w.samples {
		waits.Add(s.waits)
		wall += s.wall
	}
	return waits, wall
}

// Who owes less than that of a wait, or of a second, is nobody's aggressor: whoever is on a
// CPU at all keeps others waiting now and then.
const (
	aggressorPart = 0.1
	aggressorWait = 0.02
)

// Aggressors are the neighbours who owe a good part of the wait, the greatest first.
func (s Shares) Aggressors() []Neighbour {
	var all []Neighbour
	for _, n := range s.Neighbours {
		if n.Wait >= aggressorWait && n.Wait >= aggressorPart*s.Wait {
			all = append(all, n)
		}
	}
	return all
}
