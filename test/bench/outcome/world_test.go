package main

import (
	"math"
	"reflect"
	"testing"
	"time"
)

func TestGenerate(t *testing.T) {
	for seed := range uint64(60) {
		w := generate(seed)
		if !reflect.DeepEqual(w, generate(seed)) {
			t.Fatalf("seed %d gives two worlds", seed)
		}
		for i := range w.nodes {
			for j := range w.nodes {
				if w.trip[i][j] != w.trip[j][i] || w.trip[i][j] < loopback || w.trip[i][j] > 25*time.Millisecond {
					t.Errorf("seed %d: %d to %d takes %v, and back %v", seed, i, j, w.trip[i][j], w.trip[j][i])
				}
			}
			if n := w.nodes[i]; n.requested > n.cores || n.used <= 0 || n.held >= n.memory {
				t.Errorf("seed %d: %+v", seed, n)
			}
		}
	}
}

func TestDivide(t *testing.T) {
	for _, c := range []struct {
		cores  float64
		claims []claim
		want   []float64
	}{
		{4, []claim{{1, 1}, {1, 2}}, []float64{1, 2}},                    // there is enough
		{2, []claim{{1, 9}, {3, 9}}, []float64{.5, 1.5}},                 // by weight
		{2, []claim{{1, 9}, {3, 1}}, []float64{1, 1}},                    // what one leaves
		{3, []claim{{1, .5}, {1, 9}, {1, 9}}, []float64{.5, 1.25, 1.25}}, // to both others
		{1, []claim{{1, 0}, {1, 9}}, []float64{0, 1}},
		{1, nil, []float64{}},
	} {
		got := divide(c.cores, c.claims)
		for i := range c.want {
			if len(got) != len(c.want) || math.Abs(got[i]-c.want[i]) > 1e-9 {
				t.Errorf("%v of %v: %v, want %v", c.claims, c.cores, got, c.want)
				break
			}
		}
	}
}

// lone is a world of one node and one service.
func lone(cores float64, neighbours claim, work time.Duration, demand float64) world {
	return world{
		nodes: []node{{cores: cores, used: neighbours.most, requested: neighbours.weight}}, trip: [][]time.Duration{{0}},
		chain: []service{{work: work, request: .25}}, demand: demand,
	}
}

func average(times []time.Duration) float64 {
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return sum.Seconds() / float64(len(times))
}

// A queue whose length theory knows: with one core that is shared, a request takes its work divided
// by the part of the time in which there is none.
func TestSharedProcessor(t *testing.T) {
	const work, load = 2 * time.Millisecond, .6
	w := lone(1, claim{}, work, load/work.Seconds())
	got, want := average(times(open(&w, []int{0}, 400_000, 1))), work.Seconds()/(1-load)
	if math.Abs(got-want) > .03*want {
		t.Errorf("a request takes %v s, want %v", got, want)
	}
	if got, want := closed(&w, []int{0}, 8, 100_000, 1), 1/work.Seconds(); math.Abs(got-want) > .03*want {
		t.Errorf("%v requests a second, want %v", got, want)
	}
}

// Neighbours that want more than a node has leave a pod its part by what both have requested.
func TestNeighboursTakeTheirPart(t *testing.T) {
	const work = 2 * time.Millisecond
	w := lone(2, claim{1.75, 3}, work, 1) // hardly ever two at a time
	got, want := average(times(open(&w, []int{0}, 100_000, 1))), work.Seconds()/.25
	if math.Abs(got-want) > .03*want {
		t.Errorf("a request takes %v s, want %v", got, want)
	}
}

// What a request takes is its ways, the work for it, and what it waits because others have the CPU.
func TestWhereTheTailComesFrom(t *testing.T) {
	const work, way = 2 * time.Millisecond, 10 * time.Millisecond
	for name, c := range map[string]struct {
		neighbours claim
		waits      float64 // of what is worked
	}{"alone": {claim{}, 0}, "with a quarter of a core": {claim{.75, 3}, 3}} {
		w := lone(1, c.neighbours, work, 1)
		w.trip[0][0] = way
		f := simulated(&w, []int{0}, 20_000)
		want := c.waits * f.worked.Seconds()
		if f.ways != way || f.worked < 4*work || math.Abs(f.waited().Seconds()-want) > .05*f.worked.Seconds()+.05*want {
			t.Errorf("%s: of %v %v were ways, %v work, %v waiting, want %v s", name, f.p99, f.ways, f.worked, f.waited(), want)
		}
	}
}

// Every call crosses the way to its service once in each direction.
func TestWays(t *testing.T) {
	w := world{
		nodes: []node{{cores: 1}, {cores: 1}},
		trip:  [][]time.Duration{{0, 10 * time.Millisecond}, {10 * time.Millisecond, 0}},
		chain: []service{{calls: 3, request: 1}, {calls: 0, request: 1}}, demand: 1,
	}
	for place, want := range map[[2]int]time.Duration{
		{0, 0}: 0, {1, 1}: 10 * time.Millisecond, {0, 1}: 30 * time.Millisecond, {1, 0}: 40 * time.Millisecond,
	} {
		took := times(open(&w, place[:], 10, 1))
		if q := quantile(took, .5); (q - want).Abs() > time.Microsecond {
			t.Errorf("%v: %v, want %v", place, q, want)
		}
		if m := mean(&w, place[:]); (m - want).Abs() > time.Microsecond {
			t.Errorf("%v: mean %v, want %v", place, m, want)
		}
	}
}

// The shortlist loses nothing: simulating every placement of a smaller world finds none that is
// better by more than chance.
func TestOracle(t *testing.T) {
	const requests = 2000
	for seed := range uint64(3) {
		w := generate(seed)
		w.chain = w.chain[:2]
		w.chain[1].calls = 0
		short, all := oracle(&w, requests, seed, shortlist/10), oracle(&w, requests, seed, size*size)
		if s, a := quantile(times(open(&w, short, requests, seed)), .5), quantile(times(open(&w, all, requests, seed)), .5); float64(s) > 1.02*float64(a) {
			t.Errorf("seed %d: %v takes %v, %v only %v", seed, short, s, all, a)
		}
	}
}

func TestInterval(t *testing.T) {
	if low, high := interval([]float64{3, 3, 3}); low != 3 || high != 3 {
		t.Errorf("of one value: %v to %v", low, high)
	}
	// Of 20 values the sixth and the fifteenth are the ends by the binomial distribution.
	var all []float64
	for i := range 20 {
		all = append(all, float64(i+1))
	}
	if low, high := interval(all); low < 5 || low > 7.5 || high < 13.5 || high > 16 {
		t.Errorf("of 1 to 20: %v to %v", low, high)
	}
}
