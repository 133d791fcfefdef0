package simulate

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/arrivals"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/peers"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

// Share is the greatest part of its allocatable that is requested on any node, and on which.
type Share struct {
	Node  string  `json:"node"`
	Share float64 `json:"share"`
}

// Summary is what a placement is worth. Of several runs every figure is the mean, and the node of
// a Share that of the run with the greatest.
type Summary struct {
	Pods   int     `json:"pods"`
	Placed float64 `json:"placed"`
	// PerNode is how many of the pods each node got.
	PerNode map[string]float64 `json:"perNode"`
	// PerZone likewise; nodes without a zone are of zone "".
	PerZone map[string]float64 `json:"perZone"`
	// RouteMean and RouteP99 are over the placed pods with peers a route time to which is known,
	// Routes of them, in milliseconds: each pod's is the mean to its peers, weighted as placement does.
	// They are 0 where Routes is.
	RouteMean float64 `json:"routeMeanMs"`
	RouteP99  float64 `json:"routeP99Ms"`
	Routes    float64 `json:"routes"`
	// CPU and Memory are of all pods of the cluster.
	CPU    Share `json:"cpu"`
	Memory Share `json:"memory"`
	// Overshoot is, over all nodes whose load was measured, Measured of them, by how many cores what the
	// placed pods are held to use exceeds what was idle.
	Overshoot float64 `json:"overshootCores"`
	Measured  int     `json:"measuredNodes"`
	// Pairs are a placed pod and one of its peers each, both on nodes whose zones are known; of those
	// CrossZone are in different zones.
	Pairs     float64 `json:"pairs"`
	CrossZone float64 `json:"crossZonePairs"`
}

// judge holds placements against one yardstick, whatever their profiles' arguments are: the
// formula's defaults, but for routes, which count however old they are.
type judge struct {
	cluster *Cluster
	zones   map[string]string // by node
	survey  *placement.Survey
	view    view.Snapshot
	idle    map[string]model.Cores // of the nodes that were measured
	usual   model.Resources
}

func newJudge(c *Cluster, s view.Snapshot) *judge {
	p := placement.Defaults()
	usual := placement.NewSurvey(s, p, s.At).PodUse()
	p.StaleAfter = math.MaxInt64
	j := &judge{cluster: c, zones: map[string]string{}, survey: placement.NewSurvey(s, p, s.At), view: s, idle: map[string]model.Cores{}, usual: usual}
	for _, n := range c.Nodes {
		j.zones[n.Name] = zoneOf(n)
		if m := s.Nodes[model.NodeID(n.Name)]; m.Alive && !m.State.Load.At.IsZero() {
			j.idle[n.Name] = max(0, amounts(n.Status.Allocatable).CPU-m.Used(s.At).CPU)
		}
	}
	return j
}

// routes gives the placed pods' route times to their peers, where any is known, by the pods' places
// in the list.
func (j *judge) routes(f *fellows, all []Placement) map[int]time.Duration {
	to := make([]map[model.NodeID]float64, len(all))
	ways := map[model.NodeID]map[model.NodeID]placement.Route{} // by the peer's node
	for i, p := range all {
		if p.Node == "" {
			continue
		}
		// A malformed annotation has no peers.
		terms, _ := peers.Parse(p.Pod.Annotations[v1alpha1.AnnotationPeers])
		to[i], _ = peers.Nodes(p.Pod, terms, f.of(p.Pod.Namespace))
		for peer := range to[i] {
			if ways[peer] == nil {
				ways[peer] = map[model.NodeID]placement.Route{}
			}
			ways[peer][model.NodeID(p.Node)] = placement.Route{}
		}
	}
	// All ways to one node together: the survey computes them in one go.
	for peer, from := range ways {
		for node := range from {
			from[node] = j.survey.Route(node, peer)
		}
	}
	known := map[int]time.Duration{}
	for i, p := range all {
		var sum, weight float64
		for _, peer := range slices.Sorted(maps.Keys(to[i])) {
			if r := ways[peer][model.NodeID(p.Node)]; r.Known {
				sum += to[i][peer] * float64(r.Time)
				weight += to[i][peer]
			}
		}
		if weight > 0 {
			known[i] = time.Duration(math.Round(sum / weight))
		}
	}
	return known
}

// fellows finds pods by selectors, each once: many pods have the same peers.
type fellows struct {
	pods  map[string][]*corev1.Pod // by namespace
	found map[string][]*corev1.Pod
}

