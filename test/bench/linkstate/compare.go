package main

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"time"

	"github.com/hashicorp/serf/coordinate"

	"github.com/drover-project/drover/internal/linkstate"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

const (
	// candidates is among how many nodes, drawn at random, the best is sought.
	candidates = 16
	// choices is how often from each node.
	choices = 4
)

// result is how well one estimator did in one world.
type result struct {
	// median, p90 and p99 of |estimate-truth|/truth, over the pairs that were not measured;
	// over all, where everything was.
	median, p90, p99 float64
	// hits is the share of choices in which the node taken is as near as any (a route
	// below the floor of the formula is as near as one at it).
	hits float64
	// regret is how much farther in ms the node taken is than the nearest, in the mean and
	// at the 99th percentile.
	regret, regret99 float64
}

// The estimators. All see the same samples of the same pairs, but for atRandom.
const (
	dijkstra = "linkstate" // what was measured, the rest with Dijkstra
	vivaldi  = "vivaldi"   // coordinates alone
	hybrid   = "hybrid"    // what was measured, the rest by coordinates
	atRandom = "random"    // as hybrid, the same number of probes to peers drawn at random, as serf does
)

var estimators = []string{dijkstra, vivaldi, hybrid, atRandom}

// trial is one world being measured.
type trial struct {
	world   world
	rng     *rand.Rand
	ids     []model.NodeID
	plan    [][]int
	windows []map[int]*linkstate.Window
	near    []*coordinate.Client // fed with the plan's probes
	random  []*coordinate.Client
	now     time.Time
	probes  int
}

func newTrial(w world, rng *rand.Rand) (*trial, error) {
	t := &trial{world: w, rng: rng, now: time.Unix(0, 0)}
	index, zones := map[model.NodeID]int{}, map[model.NodeID]string{}
	for i := range w.rtt {
		id := model.NodeID(fmt.Sprintf("node-%d", i))
		t.ids = append(t.ids, id)
		index[id], zones[id] = i, w.zone[i]
	}
	for i, id := range t.ids {
		peers := []int{}
		windows := map[int]*linkstate.Window{}
		for _, p := range linkstate.Plan(id, zones) {
			peers = append(peers, index[p])
			windows[index[p]] = linkstate.NewWindow(window, samples)
		}
		t.plan, t.windows = append(t.plan, peers), append(t.windows, windows)
		for _, clients := range []*[]*coordinate.Client{&t.near, &t.random} {
			c, err := coordinate.NewClient(coordinate.DefaultConfig())
			if err != nil {
				return nil, fmt.Errorf("vivaldi client %d: %w", i, err)
			}
			*clients = append(*clients, c)
		}
	}
	return t, nil
}

// The window of the product: nodeagent/measure.
const (
	interval = 200 * time.Millisecond
	window   = 10 * time.Second
	samples  = int(window / interval)
)

// sample is one measurement of the way between two nodes: 1% of it up and down is noise,
// and every tenth waits in a queue.
func (t *trial) sample(i, j int) time.Duration {
	ms := t.world.rtt[i][j] * (1 + 0.01*math.Abs(t.rng.NormFloat64()))
	if t.rng.Intn(10) == 0 {
		ms += max(0.3, 0.1*ms) * t.rng.ExpFloat64()
	}
	return duration(ms)
}

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// round has every node probe each peer of its plan once.
func (t *trial) round() error {
	t.now = t.now.Add(interval)
	n := len(t.ids)
	for _, i := range t.rng.Perm(n) {
		for _, j := range t.plan[i] {
			rtt := t.sample(i, j)
			t.windows[i][j].Add(t.now, rtt, model.StampKernel, 0)
			t.probes++
			if _, err := t.near[i].Update(string(t.ids[j]), t.near[j].GetCoordinate(), rtt); err != nil {
				return fmt.Errorf("vivaldi update: %w", err)
			}
			k := (i + 1 + t.rng.Intn(n-1)) % n
			if _, err := t.random[i].Update(string(t.ids[k]), t.random[k].GetCoordinate(), t.sample(i, k)); err != nil {
				return fmt.Errorf("vivaldi update: %w", err)
			}
		}
	}
	return nil
}

