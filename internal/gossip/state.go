package gossip

import (
	"strconv"
	"time"

	"github.com/drover-project/drover/internal/model"
)

func (s *store) ingestState(e *nodeEntry, r record, now time.Time) (slot, uint64, result) {
	at := slot{kindState, r.origin, ""}
	if e.state != nil && r.version <= e.version {
		return at, r.version, versus(r.version, e.version)
	}
	var body stateBody
	if s.codec.decode(r.body, &body) != nil || body.Parts < 0 || body.Parts > maxParts {
		return at, 0, malformed
	}
	if body.Node != r.origin {
		return at, 0, wrongOrigin
	}
	if body.Version != r.version {
		return at, 0, malformed
	}
	e.state, e.raw, e.version, e.received, e.merged = &body, r.raw, r.version, now, nil
	return at, r.version, accepted
}

func (s *store) ingestRoutes(e *nodeEntry, r record) (slot, uint64, result) {
	var body routesBody
	if s.codec.decode(r.body, &body) != nil || body.Part < 0 || body.Part >= body.Parts || body.Parts > maxParts {
		return slot{}, 0, malformed
	}
	at := slot{kindRoutes, r.origin, strconv.Itoa(body.Part)}
	if old, ok := e.parts[body.Part]; ok && r.version <= old.version {
		return at, r.version, versus(r.version, old.version)
	}
	e.parts[body.Part] = partEntry{routesBody: body, raw: r.raw, version: r.version}
	e.merged = nil
	if r.version > e.newestPart {
		e.newestPart = r.version
		for i := range e.parts {
			if i >= body.Parts {
				delete(e.parts, i)
			}
		}
	}
	return at, r.version, accepted
}

func versus(got, known uint64) result {
	if got == known {
		return duplicate
	}
	return stale
}

// whole puts the state and the parts of its routes together. Where two parts of different
// age name one peer, the newer is right.
func (e *nodeEntry) whole() *model.NodeState {
	if e.merged != nil || e.state == nil {
		return e.merged
	}
	out := e.state.NodeState
	out.Routes, out.PodRoutes = nil, nil
	if e.state.Parts > 0 {
		newest := map[model.NodeID]partEntry{}
		for _, p := range e.parts {
			for peer := range eachPeer(p.Routes, p.PodRoutes) {
				if have, ok := newest[peer]; !ok || p.version > have.version {
					newest[peer] = p
				}
			}
		}
		out.Routes, out.PodRoutes = map[model.NodeID]model.RouteTime{}, map[model.NodeID]model.RouteTime{}
		for peer, p := range newest {
			if r, has := p.Routes[peer]; has {
				out.Routes[peer] = r
			}
			if r, has := p.PodRoutes[peer]; has {
				out.PodRoutes[peer] = r
			}
		}
	}
	e.merged = &out
	return e.merged
}
