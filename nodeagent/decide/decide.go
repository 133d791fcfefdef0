// Package decide answers "stay or go": which of the pods that suffer on this node shall
// move, and where to, or why none.
//
// The formula (internal/placement) ranks where to go. Whether to go is a question of its
// own: a pod goes only when it is predicted to be clearly better off there. Decide is a pure
// function; Loop asks it again and again.
package decide

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

// Config holds the limits of a decision.
type Config struct {
	// Margin: a pod goes only where its predicted wait is at most this part of its wait
	// here: 2 is half. At least 1.
	Margin float64
	// Headroom is the CPU that must still be idle on the target with the pod on it.
	Headroom model.Cores
	// CoolDown is how long a pod is left alone after a move, or the try of one.
	CoolDown time.Duration
	// FrozenBase and FrozenRate predict how long a move freezes a pod: FrozenBase, and its
	// memory at FrozenRate bytes a second.
	FrozenBase time.Duration
	FrozenRate model.Bytes
}

// Default gives the limits used where none are set. The frozen time is that of runc and CRIU
// with images in memory.
func Default() Config {
	return Config{
		Margin:     2,
		Headroom:   0.1,
		CoolDown:   time.Minute,
		FrozenBase: 300 * time.Millisecond,
		FrozenRate: 400 * model.MiB,
	}
}

// Validate says what is wrong with the limits, if anything is.
func (c Config) Validate() error {
	switch {
	case !(c.Margin >= 1) || math.IsInf(c.Margin, 0):
		return fmt.Errorf("migration margin is %v: want a factor of at least 1", c.Margin)
	case !(c.Headroom >= 0):
		return fmt.Errorf("migration headroom is %v cores: want at least 0", c.Headroom)
	case c.CoolDown < 0:
		return fmt.Errorf("migration cool-down is %v: want at least 0", c.CoolDown)
	case c.FrozenBase <= 0 || c.FrozenRate <= 0:
		return fmt.Errorf("frozen time is %v and 1 s for %d bytes: both must be greater than 0", c.FrozenBase, c.FrozenRate)
	}
	return nil
}

// Pod is a pod that suffers, with what has to be known to judge it.
type Pod struct {
	ID        model.PodID
	Container string // the one that suffers
	// Origin is the UID of the first pod of its lineage; its own if it never moved.
	Origin string
	// OptedIn: its annotation drover.dev/migrate is "true". Wrapped: its RuntimeClass leads
	// to drover-runc. Containers is how many it has, init containers that go on included.
	OptedIn, Wrapped bool
	Containers       int
	// Obstacle is why it cannot be moved now ("it is being deleted"); empty when it can.
	Obstacle string
	Requests model.Resources
	Priority int32
	// Barred are the nodes that its scheduler would not bind it to, with why.
	Barred map[model.NodeID]string
	// Peers are the nodes it talks to, by weight; may be empty (placement.Viewpoint).
	// PeersBy says how they are known ("observed").
	Peers   map[model.NodeID]float64
	PeersBy string

	// Resource is what it suffers for most. Wait is the share of time for which others keep
	// it from that (internal/pressure); Also is that of every other resource that it suffers
	// for severely; Since is when Wait crossed the trigger; Run is the CPU it uses; Memory what it holds.
	Resource model.Resource
	Wait     float64
	Also     map[model.Resource]float64
	Since    time.Time
	Run      model.Cores
	Memory   model.Bytes
	// Unwell is what it has begun to show of ill health since then (internal/health); empty: nothing.
	Unwell string
}

// Input is everything a decision is made from.
type Input struct {
	Here model.NodeID
	// Suffering are the local pods whose contention is severe, opted in or not.
	Suffering []Pod
	// View is the cluster as it is known here, this node included; Params are those of the
	// formula that ranks the candidates.
	View   view.Snapshot
	Params placement.Params
	// Allocatable is what the Node objects give at most, whatever the nodes themselves say; one
	// that is not in it gives nothing.
	Allocatable map[model.NodeID]model.Resources
	// Coming is what open moves bring to a node that its own load does not tell yet.
	Coming map[model.NodeID]Coming
	// Moving is what is on its way from here already ("shop/web-0"); empty: nothing.
	Moving string
	// Tried is when a move of a lineage was last tried from here, by Origin. Moves that
	// were committed anywhere are in the View's locations.
	Tried map[string]time.Time
}

