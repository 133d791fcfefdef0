package gossip

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
	"github.com/drover-project/drover/internal/model"
)

// world is a cluster under load, inside a synctest bubble.
type world struct {
	nodes    int // with those that join later
	rng      *rand.Rand
	net      *gossiptest.Network
	make     maker
	track    *tracker
	progress io.Writer
	name     string
	begun    time.Time
	loaded   atomic.Bool // loads change, and pods move
	quiet    atomic.Bool // nobody tells anything

	mu      sync.Mutex
	ports   []*gossiptest.Port
	members []member
	errs    []error

	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup
}

func newWorld(name string, nodes int, seed uint64, net gossiptest.Config, m maker, progress io.Writer) *world {
	w := &world{name: name, nodes: nodes, rng: rand.New(rand.NewPCG(seed, 0)), net: gossiptest.NewNetwork(net), make: m,
		track: newTracker(nodes), progress: progress, begun: time.Now()}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

func (w *world) say(format string, args ...any) {
	fmt.Fprintf(w.progress, "%s  %-28s +%-8s %s\n", wall(), w.name, time.Since(w.begun).Round(time.Second), fmt.Sprintf(format, args...))
}

// seedsAtFirst is how many addresses a node is given that comes while others come, too; later
// each is given all there are.
const seedsAtFirst = 3

// start adds members, one after the other within a time.
func (w *world) start(n int, within time.Duration) error {
	for range n {
		if err := w.add(); err != nil {
			return err
		}
		time.Sleep(within / time.Duration(n))
	}
	return nil
}

func (w *world) add() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := len(w.members)
	p := w.net.Open()
	first := make([]string, 0, seedsAtFirst)
	for range min(i, seedsAtFirst) {
		first = append(first, w.ports[w.rng.IntN(i)].String())
	}
	begun := time.Now()
	seeds := func() []string {
		if time.Since(begun) < time.Minute {
			return first
		}
		return w.addresses()
	}
	m, err := w.make(i, seeds, p, w.track.hear)
	if err != nil {
		return fmt.Errorf("make member %d: %w", i, err)
	}
	w.ports, w.members = append(w.ports, p), append(w.members, m)
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 2))
	w.work.Go(func() {
		if err := m.run(w.ctx); err != nil {
			w.fail(fmt.Errorf("run member %d: %w", i, err))
		}
	})
	w.work.Go(func() { w.live(i, m, rng) })
	return nil
}

func (w *world) addresses() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]string, len(w.ports))
	for i, p := range w.ports {
		out[i] = p.String()
	}
	return out
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs = append(w.errs, err)
}

// live tells a node's state once a second, as an agent does. Under load a change comes at random,
// so that the times between two are distributed exponentially.
func (w *world) live(i int, m member, rng *rand.Rand) {
	const tick = time.Second
	odds := changeOdds(tick)
	wait := time.Duration(rng.Float64() * float64(tick))
	for first := true; w.sleep(wait); first, wait = false, tick {
		if w.quiet.Load() {
			continue
		}
		changed := first || w.loaded.Load() && rng.Float64() < odds
		if changed {
			w.track.changed(i)
		}
		if err := m.tell(changed); err != nil {
			w.fail(fmt.Errorf("node %d tells its state: %w", i, err))
			return
		}
	}
}

func (w *world) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// load has loads change, and pods move among the first n nodes, until the world ends.
func (w *world) load(n int) {
	w.loaded.Store(true)
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 3))
	mean := float64(time.Minute) * nodesAMove / float64(n)
	w.work.Go(func() {
		for epoch := uint64(1); w.sleep(time.Duration(rng.ExpFloat64() * mean)); epoch++ {
			if w.quiet.Load() {
				continue
			}
			a := rng.IntN(n)
			b := (a + 1 + rng.IntN(n-1)) % n
			w.track.moving(a, b)
			l := someMove(a, b, epoch)
			for _, i := range []int{a, b} {
				if err := w.members[i].announce(l); err != nil {
					w.fail(fmt.Errorf("node %d announces a location: %w", i, err))
				}
			}
		}
	})
}

