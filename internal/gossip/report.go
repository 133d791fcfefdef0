package gossip

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peak"
)

// report is what one node says of itself, in records that are said apart:
//
//	registration   what changes rarely; with it a life of the agent begins
//	load           said again every few seconds: it vouches for all the others as they stand
//	suffering      the containers in contention
//	routes, pods   in parts
//	talk           in parts: which pods talk, and who to whom; of most nodes few, of some none
type report struct {
	registration *registration
	load         *load
	suffering    *suffering
	routes       map[int]*part[waysTo]
	pods         map[int]*part[podName]
	talk         map[int]*part[talking]
	// standing is all but the load, put together and immutable; nil when it must be made anew.
	standing *model.NodeState
}

type registration struct {
	kept
	registrationBody
}

type load struct {
	kept
	saidLoad
	received time.Time
	recent   peak.Excess
}

type suffering struct {
	kept
	list []model.Contention
}

func newReport() report {
	return report{routes: map[int]*part[waysTo]{}, pods: map[int]*part[podName]{}, talk: map[int]*part[talking]{}}
}

func (p *report) empty() bool {
	for range p.each {
		return false
	}
	return true
}

// each goes through its records.
func (p *report) each(yield func(*kept) bool) {
	if p.registration != nil && !yield(&p.registration.kept) {
		return
	}
	if p.load != nil && !yield(&p.load.kept) {
		return
	}
	if p.suffering != nil && !yield(&p.suffering.kept) {
		return
	}
	for _, r := range p.routes {
		if !yield(&r.kept) {
			return
		}
	}
	for _, r := range p.pods {
		if !yield(&r.kept) {
			return
		}
	}
	for _, r := range p.talk {
		if !yield(&r.kept) {
			return
		}
	}
}

// received is when its load came; zero: none has, and nothing vouches for the rest.
func (p *report) received() time.Time {
	if p.load == nil {
		return time.Time{}
	}
	return p.load.received
}

// has finds the very bytes of a record among those of reports, which were verified: each
// is heard several times, and to verify and decode it again is dear.
func (s *store) has(r record) (slot, bool) {
	if r.kind == kindLoad {
		for _, c := range s.keys[r.prefix()] {
			if l := s.nodes[c.slot.origin].load; l != nil && bytes.Equal(l.raw, r.raw) {
				return l.slot, true
			}
		}
		return slot{}, false
	}
	e := s.nodes[r.origin]
	if e == nil {
		return slot{}, false
	}
	for k := range e.report.each {
		if k.version == r.version && bytes.Equal(k.raw, r.raw) {
			return k.slot, true
		}
	}
	return slot{}, false
}

// ingestReport takes in a record that its origin has signed.
func (s *store) ingestReport(e *nodeEntry, r record, now time.Time) (slot, uint64, result) {
	if e.forgotten.holds(r.version, now) {
		return slot{}, r.version, stale
	}
	if reg := e.registration; reg != nil && r.kind != kindRegistration && r.version < reg.Since {
		return slot{}, r.version, stale
	}
	switch r.kind {
	case kindRegistration:
		return s.ingestRegistration(e, r)
	case kindLoad:
		return s.ingestLoad(e, r, now)
	case kindSuffering:
		return s.ingestSuffering(e, r)
	case kindRoutes:
		return ingestPart(s, e, r, e.routes, maxItems, func(string, waysTo) bool { return true })
	case kindTalk:
		return ingestPart(s, e, r, e.talk, edges.MostEnds+edges.Most, soundTalk)
	default:
		return ingestPart(s, e, r, e.pods, maxItems, func(_ string, n podName) bool {
			return n.Namespace != "" && n.Name != "" && len(n.Namespace) <= maxName && len(n.Name) <= maxName
		})
	}
}

func (s *store) ingestRegistration(e *nodeEntry, r record) (slot, uint64, result) {
	at := slot{kindRegistration, r.origin, ""}
	if old := e.registration; old != nil && r.version <= old.version {
		return at, r.version, versus(r.version, old.version)
	}
	var body registrationBody
	if s.codec.decode(r.body, &body) != nil {
		return at, 0, malformed
	}
	if body.Node != r.origin {
		return at, 0, wrongOrigin
	}
	if body.Version != r.version || body.Since > r.version {
		return at, 0, malformed
	}
	body.NodeState = registered(body.NodeState)
	e.registration = &registration{keep(at, r), body}
	s.put(&e.registration.kept)
	s.dropBefore(e, body.Since)
	e.standing = nil
	return at, r.version, accepted
}

// dropBefore forgets what an earlier life of a node's agent said.
func (s *store) dropBefore(e *nodeEntry, since uint64) {
	if l := e.load; l != nil && l.version < since {
		s.remove(&l.kept)
		e.load = nil
	}
	if l := e.suffering; l != nil && l.version < since {
		s.remove(&l.kept)
		e.suffering = nil
	}
	dropParts(s, e.routes, since)
	dropParts(s, e.pods, since)
	dropParts(s, e.talk, since)
}