// estimates are each estimator's figures in ms, from every node to every other.
func (t *trial) estimates() (of map[string][][]float64, measured [][]bool) {
	n := len(t.ids)
	s := view.Snapshot{At: t.now, Nodes: map[model.NodeID]view.Node{}}
	measured = make([][]bool, n)
	for i, id := range t.ids {
		measured[i] = make([]bool, n)
		routes := map[model.NodeID]model.RouteTime{}
		for j, w := range t.windows[i] {
			if r, ok := w.RouteTime(t.now); ok {
				routes[t.ids[j]] = r
				measured[i][j] = true
			}
		}
		s.Nodes[id] = view.Node{Alive: true, Received: t.now, State: model.NodeState{Load: model.Load{At: t.now}, Routes: routes}}
	}
	g := linkstate.NewGraph(s, model.PathNode, t.now, window)
	of = map[string][][]float64{}
	for _, e := range estimators {
		of[e] = make([][]float64, n)
	}
	for i, id := range t.ids {
		routes := g.From(id)
		for _, e := range estimators {
			of[e][i] = make([]float64, n)
		}
		near, random := t.near[i].GetCoordinate(), t.random[i].GetCoordinate()
		for j, to := range t.ids {
			if i == j {
				continue
			}
			r, ok := routes.To(to)
			if !ok {
				r.RTT = math.MaxInt64
			}
			of[dijkstra][i][j] = milliseconds(r.RTT)
			of[vivaldi][i][j] = milliseconds(near.DistanceTo(t.near[j].GetCoordinate()))
			of[hybrid][i][j] = of[vivaldi][i][j]
			of[atRandom][i][j] = milliseconds(random.DistanceTo(t.random[j].GetCoordinate()))
			if measured[i][j] {
				of[hybrid][i][j], of[atRandom][i][j] = of[dijkstra][i][j], of[dijkstra][i][j]
			}
		}
	}
	return of, measured
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// judge compares estimates with the truth.
func (t *trial) judge(estimate [][]float64, measured [][]bool, rng *rand.Rand) result {
	n := len(t.ids)
	var wrong []float64
	whole := len(t.plan[0]) == n-1
	for i := range n {
		for j := range n {
			if i != j && (whole || !measured[i][j]) {
				wrong = append(wrong, math.Abs(estimate[i][j]-t.world.rtt[i][j])/t.world.rtt[i][j])
			}
		}
	}
	slices.Sort(wrong)
	floor := milliseconds(placement.Defaults().Floor)
	var regrets []float64
	var hits, sum float64
	for i := range n {
		for range choices {
			best, taken, least := math.Inf(1), 0.0, math.Inf(1)
			for _, j := range rng.Perm(n - 1)[:candidates] {
				j = (i + 1 + j) % n
				truth := max(floor, t.world.rtt[i][j])
				best = min(best, truth)
				if e := max(floor, estimate[i][j]); e < least {
					least, taken = e, truth
				}
			}
			if taken == best {
				hits++
			}
			regrets = append(regrets, taken-best)
			sum += taken - best
		}
	}
	slices.Sort(regrets)
	count := float64(len(regrets))
	return result{at(wrong, 0.5), at(wrong, 0.9), at(wrong, 0.99), hits / count, sum / count, at(regrets, 0.99)}
}

// at is a quantile of ascending values.
func at(ascending []float64, q float64) float64 {
	return ascending[int(q*float64(len(ascending)-1))]
}

// run measures one world for the given numbers of rounds, and judges after each.
func run(k kind, n int, seed int64, after []int) (map[int]map[string]result, int, error) {
	rng := rand.New(rand.NewSource(seed))
	rand.Seed(seed) // what serf draws from; see go.mod
	t, err := newTrial(k.make(rng, n), rng)
	if err != nil {
		return nil, 0, err
	}
	results := map[int]map[string]result{}
	for round := 1; round <= slices.Max(after); round++ {
		if err := t.round(); err != nil {
			return nil, 0, err
		}
		if !slices.Contains(after, round) {
			continue
		}
		of, measured := t.estimates()
		results[round] = map[string]result{}
		for _, e := range estimators {
			// The same choices for all.
			results[round][e] = t.judge(of[e], measured, rand.New(rand.NewSource(seed)))
		}
	}
	return results, t.probes / n, nil
}

// middle is the median of each figure over several seeds.
func middle(of []result) result {
	pick := func(f func(result) float64) float64 {
		values := make([]float64, len(of))
		for i, r := range of {
			values[i] = f(r)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return result{
		pick(func(r result) float64 { return r.median }), pick(func(r result) float64 { return r.p90 }), pick(func(r result) float64 { return r.p99 }),
		pick(func(r result) float64 { return r.hits }), pick(func(r result) float64 { return r.regret }), pick(func(r result) float64 { return r.regret99 }),
	}
}
