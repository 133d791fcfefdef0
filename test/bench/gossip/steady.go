package gossip

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
)

// wall is the time of day outside of the bubble.
func wall() string {
	return time.Unix(0, wallNanos()).Format("15:04:05")
}

func wallNanos() int64 {
	var tv syscall.Timeval
	if err := syscall.Gettimeofday(&tv); err != nil {
		panic(err) // it has no other error than a bad address
	}
	return tv.Nano()
}

// processors is the time that they have spent on this process, in seconds.
func processors() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // likewise
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// times are those of one kind of record, in seconds: until 99 % and all of the nodes have
// it, of the median record and of the one that 99 in 100 are not slower than.
type times struct {
	Records                      int
	Most50, Most99, All50, All99 float64
	Bytes                        int // of one record
}

// result is what a cluster at rest under the load has shown.
type result struct {
	System string
	Nodes  int
	Loss   float64
	Seed   uint64
	// Report is since the change, Told since it was told: gossip may put that off.
	Report, Told times
	// Location is when both ends' announcements have come.
	Location times
	// BytesMean and BytesMax are those of a node and second, both directions, of the mean
	// node and of the one with the most; SentMean and SentMax what it sends.
	BytesMean, BytesMax, SentMean, SentMax float64
	Packets                                float64 // sent by a node a second
	Overflows                              int     // packets that came to a full queue
	// Kinds are the bytes that the mean node sends a second, by what they are for.
	Kinds  map[string]float64
	Length float64 // seconds measured
}

func (s *spreading) times() times {
	s.mu.Lock()
	defer s.mu.Unlock()
	return timesOf(s.most, s.all, s.begun, s.bytes)
}

func timesOf(most, all []time.Duration, begun, bytes int) times {
	at := func(took []time.Duration, q float64) float64 {
		d, ok := quantile(took, begun, q)
		if !ok {
			return never
		}
		return d.Seconds()
	}
	return times{Records: begun, Bytes: bytes, Most50: at(most, 0.5), Most99: at(most, 0.99), All50: at(all, 0.5), All99: at(all, 0.99)}
}

// never stands for a time that was not over when the following ended, in seconds.
const never = 1e6

// meter takes the traffic between two moments.
type meter struct {
	at      time.Time
	traffic []gossiptest.Traffic
	kinds   map[string]int
}

func (w *world) meter() meter {
	m := meter{at: time.Now(), kinds: w.net.KindBytes()}
	for _, p := range w.ports {
		m.traffic = append(m.traffic, p.Traffic())
	}
	return m
}

// since fills in what the nodes have sent and received since, a second.
func (w *world) since(m meter, r *result) {
	now := w.meter()
	seconds := now.at.Sub(m.at).Seconds()
	n := float64(len(m.traffic))
	r.BytesMean, r.BytesMax, r.SentMean, r.SentMax, r.Packets = 0, 0, 0, 0, 0
	for i := range m.traffic {
		t := now.traffic[i].Sub(m.traffic[i])
		r.BytesMean += float64(t.Bytes()) / seconds / n
		r.BytesMax = max(r.BytesMax, float64(t.Bytes())/seconds)
		r.SentMean += float64(t.Sent) / seconds / n
		r.SentMax = max(r.SentMax, float64(t.Sent)/seconds)
		r.Packets += float64(t.Packets) / seconds / n
		r.Overflows += t.Overflows
	}
	r.Kinds = map[string]float64{}
	for k, b := range now.kinds {
		r.Kinds[k] = float64(b-m.kinds[k]) / seconds / n
	}
}

// calm waits until what memberlist has to say of so many that came at once is said.
func (w *world) calm(n int) {
	if _, is := w.members[0].(*plain); is {
		// It compresses that, so that it cannot be told apart: 3 packets every 200 ms carry 200 words
		// a second of which each is said 16 times by 1,000, less by fewer.
		time.Sleep(time.Duration(n) * 80 * time.Millisecond)
		w.say("calm")
		return
	}
	const quiet, step = 100, 5 * time.Second // bytes a node and second
	w.until(5*time.Minute, step, w.allMembers)
	w.net.Mute(gossiptest.KindMembership) // it is news to nobody any more
	before := w.net.KindBytes()[gossiptest.KindMembership]
	w.until(5*time.Minute, 0, func() bool {
		time.Sleep(step)
		now := w.net.KindBytes()[gossiptest.KindMembership]
		rate := float64(now-before) / step.Seconds() / float64(n)
		before = now
		return rate < quiet
	})
	w.net.Mute("")
	w.say("calm, %.0f s of processors", processors())
}

// allMembers tells whether each of Drover's members holds all for members.
func (w *world) allMembers() bool {
	for _, m := range w.members {
		alive := 0
		for _, other := range m.(*node).Members() {
			if other.Alive {
				alive++
			}
		}
		if alive < len(w.members) {
			return false
		}
	}
	return true
}

// warmUp is how long the load goes on before anything is measured: each node has told two reports or
// more then, and when it began does not show any more.
const warmUp = 20 * time.Second

// follow is how long records are followed after the last that counts was told.
const follow = 30 * time.Second

// steady measures a cluster that nothing happens to.
func (w *world) steady(n int, length time.Duration, r *result) error {
	if err := w.settle(n); err != nil {
		return err
	}
	w.calm(n)
	w.load(n)
	time.Sleep(warmUp)
	wallBefore, busyBefore := wallNanos(), processors()
	before := w.meter()
	w.track.record(true)
	time.Sleep(length)
	w.track.record(false)
	w.since(before, r)
	r.Length = length.Seconds()
	w.say("%v took %.1f s, and %.1f s of processors", length, float64(wallNanos()-wallBefore)/1e9, processors()-busyBefore)
	w.until(follow, 100*time.Millisecond, func() bool {
		for i := range w.track.spread {
			s := &w.track.spread[i]
			s.mu.Lock()
			open := len(s.all) < s.begun
			s.mu.Unlock()
			if open {
				return false
			}
		}
		return true
	})
	r.Report, r.Told, r.Location = w.track.spread[report].times(), w.track.spread[told].times(), w.track.spread[location].times()
	w.say("reports %s; since told %s; locations %s; %.1f KB/s sent a node, most %.1f; %d overflows", r.Report, r.Told, r.Location, r.SentMean/1000, r.SentMax/1000, r.Overflows)
	if len(r.Kinds) > 0 {
		w.say("bytes sent a second:%s", kindsLine(r.Kinds))
	}
	return nil
}

func (t times) String() string {
	return fmt.Sprintf("(%d) 99%% in %.2f/%.2f s, all in %.2f/%.2f s", t.Records, t.Most50, t.Most99, t.All50, t.All99)
}

func kindsLine(kinds map[string]float64) string {
	line := ""
	for _, k := range slices.SortedFunc(maps.Keys(kinds), func(a, b string) int { return int(kinds[b] - kinds[a]) }) {
		line += fmt.Sprintf(" %s %.0f", k, kinds[k])
	}
	return line
}
