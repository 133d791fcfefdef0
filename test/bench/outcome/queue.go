package main

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"
)

// The model: a node gives its cores to the pods that want to run by what they have requested, as
// kubelet and the kernel do, and to none more than its threads can use; the neighbours are one pod. A
// service takes any number of calls at a time, each a thread. A message between two nodes takes half
// the round trip.

// job is one stretch of work for one call.
type job struct {
	end  float64 // by the pod's attained
	next func(now float64)
}

type jobs []job

func (j jobs) Len() int           { return len(j) }
func (j jobs) Less(a, b int) bool { return j[a].end < j[b].end }
func (j jobs) Swap(a, b int)      { j[a], j[b] = j[b], j[a] }
func (j *jobs) Push(x any)        { *j = append(*j, x.(job)) }
func (j *jobs) Pop() any {
	last := (*j)[len(*j)-1]
	*j = (*j)[:len(*j)-1]
	return last
}

// pod is a service at work. All its jobs advance alike, so one figure says how far each is.
type pod struct {
	node     int
	request  float64
	attained float64 // seconds of work that a job has got that was there from the beginning
	at       float64
	rate     float64 // of each job
	jobs     jobs
	turn     int // of the event that is to be believed
}

// advance brings a pod to now.
func (p *pod) advance(now float64) {
	p.attained += (now - p.at) * p.rate
	p.at = now
}