// Coming is what the pods on their way to a node ask for there, and what they are held to use.
type Coming struct{ Requests, Use model.Resources }

// Code is a verdict in a word.
type Code string

// The verdicts.
const (
	Go             Code = "Go"             // it shall move
	NotOptedIn     Code = "NotOptedIn"     // its owner has not allowed it
	CannotMove     Code = "CannotMove"     // it is of a kind, or in a state, that cannot be moved
	CoolingDown    Code = "CoolingDown"    // it, or its forebear, was moved a moment ago
	NoBetterNode   Code = "NoBetterNode"   // nowhere is it predicted to be clearly better off
	MoveInProgress Code = "MoveInProgress" // another pod is moving from here
	OtherFirst     Code = "OtherFirst"     // another pod's move relieves more for its cost
	UnknownHere    Code = "UnknownHere"    // this node's own load is not known
)

// Verdict is what was decided of one pod, with the figures.
type Verdict struct {
	Pod     model.PodID
	Code    Code
	Message string // a sentence without a full stop
}

// Move is a decision to go.
type Move struct {
	Pod      Pod
	From, To model.NodeID
	// Score is the target's, with all its parts.
	Score placement.Score
	// Predicted is the wait there, in the unit of Pod.Wait; Frozen how long the move
	// freezes the pod.
	Predicted float64
	Frozen    time.Duration
	// Message is the reason in a sentence, without a full stop.
	Message string
}

// relief is how much wait the move saves for every second the pod is frozen.
func (m Move) relief() float64 { return (m.Pod.Wait - m.Predicted) / m.Frozen.Seconds() }

// Decision says which pod moves, and of every suffering pod why it does or does not.
type Decision struct {
	Move     *Move // nil: none
	Verdicts []Verdict
}

// size of relief, in steps of a fifth: what lies closer together than predictions are good for.
func (m Move) size() float64 { return math.Round(4 * math.Log2(m.relief())) }

// compareMoves puts those first that go first.
func compareMoves(a, b Move) int {
	shows := func(m Move) int { return min(1, len(m.Pod.Unwell)) }
	return cmp.Or(cmp.Compare(b.size(), a.size()), cmp.Compare(shows(b), shows(a)), cmp.Compare(b.relief(), a.relief()),
		cmp.Compare(b.Pod.Priority, a.Pod.Priority), cmp.Compare(a.Pod.ID.String(), b.Pod.ID.String()))
}

// Decide makes one decision at now, by the clock that took the View. At most one
// pod moves: the one whose move relieves most for its cost. Where that is about the same for several,
// one goes first that has begun to be unwell; of equals, the one of higher priority, then the first
// by name.
func Decide(config Config, in Input, now time.Time) Decision {
	var d Decision
	var moves []Move
	in.View.Nodes = foreseen(bounded(in.View.Nodes, in.Allocatable), in.Coming)
	for _, pod := range in.Suffering {
		move, code, message := judge(config, in, pod, now)
		if code == Go {
			moves = append(moves, move)
			continue
		}
		d.Verdicts = append(d.Verdicts, Verdict{pod.ID, code, message})
	}
	slices.SortStableFunc(moves, compareMoves)
	for i, m := range moves {
		switch {
		case in.Moving != "":
			d.Verdicts = append(d.Verdicts, Verdict{m.Pod.ID, MoveInProgress, in.Moving + " is being moved from here, one at a time: later perhaps " + m.Message})
		case i == 0:
			d.Move = &moves[0]
			d.Verdicts = append(d.Verdicts, Verdict{m.Pod.ID, Go, m.Message})
		default:
			d.Verdicts = append(d.Verdicts, Verdict{m.Pod.ID, OtherFirst, fmt.Sprintf("%s goes first: its move saves %.1f s of waiting for every second frozen, this one's %.1f",
				moves[0].Pod.ID, moves[0].relief(), m.relief())})
		}
	}
	slices.SortFunc(d.Verdicts, func(a, b Verdict) int { return cmp.Compare(a.Pod.String(), b.Pod.String()) })
	return d
}

