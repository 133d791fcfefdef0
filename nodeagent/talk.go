package nodeagent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
	"github.com/drover-project/drover/nodeagent/measure"
)

// lookAtTraffic tells who talks to whom at now, or why that is not known.
func (a *agent) lookAtTraffic(now time.Time) (traffic.Report, string) {
	if !a.running.Load() {
		return traffic.Report{}, a.unready()
	}
	r := a.conversations.Report()
	if why := a.unheard(now, r.At); why != "" {
		return traffic.Report{}, why
	}
	r.Links = a.links.Links()
	return r, ""
}

// unheard says why connections are not known at now; empty: they are.
func (a *agent) unheard(now, at time.Time) string {
	if why := a.deaf.Load(); why != nil {
		return "connections are not followed here: " + *why
	}
	switch age := now.Sub(at); {
	case at.IsZero():
		return "connections were not read yet: the first reading is due in a moment"
	case age > measure.ConversationWindow:
		return fmt.Sprintf("connections were last read %v ago: the agent's log says why", age.Round(time.Second))
	}
	return ""
}

// lookAtRoutes tells the ways to the other nodes at now: what probes take, and what connections
// have taken.
func (a *agent) lookAtRoutes(now time.Time) (traffic.Routes, string) {
	if !a.running.Load() {
		return traffic.Routes{}, a.unready()
	}
	peers, at := a.conversations.Peers()
	r := traffic.Routes{At: now, Unknown: a.unheard(now, at), Routes: []traffic.Route{}}
	if r.Unknown != "" {
		peers = nil
	}
	ways := map[model.NodeID]traffic.Route{}
	for id, t := range a.routes.Snapshot() {
		ways[id] = traffic.Route{Peer: id, Time: &t}
	}
	for _, p := range peers {
		way := ways[p.Node]
		way.Peer, way.RoundTrips = p.Node, p.RoundTrips
		if way.Time != nil || len(way.RoundTrips) > 0 {
			ways[p.Node] = way
		}
	}
	for _, way := range ways {
		r.Routes = append(r.Routes, way)
	}
	slices.SortFunc(r.Routes, func(a, b traffic.Route) int { return cmp.Compare(a.Peer, b.Peer) })
	return r, ""
}