// event is something that happens.
type event struct {
	at   float64
	do   func(now float64)
	pod  *pod // whose first job ends, in place of do
	turn int
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(a, b int) bool { return e[a].at < e[b].at }
func (e events) Swap(a, b int)      { e[a], e[b] = e[b], e[a] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// run is one simulation, in seconds.
type run struct {
	w      *world
	pods   []pod // one of each service
	events events
	draw   *rand.Rand
}

func newRun(w *world, place []int, seed uint64) *run {
	r := &run{w: w, pods: make([]pod, len(place)), draw: rand.New(rand.NewPCG(seed, 7))}
	for i, n := range place {
		r.pods[i] = pod{node: n, request: w.chain[i].request}
	}
	return r
}

func (r *run) at(t float64, do func(now float64)) { heap.Push(&r.events, event{at: t, do: do}) }

// share gives the pods of a node their rates, and says when the first job of each ends, if nothing
// changes.
func (r *run) share(node int) {
	claims := []claim{{r.w.nodes[node].requested, r.w.nodes[node].used}}
	var here []*pod
	for i := range r.pods {
		if p := &r.pods[i]; p.node == node && len(p.jobs) > 0 {
			here = append(here, p)
			claims = append(claims, claim{p.request, float64(len(p.jobs))})
		}
	}
	for i, got := range divide(r.w.nodes[node].cores, claims)[1:] {
		p := here[i]
		p.rate = got / float64(len(p.jobs))
		p.turn++
		heap.Push(&r.events, event{at: p.at + max(0, p.jobs[0].end-p.attained)/p.rate, pod: p, turn: p.turn})
	}
}

// advance brings all pods of a node to now.
func (r *run) advance(node int, now float64) {
	for i := range r.pods {
		if r.pods[i].node == node {
			r.pods[i].advance(now)
		}
	}
}

func (r *run) work(link int, seconds, now float64, next func(now float64)) {
	p := &r.pods[link]
	r.advance(p.node, now)
	heap.Push(&p.jobs, job{p.attained + seconds, next})
	r.share(p.node)
}

// step does what happens next, and says whether anything did.
func (r *run) step() bool {
	if len(r.events) == 0 {
		return false
	}
	e := heap.Pop(&r.events).(event)
	switch {
	case e.pod == nil:
		e.do(e.at)
	case e.turn == e.pod.turn:
		r.advance(e.pod.node, e.at)
		done := heap.Pop(&e.pod.jobs).(job)
		if len(e.pod.jobs) == 0 {
			e.pod.rate = 0
			e.pod.turn++
		}
		r.share(e.pod.node)
		done.next(e.at)
	}
	return true
}

// call has a service called from a node; done when the answer is there. What the CPU worked for it, and for
// the calls that it makes, is added to worked.
func (r *run) call(from, link int, now float64, worked *float64, done func(now float64)) {
	on, s := r.pods[link].node, r.w.chain[link]
	half := r.w.trip[from][on].Seconds() / 2
	answer := func(now float64) { r.at(now+half, done) }
	work := r.draw.ExpFloat64()*s.work.Seconds() + r.w.cost.Seconds()
	*worked += work
	part, left := work/float64(s.calls+1), s.calls
	var stretch func(now float64)
	stretch = func(now float64) {
		r.work(link, part, now, func(now float64) {
			if left == 0 {
				answer(now)
				return
			}
			left--
			r.call(on, link+1, now, worked, stretch)
		})
	}
	r.at(now+half, stretch)
}

// answer is what became of a request.
type answer struct {
	took   time.Duration
	worked time.Duration // of the CPU, all services together
}

// open has requests come in at the world's rate, whatever becomes of those before, and gives what
// became of each, in the order in which they came in.
func open(w *world, place []int, requests int, seed uint64) []answer {
	r := newRun(w, place, seed)
	answers, worked := make([]answer, requests), make([]float64, requests)
	sent, ended := 0, 0
	var arrive func(now float64)
	arrive = func(now float64) {
		i := sent
		sent++
		r.call(w.users, 0, now, &worked[i], func(end float64) {
			answers[i] = answer{seconds(end - now), seconds(worked[i])}
			ended++
		})
		if sent < requests {
			r.at(now+r.draw.ExpFloat64()/w.demand, arrive)
		}
	}
	r.at(0, arrive)
	for ended < requests && r.step() {
	}
	return answers
}

// times are how long requests took.
func times(of []answer) []time.Duration {
	took := make([]time.Duration, len(of))
	for i, a := range of {
		took[i] = a.took
	}
	return took
}

// closed has so many users send one request after the other, and gives how many are answered in a
// second.
func closed(w *world, place []int, users, requests int, seed uint64) float64 {
	r := newRun(w, place, seed)
	ended, last, worked := 0, 0., 0.
	var send func(now float64)
	send = func(now float64) {
		r.call(w.users, 0, now, &worked, func(now float64) {
			ended, last = ended+1, now
			send(now)
		})
	}
	for range users {
		r.at(0, send)
	}
	for ended < requests && r.step() {
	}
	return float64(ended) / last
}

// ways is how long a request is on its ways, which is the same for all.
func ways(w *world, place []int) time.Duration {
	sum, from, visits := time.Duration(0), w.users, 1
	for i, s := range w.chain {
		sum += time.Duration(visits) * w.trip[from][place[i]]
		from, visits = place[i], visits*s.calls
	}
	return sum
}

// mean is about how long a request takes: what the oracles sort all placements by before they
// simulate the best.
func mean(w *world, place []int) time.Duration {
	load := make([]float64, len(place))
	visits := 1.
	for i, s := range w.chain {
		load[i] = visits * (s.work + w.cost).Seconds() * w.demand
		visits *= float64(s.calls)
	}
	sum := ways(w, place).Seconds()
	visits = 1
	for i, s := range w.chain {
		n := w.nodes[place[i]]
		claims := []claim{{s.request, n.cores}, {n.requested, n.used}}
		for j := range place {
			if j != i && place[j] == place[i] {
				claims = append(claims, claim{w.chain[j].request, load[j]})
			}
		}
		// What it would get if it always wanted all, less what it uses, is what a call finds.
		free := max(divide(n.cores, claims)[0]-load[i], .05)
		sum += visits * (s.work + w.cost).Seconds() / min(1, free)
		visits *= float64(s.calls)
	}
	return seconds(sum)
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }
