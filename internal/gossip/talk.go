package gossip

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"net/netip"
	"slices"

	"github.com/drover-project/drover/internal/deadband"
	"github.com/drover-project/drover/internal/edges"
	"github.com/drover-project/drover/internal/model"
)

// talking is an end, which goes by its first address, or an edge, which goes by a hash of both its
// workloads.
type talking struct {
	Of model.Workload `json:"w"`
	// Also are the other addresses of an end.
	Also []netip.Addr `json:"a,omitempty"`
	// With and Volume are an edge's.
	With   model.Workload `json:"p,omitempty"`
	Volume model.Bytes    `json:"v,omitempty"`
}

// maxAddresses is how many addresses an end may have.
const maxAddresses = 4

// edgeName is what an edge goes by.
func edgeName(of, with model.Workload) string {
	sum := sha256.Sum256([]byte(of + "\x00" + with))
	return hex.EncodeToString(sum[:6])
}

// talkingOf are ends and edges of a state as they travel.
func talkingOf(s *model.NodeState) map[string]talking {
	if len(s.Ends)+len(s.Edges) == 0 {
		return nil
	}
	all := make(map[string]talking, len(s.Ends)+len(s.Edges))
	say := func(name string, t talking) {
		if soundTalk(name, t) { // others would refuse all of the part
			all[name] = t
		}
	}
	for _, e := range s.Ends {
		if n := len(e.Addresses); n > 0 {
			say(e.Addresses[0].String(), talking{Of: e.Workload, Also: e.Addresses[1:min(n, maxAddresses)]})
		}
	}
	for _, e := range s.Edges {
		say(edgeName(e.Local, e.Remote), talking{Of: e.Local, With: e.Remote, Volume: e.Volume})
	}
	return all
}

// soundTalk tells whether it is what talkingOf makes.
func soundTalk(name string, t talking) bool {
	if t.With != "" {
		return edges.Tellable(t.Of, t.With) && name == edgeName(t.Of, t.With) && t.Volume > 0 && t.Volume <= edges.MaxVolume && len(t.Also) == 0
	}
	sound := func(a netip.Addr) bool { return a.IsGlobalUnicast() && a.Zone() == "" && !a.Is4In6() }
	first, err := netip.ParseAddr(name)
	return err == nil && t.Of.Valid() && len(t.Of) <= edges.MaxNames && first.String() == name && sound(first) && t.Volume == 0 &&
		len(t.Also) < maxAddresses && !slices.ContainsFunc(t.Also, func(a netip.Addr) bool { return !sound(a) })
}

// talkOf takes them apart. What is more than a node may tell does not count.
func talkOf(all map[string]talking) (ends []model.End, heaviest []model.Edge) {
	for name, t := range all {
		if t.With != "" {
			heaviest = append(heaviest, model.Edge{Local: t.Of, Remote: t.With, Volume: t.Volume})
			continue
		}
		first, _ := netip.ParseAddr(name) // it was sound
		ends = append(ends, model.End{Workload: t.Of, Addresses: append([]netip.Addr{first}, t.Also...)})
	}
	edges.SortEdges(heaviest)
	edges.SortEnds(ends)
	return slices.Clone(ends[:min(len(ends), edges.MostEnds)]), slices.Clone(heaviest[:min(len(heaviest), edges.Most)])
}

// otherTalk tells whether it is worth saying again.
func otherTalk(said, now talking) bool {
	if said.With == "" || now.With == "" {
		return said.With != now.With || said.Of != now.Of || !slices.Equal(said.Also, now.Also)
	}
	return deadband.Edge(said.Volume, now.Volume) // of the same name, and so of the same workloads
}

// weightOf is what talk is worth: whose a pod is more than what it has carried.
func weightOf(t talking) float64 {
	if t.With == "" {
		return math.Inf(1)
	}
	return float64(t.Volume)
}

func sameTalk(a, b model.NodeState) bool {
	sameEnd := func(x, y model.End) bool { return x.Workload == y.Workload && slices.Equal(x.Addresses, y.Addresses) }
	return slices.EqualFunc(a.Ends, b.Ends, sameEnd) && slices.Equal(a.Edges, b.Edges)
}