func dropParts[V any](s *store, parts map[int]*part[V], since uint64) {
	for i, p := range parts {
		if p.version < since {
			s.remove(&p.kept)
			delete(parts, i)
		}
	}
}

func (s *store) ingestLoad(e *nodeEntry, r record, now time.Time) (slot, uint64, result) {
	at := slot{kindLoad, r.origin, ""}
	if old := e.load; old != nil && r.version <= old.version {
		return at, r.version, versus(r.version, old.version)
	}
	said, ok := decodeLoad(r.raw[0]&loadFlags, r.body, r.version)
	if !ok {
		return at, 0, malformed
	}
	if e.registration != nil {
		said.load.Allocatable = e.registration.Load.Allocatable
	}
	next := &load{kept: keep(at, r), saidLoad: said, received: now}
	if old := e.load; old != nil {
		next.recent = old.recent.Follow(old.load, said.load, now)
	}
	e.load = next
	s.put(&e.load.kept)
	return at, r.version, accepted
}

func (s *store) ingestSuffering(e *nodeEntry, r record) (slot, uint64, result) {
	at := slot{kindSuffering, r.origin, ""}
	if old := e.suffering; old != nil && r.version <= old.version {
		return at, r.version, versus(r.version, old.version)
	}
	list, err := s.codec.decodeSuffering(r.body)
	if err != nil {
		return at, 0, malformed
	}
	next := &suffering{keep(at, r), list}
	e.suffering, e.standing = next, nil
	s.put(&next.kept)
	return at, r.version, accepted
}

func ingestPart[V any](s *store, e *nodeEntry, r record, parts map[int]*part[V], most int, sound func(string, V) bool) (slot, uint64, result) {
	if len(r.raw) > packetRecord {
		return slot{}, 0, oversized
	}
	var body partBody[V]
	if s.codec.decode(r.body, &body) != nil || !body.wellFormed() || len(body.Items) > most {
		return slot{}, 0, malformed
	}
	for name, v := range body.Items {
		if !sound(name, v) {
			return slot{}, 0, malformed
		}
	}
	at := slot{r.kind, r.origin, strconv.Itoa(body.Part)}
	if old, ok := parts[body.Part]; ok && r.version <= old.version {
		return at, r.version, versus(r.version, old.version)
	}
	next := &part[V]{keep(at, r), body}
	parts[body.Part], e.standing = next, nil
	s.put(&next.kept)
	return at, r.version, accepted
}

// whole puts the records together. ok is false as long as there is no registration.
func (p *report) whole() (state model.NodeState, ok bool) {
	if p.registration == nil {
		return model.NodeState{}, false
	}
	if p.standing == nil {
		p.standing = p.stand()
	}
	state = *p.standing
	if l := p.load; l != nil {
		allocatable, capacity := state.Load.Allocatable, state.Bandwidth
		state.Load, state.Bandwidth = l.load, l.bandwidth
		state.Load.Allocatable = allocatable
		if l.bandwidth != nil && capacity != nil {
			b := *l.bandwidth
			b.Capacity = capacity.Capacity
			state.Bandwidth = &b
		}
		state.Version = max(state.Version, l.version)
	}
	return state, true
}

// stand puts together what a load vouches for.
func (p *report) stand() *model.NodeState {
	s := p.registration.NodeState
	for k := range p.each {
		if k.slot.kind != kindLoad {
			s.Version = max(s.Version, k.version)
		}
	}
	if p.suffering != nil {
		s.Suffering = p.suffering.list
	}
	if len(p.pods) > 0 {
		for uid, n := range together(p.pods) {
			s.Pods = append(s.Pods, model.PodID{Namespace: n.Namespace, Name: n.Name, UID: uid})
		}
		slices.SortFunc(s.Pods, model.ComparePods)
	}
	s.Ends, s.Edges = talkOf(together(p.talk))
	if len(p.routes) == 0 {
		return &s
	}
	// Any moment would do: an age is what counts, and it is kept. This one reads well.
	s.RoutesAt = time.Unix(0, int64(s.Version)).UTC()
	s.Routes, s.PodRoutes = map[model.NodeID]model.RouteTime{}, map[model.NodeID]model.RouteTime{}
	for peer, w := range together(p.routes) {
		peer := model.NodeID(peer)
		if w.Node != nil {
			s.Routes[peer] = w.Node.measured(s.RoutesAt)
		}
		if w.Pod != nil {
			s.PodRoutes[peer] = w.Pod.measured(s.RoutesAt)
		}
	}
	return &s
}

func (w *way) measured(told time.Time) model.RouteTime {
	return model.RouteTime{RTT: w.RTT, Spread: w.Spread, Samples: w.Samples, Stamp: w.Stamp, At: told.Add(-w.Behind)}
}
