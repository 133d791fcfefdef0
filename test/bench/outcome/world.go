package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// node is one machine of a world, with what its neighbours do on it.
type node struct {
	name, zone string
	cores      float64
	memory     float64 // GiB
	used       float64 // cores that what runs there already asks for; it may be more than cores
	requested  float64 // cores that it requests
	held       float64 // GiB that it has and requests
}

// service is one link of the chain.
type service struct {
	name    string
	work    time.Duration // of the CPU, for one call of it: the mean
	calls   int           // of the next service, one after the other, for one call of it
	request float64       // cores
}

// world is a cluster and the chain of services that is to be placed in it.
type world struct {
	seed   uint64
	kind   string
	nodes  []node
	trip   [][]time.Duration // round trips between nodes; within one, of its loopback
	chain  []service
	users  int           // the node where requests come in
	demand float64       // requests a second
	cost   time.Duration // of the CPU of the service that is called, for each call beyond its work
}

// The kinds of worlds; seeds take turns.
const (
	zonesKind = "zones" // three zones of four nodes, a millisecond or more apart
	edgeKind  = "edge"  // a centre of six nodes, and six sites 5 to 20 ms away
	flatKind  = "flat"  // twelve nodes, no zones that one could name, 0.1 to 2 ms apart
)

const (
	size     = 12
	links    = 4
	loopback = 30 * time.Microsecond
)

// generate makes the world of a seed. docs/outcome.md says what it draws from.
func generate(seed uint64) world {
	r := rand.New(rand.NewPCG(seed, 6))
	w := world{seed: seed, kind: []string{zonesKind, edgeKind, flatKind}[seed%3]}
	for i := range size {
		w.nodes = append(w.nodes, neighbourhood(r, i))
	}
	w.zone()
	w.route(r)
	w.users = r.IntN(size)
	if w.kind == edgeKind {
		w.users = size/2 + r.IntN(size/2) // at one of the sites
	}
	w.compose(r)
	return w
}

// neighbourhood draws a node: a third are quiet, a third busy, a third more than full.
func neighbourhood(r *rand.Rand, i int) node {
	n := node{name: fmt.Sprintf("n%02d", i+1), cores: 4, memory: 16}
	between := func(low, high float64) float64 { return low + (high-low)*r.Float64() }
	switch r.IntN(3) {
	case 0:
		n.used = n.cores * between(.05, .3)
	case 1:
		n.used = n.cores * between(.4, .7)
	default:
		n.used = n.cores * between(.9, 1.5)
	}
	// Who runs there has requested less than it uses, or more.
	n.requested = min(n.used*between(.3, 1.2), n.cores*.7)
	n.held = n.memory * between(.1, .7)
	return n
}

func (w *world) zone() {
	for i := range w.nodes {
		switch w.kind {
		case zonesKind:
			w.nodes[i].zone = fmt.Sprintf("z%d", i/4+1)
		case edgeKind:
			w.nodes[i].zone = "centre"
			if i >= size/2 {
				w.nodes[i].zone = fmt.Sprintf("site%d", i-size/2+1)
			}
		default:
			w.nodes[i].zone = "all"
		}
	}
}

// route draws the round trips: the way between two places, and what each node adds.
func (w *world) route(r *rand.Rand) {
	ms := func(low, high float64) time.Duration {
		return time.Duration(math.Exp(math.Log(low)+(math.Log(high)-math.Log(low))*r.Float64()) * float64(time.Millisecond))
	}
	own := make([]time.Duration, size)
	for i := range own {
		own[i] = ms(.03, .15)
	}
	between := map[[2]string]time.Duration{}
	w.trip = make([][]time.Duration, size)
	for i := range w.trip {
		w.trip[i] = make([]time.Duration, size)
		w.trip[i][i] = loopback
	}
	for i := range size {
		for j := range i {
			a, b := w.nodes[j].zone, w.nodes[i].zone
			way, known := between[[2]string{a, b}]
			switch {
			case w.kind == flatKind:
				way = ms(.1, 2)
			case a == b:
				way = ms(.1, .4)
			case !known && w.kind == zonesKind:
				way = ms(1, 5)
			case !known:
				way = ms(5, 20)
			}
			if a != b {
				between[[2]string{a, b}] = way
			}
			w.trip[i][j] = way + own[i] + own[j]
			w.trip[j][i] = w.trip[i][j]
		}
	}
}

// compose draws the chain, and as many requests as have its heaviest service use half a core.
func (w *world) compose(r *rand.Rand) {
	visits, heaviest := 1., 0.
	for i := range links {
		s := service{
			name: fmt.Sprintf("s%d", i+1), calls: 1 + r.IntN(2), request: .5,
			work: time.Duration((.2 + .8*r.Float64()) * float64(time.Millisecond)),
		}
		if i == links-1 {
			s.calls = 0
		}
		heaviest = max(heaviest, visits*s.work.Seconds())
		visits *= float64(s.calls)
		w.chain = append(w.chain, s)
	}
	w.demand = .5 / heaviest
}
