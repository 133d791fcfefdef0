package gossip

import (
	"slices"
	"sync"
	"time"
)

// tracker follows reports and locations to every node. A report has come when it or a newer
// one of its origin was taken in; a location when both ends' announcements were.
type tracker struct {
	nodes     int
	origins   []origin
	spread    [3]spreading // reports, locations, and reports since they were told
	completed completed
}

// origin is what is known of one node's records.
type origin struct {
	mu      sync.Mutex
	changed time.Time // of a report that was not said yet
	open    []*followed
	newest  uint64 // of its reports
	moves   map[uint64]*followed
	move    *followed // being announced
	at      []uint64  // the newest report that each node holds
}

// followed is one report or one location on its way.
type followed struct {
	mu      sync.Mutex
	since   time.Time
	told    time.Time
	version uint64
	need    int // records for each node
	has     []uint8
	held    int // nodes
}

// spreading is the times until 99 % and all of the nodes had it.
type spreading struct {
	mu        sync.Mutex
	most, all []time.Duration
	begun     int
	recording bool
	bytes     int // of the record
}

// completed counts the nodes of which members hold a report.
type completed struct {
	mu    sync.Mutex
	holds []int // of how many each member holds one
}

func newTracker(nodes int) *tracker {
	t := &tracker{nodes: nodes, origins: make([]origin, nodes)}
	t.completed.holds = make([]int, nodes)
	for i := range t.origins {
		t.origins[i].moves = map[uint64]*followed{}
		t.origins[i].at = make([]uint64, nodes)
	}
	return t
}

// changed notes that a node is about to tell something new.
func (t *tracker) changed(i int) {
	o := &t.origins[i]
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed.IsZero() {
		o.changed = time.Now()
	}
}

// moving notes that the next location of both is the same.
func (t *tracker) moving(a, b int) {
	f := &followed{since: time.Now(), need: 2, has: make([]uint8, t.nodes)}
	for _, i := range []int{a, b} {
		o := &t.origins[i]
		o.mu.Lock()
		o.move = f
		o.mu.Unlock()
	}
	t.spread[location].begin()
}

func (s *spreading) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recording {
		s.begun++
	}
}

// record starts or ends the counting: what is under way then is followed to its end.
func (t *tracker) record(on bool) {
	for i := range t.spread {
		s := &t.spread[i]
		s.mu.Lock()
		s.recording = on
		s.mu.Unlock()
	}
}

func (t *tracker) hear(member int, k kind, from int, version uint64, bytes int) {
	if from < 0 || from >= t.nodes || k == other {
		return
	}
	o := &t.origins[from]
	o.mu.Lock()
	defer o.mu.Unlock()
	if k == location {
		if member == from && o.move != nil {
			o.moves[version], o.move = o.move, nil
			t.spread[location].bytes = bytes
		}
		if f := o.moves[version]; f != nil {
			t.count(f, member, location)
		}
		return
	}
	if member == from && !o.changed.IsZero() {
		s := &t.spread[report]
		s.mu.Lock()
		recording := s.recording
		if recording {
			s.begun++
		}
		s.bytes = bytes
		s.mu.Unlock()
		t.spread[told].begin()
		if recording {
			o.open = append(o.open, &followed{since: o.changed, told: time.Now(), version: version, need: 1, has: make([]uint8, t.nodes)})
		}
		o.changed = time.Time{}
	}
	o.newest = max(o.newest, version)
	if o.at[member] == 0 {
		t.completed.add(member)
	}
	o.at[member] = max(o.at[member], version)
	for _, f := range o.open {
		if version >= f.version && f.has[member] == 0 {
			t.count(f, member, report)
		}
	}
	o.open = slices.DeleteFunc(o.open, func(f *followed) bool { return f.held == t.nodes })
}

func (c *completed) add(member int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds[member]++
}

// complete is how many members hold reports of so many nodes or more.
func (t *tracker) complete(nodes int) int {
	t.completed.mu.Lock()
	defer t.completed.mu.Unlock()
	n := 0
	for _, holds := range t.completed.holds {
		if holds >= nodes {
			n++
		}
	}
	return n
}

func (t *tracker) count(f *followed, member int, k kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if int(f.has[member]) == f.need {
		return
	}
	if f.has[member]++; int(f.has[member]) < f.need {
		return
	}
	f.held++
	most := (99*t.nodes + 99) / 100
	if f.held != most && f.held != t.nodes {
		return
	}
	t.spread[k].took(time.Since(f.since), f.held, most, t.nodes)
	if k == report {
		t.spread[told].took(time.Since(f.told), f.held, most, t.nodes)
	}
}

func (s *spreading) took(d time.Duration, held, most, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held == most {
		s.most = append(s.most, d)
	}
	if held == all {
		s.all = append(s.all, d)
	}
}

// versions gives the newest report of each node.
func (t *tracker) versions() []uint64 {
	out := make([]uint64, t.nodes)
	for i := range t.origins {
		o := &t.origins[i]
		o.mu.Lock()
		out[i] = o.newest
		o.mu.Unlock()
	}
	return out
}

// hold tells how many members hold reports that are at least as new.
func (t *tracker) hold(versions []uint64) int {
	lacks := make([]bool, t.nodes)
	for i := range t.origins {
		o := &t.origins[i]
		o.mu.Lock()
		for m, v := range o.at {
			if v < versions[i] {
				lacks[m] = true
			}
		}
		o.mu.Unlock()
	}
	n := 0
	for _, l := range lacks {
		if !l {
			n++
		}
	}
	return n
}

// quantile gives the value that a share q of all are not above; what was not measured counts
// as forever.
func quantile(all []time.Duration, begun int, q float64) (time.Duration, bool) {
	sorted := slices.Sorted(slices.Values(all))
	i := int(q*float64(max(begun, len(sorted)))+0.999999) - 1
	if i < 0 || i >= len(sorted) {
		return 0, false
	}
	return sorted[i], true
}
