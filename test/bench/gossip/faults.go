package gossip

import (
	"fmt"
	"time"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
)

// outcome is what became of a cluster that something happened to. Times are in seconds.
type outcome struct {
	Part   string
	System string
	Nodes  int
	Seed   uint64
	// Most and All are the times until 99 % and all of the nodes had one whole picture again.
	Most, All float64
	// Equal is whether all pictures were equal once nobody told anything new any more, and
	// Quiet how long that took.
	Equal bool
	Quiet float64
	// BytesMean and BytesMax are those of a node and second, both directions, of the mean node
	// and the one with the most, over Window seconds from the event.
	BytesMean, BytesMax, Window float64
	// Deaths are how often a node that lived was held for dead by one that it could reach.
	Deaths int
	// Length is how much virtual time was watched for them, in seconds.
	Length float64
}

// watch counts deaths once a second from now on.
type watch struct {
	w     *world
	alive [][]bool // by member and node, as each saw it last
}

func (w *world) watch() *watch {
	s := &watch{w: w}
	s.look(nil)
	return s
}

// look counts the nodes that members hold for dead now and did not when they looked last,
// but for those that they may.
func (s *watch) look(may func(member, node int) bool) (deaths int) {
	seen := make([]bool, s.w.nodes)
	for j, m := range s.w.members {
		if j == len(s.alive) {
			s.alive = append(s.alive, make([]bool, s.w.nodes))
		}
		clear(seen)
		for i, is := range m.lives {
			seen[i] = is
		}
		for i, was := range s.alive[j] {
			if was && !seen[i] && (may == nil || !may(j, i)) {
				deaths++
			}
		}
		copy(s.alive[j], seen)
	}
	return deaths
}

// window is over how long the bytes of a join or a healing are taken.
const window = 30 * time.Second

// join lets a tenth of the nodes come at once.
func (w *world) join(n int, out *outcome) error {
	if err := w.settle(n); err != nil {
		return err
	}
	w.load(n)
	time.Sleep(20 * time.Second)
	watch, before := w.watch(), w.meter()
	w.say("%d join", w.nodes-n)
	if err := w.start(w.nodes-n, time.Second); err != nil {
		return err
	}
	out.recover(w, before, time.Second, func() int { return w.track.complete(w.nodes) }, func() { out.Deaths += watch.look(nil) })
	return nil
}

// recover waits until all nodes are as ok counts them, and takes bytes and deaths meanwhile.
func (out *outcome) recover(w *world, before meter, already time.Duration, ok func() int, each func()) {
	const step, limit = 200 * time.Millisecond, 15 * time.Minute
	out.Most, out.All, out.Window = never, never, window.Seconds()
	begun := time.Now().Add(-already)
	measured := false
	for i := 0; time.Since(begun) < limit && (out.All == never || !measured); i++ {
		took := time.Since(begun)
		n := ok()
		if out.Most == never && n >= (99*w.nodes+99)/100 {
			out.Most = took.Seconds()
		}
		if out.All == never && n == w.nodes {
			out.All = took.Seconds()
		}
		if !measured && took >= window {
			measured = true
			var r result
			w.since(before.upTo(w), &r)
			out.BytesMean, out.BytesMax = r.BytesMean, r.BytesMax
		}
		if i%5 == 0 {
			each()
		}
		time.Sleep(step)
	}
	w.say("99 %% after %.1f s, all after %.1f s, %d deaths; %.1f KB/s a node, most %.1f", out.Most, out.All, out.Deaths, out.BytesMean/1000, out.BytesMax/1000)
}

// upTo makes room in a meter for those that came later: they had sent nothing.
func (m meter) upTo(w *world) meter {
	for len(m.traffic) < len(w.ports) {
		m.traffic = append(m.traffic, gossiptest.Traffic{})
	}
	return m
}

// cutLength is how long a cluster is cut in two: long enough for each half to bury the other.
const cutLength = 3 * time.Minute

// partition cuts the cluster into two halves and heals it. The load goes on.
func (w *world) partition(out *outcome) error {
	n := w.nodes
	if err := w.settle(n); err != nil {
		return err
	}
	w.load(n)
	time.Sleep(20 * time.Second)
	half := func(i int) bool { return i < n/2 }
	across := func(a, b int) bool { return half(a) != half(b) }
	watch := w.watch()
	w.net.Cut(func(from, to *gossiptest.Port) bool { return across(from.Index, to.Index) })
	for begun := time.Now(); time.Since(begun) < cutLength; time.Sleep(time.Second) {
		out.Deaths += watch.look(across)
	}
	for j, m := range w.members {
		for i, alive := range m.lives {
			if alive && across(i, j) {
				return fmt.Errorf("%s: after %v node %d still holds node %d beyond the cut for alive", w.name, cutLength, j, i)
			}
		}
	}
	said, before := w.track.versions(), w.meter()
	w.net.Cut(nil)
	w.say("healed")
	out.recover(w, before, 0, func() int { return min(w.track.hold(said), w.wholes()) }, func() { out.Deaths += watch.look(nil) })
	w.quiet.Store(true)
	took, equal := w.until(10*time.Minute, time.Second, w.equal)
	out.Equal, out.Quiet = equal, took.Seconds()
	w.say("pictures are equal: %t, after %v without news", equal, took)
	return nil
}

// deaths watches for them in a cluster that has settled.
func (w *world) deaths(length time.Duration, out *outcome) error {
	w.load(w.nodes)
	watch, before := w.watch(), w.meter()
	for begun, told := time.Now(), time.Now(); time.Since(begun) < length; time.Sleep(time.Second) {
		out.Deaths += watch.look(nil)
		if time.Since(told) >= 10*time.Minute {
			told = time.Now()
			w.say("%d deaths so far", out.Deaths)
		}
	}
	var r result
	w.since(before, &r)
	out.BytesMean, out.BytesMax, out.Length, out.Window = r.BytesMean, r.BytesMax, length.Seconds(), length.Seconds()
	w.say("%d deaths in %v; %.1f KB/s a node", out.Deaths, length, r.BytesMean/1000)
	return nil
}