func newFellows(c *Cluster, all []Placement) *fellows {
	f := &fellows{pods: map[string][]*corev1.Pod{}, found: map[string][]*corev1.Pod{}}
	for _, p := range c.Pods {
		f.pods[p.Namespace] = append(f.pods[p.Namespace], p)
	}
	for _, p := range all {
		if p.Node != "" {
			f.pods[p.Pod.Namespace] = append(f.pods[p.Pod.Namespace], p.Pod)
		}
	}
	return f
}

func (f *fellows) of(namespace string) func(labels.Selector) ([]*corev1.Pod, error) {
	return func(s labels.Selector) ([]*corev1.Pod, error) {
		key := namespace + " " + s.String()
		found, known := f.found[key]
		if !known {
			for _, p := range f.pods[namespace] {
				if s.Matches(labels.Set(p.Labels)) {
					found = append(found, p)
				}
			}
			f.found[key] = found
		}
		return found, nil
	}
}

// summary judges one run.
func (j *judge) summary(all []Placement, f *fellows, routes map[int]time.Duration) Summary {
	s := Summary{Pods: len(all), Measured: len(j.idle), PerNode: map[string]float64{}, PerZone: map[string]float64{}}
	on, comes := map[string]model.Resources{}, map[string]model.Cores{}
	for _, p := range j.cluster.Pods {
		on[p.Spec.NodeName] = on[p.Spec.NodeName].Plus(requested(p))
	}
	for _, p := range all {
		if p.Node == "" {
			continue
		}
		s.Placed++
		s.PerNode[p.Node]++
		s.PerZone[j.zones[p.Node]]++
		wants := requested(p.Pod)
		on[p.Node] = on[p.Node].Plus(wants)
		comes[p.Node] += arrivals.Expected(wants, j.usual).CPU
		j.pairs(&s, p, f)
	}
	for _, n := range j.cluster.Nodes {
		has, of := amounts(n.Status.Allocatable), on[n.Name]
		s.CPU = greater(s.CPU, n.Name, float64(of.CPU), float64(has.CPU))
		s.Memory = greater(s.Memory, n.Name, float64(of.Memory), float64(has.Memory))
		if idle, measured := j.idle[n.Name]; measured {
			s.Overshoot += max(0, float64(comes[n.Name]-idle))
		}
	}
	s.Routes = float64(len(routes))
	if len(routes) > 0 {
		sorted := slices.Sorted(maps.Values(routes))
		for _, t := range sorted {
			s.RouteMean += milliseconds(t) / float64(len(sorted))
		}
		s.RouteP99 = milliseconds(sorted[(99*len(sorted)+99)/100-1]) // nearest rank
	}
	return s
}

// pairs counts those of one pod.
func (j *judge) pairs(s *Summary, p Placement, f *fellows) {
	terms, _ := peers.Parse(p.Pod.Annotations[v1alpha1.AnnotationPeers])
	for _, t := range terms {
		found, _ := f.of(p.Pod.Namespace)(t.Selector)
		for _, other := range found {
			here, there := j.zones[p.Node], j.zones[other.Spec.NodeName]
			if other.UID == p.Pod.UID || here == "" || there == "" {
				continue
			}
			s.Pairs++
			if here != there {
				s.CrossZone++
			}
		}
	}
}

func greater(s Share, node string, part, of float64) Share {
	share := 0.0
	if of > 0 {
		share = part / of
	}
	if s.Node == "" || share > s.Share {
		return Share{node, share}
	}
	return s
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// mean is that of several runs.
func mean(runs []Summary) Summary {
	m := Summary{Pods: runs[0].Pods, Measured: runs[0].Measured, PerNode: map[string]float64{}, PerZone: map[string]float64{}}
	n := float64(len(runs))
	for _, r := range runs {
		m.Placed += r.Placed / n
		m.RouteMean += r.RouteMean / n
		m.RouteP99 += r.RouteP99 / n
		m.Routes += r.Routes / n
		m.Overshoot += r.Overshoot / n
		m.Pairs += r.Pairs / n
		m.CrossZone += r.CrossZone / n
		for node, pods := range r.PerNode {
			m.PerNode[node] += pods / n
		}
		for zone, pods := range r.PerZone {
			m.PerZone[zone] += pods / n
		}
	}
	share := func(of func(Summary) Share) Share {
		most := slices.MaxFunc(runs, func(a, b Summary) int { return cmp.Compare(of(a).Share, of(b).Share) })
		out := Share{Node: of(most).Node}
		for _, r := range runs {
			out.Share += of(r).Share
		}
		out.Share /= n
		return out
	}
	m.CPU = share(func(s Summary) Share { return s.CPU })
	m.Memory = share(func(s Summary) Share { return s.Memory })
	return m
}