// someMove is that of the i-th pod.
func someMove(from, to int, i uint64) model.Location {
	return model.Location{Origin: fmt.Sprintf("7d6f0a5e-3f0b-4a77-9d8e-%012d", i), From: nodeName(from), Node: nodeName(to), Epoch: 1,
		Pod:       model.PodID{Namespace: "shop", Name: "cart-6f7c9d5b8-x2x7q", UID: fmt.Sprintf("c0ffee00-3f0b-4a77-9d8e-%012d", i)},
		Migration: "cart-6f7c9d5b8-x2x7q-1", At: time.Now().UTC()}
}

// until waits for ok, looking every step; false: it was not within the limit.
func (w *world) until(limit, step time.Duration, ok func() bool) (time.Duration, bool) {
	begun := time.Now()
	for !ok() {
		if time.Since(begun) >= limit {
			return limit, false
		}
		time.Sleep(step)
	}
	return time.Since(begun), true
}

// wholes is how many members hold every node for alive.
func (w *world) wholes() int {
	n := 0
	for _, m := range w.members {
		alive := 0
		for _, is := range m.lives {
			if is {
				alive++
			}
		}
		if alive == w.nodes {
			n++
		}
	}
	return n
}

// equal tells whether all members hold the same of every node but themselves, and the same
// locations.
func (w *world) equal() bool {
	var nodes []uint64
	var places uint64
	for j, m := range w.members {
		its, locations := m.picture()
		if len(its) != w.nodes {
			return false
		}
		if j == 0 {
			nodes, places = its, locations
			continue
		}
		if j == 1 {
			nodes[0] = its[0] // the first left itself out
		}
		for i := range its {
			if i != j && its[i] != nodes[i] {
				return false
			}
		}
		if locations != places {
			return false
		}
	}
	return true
}

// settle starts n members and waits until each has heard of all.
func (w *world) settle(n int) error {
	began := time.Now()
	w.say("%d nodes start, %.0f s of processors", n, processors())
	if err := w.start(n, time.Duration(n)*20*time.Millisecond); err != nil {
		return err
	}
	w.meet()
	told := time.Now()
	_, ok := w.until(10*time.Minute, time.Second, func() bool {
		complete := w.track.complete(n)
		if time.Since(told) >= 10*time.Second {
			told = time.Now()
			w.say("%d of %d know all, %.0f s of processors", complete, n, processors())
		}
		return complete == n
	})
	if !ok {
		return fmt.Errorf("%s: after 10 min some of %d nodes have not heard of all", w.name, n)
	}
	w.say("%d nodes know each other after %v", n, time.Since(began).Round(time.Second))
	return nil
}

// meet has each compare all it knows with the first, twice, so that all know what each does: what
// else takes minutes of push/pulls.
func (w *world) meet() {
	const atOnce = 16
	for range 2 {
		for some := range slices.Chunk(w.members[1:], atOnce) {
			var met sync.WaitGroup
			for _, m := range some {
				if p, is := m.(*plain); is {
					met.Go(func() { p.compare(w.ports[0].String()) })
				}
			}
			met.Wait()
		}
	}
}

// close ends all members, and gives what went wrong.
func (w *world) close() error {
	w.stop()
	for _, p := range w.ports {
		p.Crash() // nobody is told: that many leave at once is none of the questions
	}
	w.work.Wait()
	time.Sleep(2 * time.Minute) // virtual: connections of memberlist run into their deadlines
	synctest.Wait()
	if len(w.errs) > 0 {
		return fmt.Errorf("%s: %d errors, the first: %w", w.name, len(w.errs), w.errs[0])
	}
	return nil
}

// rejoin joins, and joins again whoever is missing, as internal/gossip does.
func rejoin(ctx context.Context, seeds func() []string, lives func(func(int, bool) bool), join func([]string) (int, error)) {
	const space, lonely, atOnce = 30 * time.Second, time.Second, 8
	for {
		alive := map[string]bool{}
		for i := range lives {
			alive[address(i)] = true
		}
		var missing []string
		for _, s := range seeds() {
			if !alive[s] {
				missing = append(missing, s)
			}
		}
		rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
		if len(missing) > 0 {
			_, _ = join(missing[:min(len(missing), atOnce)])
		}
		wait := space
		if len(alive) <= 1 {
			wait = lonely
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// address is that of the port that is opened as the i-th.
func address(i int) string {
	return fmt.Sprintf("10.%d.%d.%d:7946", (i+1)>>16, (i+1)>>8&255, (i+1)&255)
}