// judge looks at one pod as if it were alone.
func judge(config Config, in Input, pod Pod, now time.Time) (Move, Code, string) {
	if code, message := movable(pod); code != Go {
		return Move{}, code, message
	}
	// A location carries another node's clock, which may be ahead.
	if age := now.Sub(lastMove(in, pod.Origin)).Abs(); age < config.CoolDown {
		return Move{}, CoolingDown, fmt.Sprintf("a move of it was made or tried %v ago: it is left alone for %v", age.Round(time.Second), config.CoolDown)
	}
	here := in.View.Nodes[in.Here].State.Load
	othersHere := othersShare(here, pod.Run)
	if pod.waits(model.OnCPU) && !(othersHere > 0) {
		return Move{}, UnknownHere, fmt.Sprintf("what others use of %s is not known: %.2f of %.2f cores used, %.2f by this pod", in.Here, here.Used.CPU, here.Allocatable.CPU, pod.Run)
	}
	frozen := config.FrozenBase + time.Duration(float64(max(0, pod.Memory))/float64(config.FrozenRate)*float64(time.Second))
	var against []string
	for _, score := range placement.Rank(in.Params, candidates(in, pod, now)) {
		there := in.View.Nodes[score.Node].State.Load
		if obstacle := unfit(config, in, pod, score, othersHere); obstacle != "" {
			if c, some := in.Coming[score.Node]; some {
				obstacle += fmt.Sprintf(" (with %.2f cores and %.2f GiB that are on their way there)", c.Use.CPU, c.Use.Memory.GiB())
			}
			against = append(against, string(score.Node)+": "+obstacle)
			continue
		}
		predicted := predict(stall{pod.Resource, pod.Wait}, there, othersHere)
		message := fmt.Sprintf("%s; it would be frozen for about %v", pod.compare(in, score.Node, othersHere), frozen.Round(10*time.Millisecond))
		if pod.Unwell != "" {
			message += "; since it waits " + pod.Unwell
		}
		if len(pod.Peers) > 0 {
			message += fmt.Sprintf("; route times count from its peers (%s)", pod.PeersBy)
		}
		return Move{pod, in.Here, score.Node, score, predicted, frozen, message}, Go, message
	}
	if len(against) == 0 {
		return Move{}, NoBetterNode, "there is no other node"
	}
	return Move{}, NoBetterNode, fmt.Sprintf("it waits %.2f s a second for %s here, but no node is clearly better: %s", pod.Wait, pod.Resource, strings.Join(against, "; "))
}

// compare tells how a pod fares here and would fare elsewhere.
func (p Pod) compare(in Input, to model.NodeID, othersHere float64) string {
	here, there := in.View.Nodes[in.Here].State.Load, in.View.Nodes[to].State.Load
	message := ""
	for i, s := range p.stalls() {
		predicted := predict(s, there, othersHere)
		switch {
		case i > 0:
			message += fmt.Sprintf("; for %s %.2f here, about %.2f there", s.resource, s.share, predicted)
		case s.resource == model.OnCPU:
			message = fmt.Sprintf("%s/%s waits %.2f s a second for the CPU of %s, where others use %.0f %% of %.2f cores; on %s, where they use %.0f %% of %.2f, it would wait about %.2f",
				p.ID, p.Container, s.share, in.Here, 100*othersHere, here.Allocatable.CPU, to, 100*othersShare(there, 0), there.Allocatable.CPU, predicted)
		default:
			message = fmt.Sprintf("%s/%s waits %.2f s a second for the %s of %s, for others; on %s, where %.2f of %.2f GiB are in use, it would wait about %.2f",
				p.ID, p.Container, s.share, s.resource, in.Here, to, there.Used.Memory.GiB(), there.Allocatable.Memory.GiB(), predicted)
		}
	}
	return message
}

// movable says whether a pod may and can be moved at all.
func movable(pod Pod) (Code, string) {
	switch {
	case !pod.OptedIn:
		return NotOptedIn, `it has not the annotation drover.dev/migrate: "true"`
	case !pod.Wrapped:
		return CannotMove, "its RuntimeClass is not drover"
	case pod.Containers != 1:
		return CannotMove, fmt.Sprintf("it has %d containers: only pods with one can be moved", pod.Containers)
	case pod.Obstacle != "":
		return CannotMove, pod.Obstacle
	}
	return Go, ""
}

// lastMove is the later of the last try from here and the last move anywhere.
func lastMove(in Input, origin string) time.Time {
	at := in.Tried[origin]
	if l, ok := in.View.Location(origin); ok && l.At.After(at) {
		at = l.At
	}
	return at
}
