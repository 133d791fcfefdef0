package handoff

import (
	"slices"
	"testing"
	"time"
)

// pages lets copies fetch what they lack: over two agents and a network that are there, from
// processes that are held.
func (w *world) pages() {
	for _, m := range w.moves {
		src, dst := w.nodes[m.src], w.nodes[m.dst]
		linked := src.up && src.agent.up && !src.cut && dst.up && dst.agent.up && !dst.cut
		for _, p := range dst.all(m.to) {
			from := w.sourceOf(m, p.name)
			if p.lacks && p.criu != "restoring" && linked && from != nil && !from.dead && from.frozen && w.rng.Intn(40) == 0 {
				p.lacks = false
				w.logf("node %d: %s has all of its memory", m.dst, p.id)
			}
		}
		if tell := dst.awaits[m.id]; tell != nil && !dst.lacking(m.to) {
			delete(dst.awaits, m.id)
			w.later("loaded", tell)
		}
	}
}

// asked: p is a container that moves, and its copy lacks memory of it.
func (w *world) asked(p *proc) bool {
	return slices.ContainsFunc(w.moves, func(m *move) bool {
		return slices.Contains(m.containers, p.id) && w.nodes[m.dst].lacking(m.to)
	})
}

// lacking: memory of a living container is still to come.
func (n *node) lacking(uid string) bool {
	return slices.ContainsFunc(n.all(uid), func(p *proc) bool { return p.lacks })
}

// intact: all that a move takes away is there, and held.
func (n *node) intact(m *move) bool {
	held := n.moving(m)
	return len(held) == n.w.size && !slices.ContainsFunc(held, func(p *proc) bool { return !p.frozen })
}

// load is OpLoad: it waits until pages finds nothing missing.
func (n *node) load(m *move, feed func(Event)) {
	life := n.agent.life
	tell := func(e Event) func() {
		return func() {
			if n.agent.up && n.agent.life == life {
				feed(e)
			}
		}
	}
	if n.w.slip(0.1) {
		n.w.later("load fails", tell(Event{Kind: Failed, Op: OpLoad, Reason: "bad luck"}))
		return
	}
	n.awaits[m.id] = tell(Event{Kind: Done, Op: OpLoad})
}

// drop is OpDrop.
func (n *node) drop(m *move, done, failed Event) Event {
	if n.w.slip(0.1) {
		return failed
	}
	for _, p := range n.all(m.to) {
		if p.lacks {
			if n.w.nodes[m.src].intact(m) {
				n.w.fail("a copy was killed for memory that its source has")
			}
			n.kill(p)
		}
	}
	return done
}

// TestPostCopy: with copies that run before their memory has come, nobody runs twice, no source is
// ended or deleted by Drover while a copy lacks its memory, no copy waits for ever, and nothing is
// lost but by the end of what had it.
func TestPostCopy(t *testing.T) {
	if *seed != 0 {
		t.Skip("a seed is TestSimulation's")
	}
	for name, home := range map[string]bool{"two nodes": false, "one node": true} {
		t.Run(name, func(t *testing.T) {
			tally, n := map[string]int{}, *runs
			if home {
				n /= 4
			}
			for s := int64(1); s <= int64(n); s++ {
				broken, w := simulate(s, options{postCopy: true, home: home}, nil)
				if broken != "" {
					t.Fatalf("seed %d: %s", s, broken)
				}
				for _, m := range w.moves {
					tally[m.end(w)]++
				}
			}
			t.Logf("%d runs: %v", n, tally)
			for _, end := range []string{"moved", "aborted", "returned", "forfeited"} {
				if tally[end] < n/1000 {
					t.Errorf("only %d moves %s: the simulation does not go there often enough", tally[end], end)
				}
			}
		})
	}
}

// TestPostCopyPowerLoss takes the power of the source or of the target away after every single thing
// that happens between the commit and the end of the move.
func TestPostCopyPowerLoss(t *testing.T) {
	for of, ends := range map[int][]string{0: {"moved", "forfeited"}, 1: {"moved", "returned", "lost"}} {
		tally := map[string]int{}
		powerLoss(t, options{postCopy: true}, of, tally)
		t.Logf("node %d: %v", of, tally)
		for _, end := range ends {
			if tally[end] == 0 {
				t.Errorf("no power loss of node %d ended with a move %s: %v", of, end, tally)
			}
		}
	}
}

// TestPostCopyCalm: without faults every move succeeds, and the source is held until all has come.
func TestPostCopyCalm(t *testing.T) {
	for s := int64(1); s <= 300; s++ {
		broken, w := simulate(s, options{postCopy: true, calm: true}, nil)
		if broken != "" {
			t.Fatalf("seed %d: %s", s, broken)
		}
		for _, m := range w.moves {
			if end := m.end(w); end != "moved" {
				t.Errorf("seed %d: %s, want moved", s, end)
			}
		}
	}
}

// What a source does whose memory is needed, and when it is not any more.
func TestWhatIsNeededIsHeld(t *testing.T) {
	held := SourceFacts{Fence: true, Alive: true, Frozen: true}
	node := func(boot string, gone bool) Event { return Event{Kind: Node, Outcome: OK, BootID: boot, Gone: gone} }
	for _, c := range []struct {
		what   string
		facts  SourceFacts
		change func(*Record)
		e      Event
		want   string
	}{
		{"runs", held, func(*Record) {}, Event{Kind: Seen}, ""},
		{"runs, later", held, func(*Record) {}, Event{Kind: Tick}, "read-node ; "},
		{"same boot", held, func(*Record) {}, node("b", false), ""},
		{"booted", held, func(*Record) {}, node("b2", false), "write load; "},
		{"gone", held, func(*Record) {}, node("", true), "write load; "},
		{"loaded", held, func(r *Record) { r.Target.Loaded = true }, Event{Kind: Seen}, "end ; "},
		{"no post-copy", held, func(r *Record) { r.PostCopy = false }, Event{Kind: Seen}, "end ; "},
		{"ended", SourceFacts{Fence: true}, func(*Record) {}, Event{Kind: Seen}, "write forfeit; "},
		{"one of two ended", SourceFacts{Fence: true, Alive: true, Short: true, Frozen: true}, func(*Record) {}, Event{Kind: Seen}, "write forfeit; "},
		{"thawed by somebody", SourceFacts{Fence: true, Alive: true}, func(*Record) {}, Event{Kind: Seen}, "write forfeit; "},
		{"ends now", held, func(*Record) {}, Event{Kind: Died, ID: "c"}, "write forfeit; "},
		{"ended, said", SourceFacts{Fence: true}, func(r *Record) { r.Source.Forfeited = true }, Event{Kind: Seen}, ""},
		{"ended before the commit", SourceFacts{Fence: true}, func(r *Record) { r.Decision, r.Target.Resumed = Undecided, false }, Event{Kind: Tick}, "write abort; "},
		{"ended before the start", SourceFacts{Fence: true}, func(r *Record) { r.Target.Starting, r.Target.Resumed = false, false }, Event{Kind: Seen}, "write forfeit; "},
		{"ended, and the copy too", SourceFacts{Fence: true}, func(r *Record) {
			r.Target.Resumed, r.Target.Failed, r.Source.Forfeited = false, true, true
		}, Event{Kind: Seen}, "write return; "},
	} {
		r := committedRecord()
		r.PostCopy, r.Target.Resumed = true, true
		c.change(&r)
		if c.e.Kind == Seen {
			c.e.Record = r
		}
		if got := ops(NewSource(DefaultConfig(), r, c.facts).Step(time.Unix(0, 0), c.e)); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// A target waits for its memory and serves creates meanwhile; what cannot come any more it drops.
func TestLoading(t *testing.T) {
	r := committedRecord()
	r.PostCopy, r.Target.Resumed = true, true
	m := NewTarget(DefaultConfig(), r, TargetFacts{BootID: "b", Copy: "c", Alive: true, Begun: true})
	lost, loaded := r, r
	lost.Source.Forfeited, loaded.Source.Forfeited, loaded.Target.Loaded = true, true, true
	for _, step := range []struct {
		e    Event
		want string
		done bool
	}{
		{Event{Kind: Seen, Record: r}, "load ; ", false},
		{Event{Kind: Tick}, "", false},
		{Event{Kind: WaiterCame, ID: "d"}, "fresh ; ", false},
		{Event{Kind: Done, Op: OpFresh}, "", false},
		{Event{Kind: Failed, Op: OpLoad}, "", false},
		{Event{Kind: Tick}, "load ; ", false},
		{Event{Kind: Seen, Record: lost}, "drop ; ", false},
		{Event{Kind: Failed, Op: OpDrop}, "", false},
		{Event{Kind: Tick}, "drop ; ", false},
		{Event{Kind: Done, Op: OpLoad}, "", false}, // OpDrop is under way
		{Event{Kind: Done, Op: OpDrop}, "write load; ", false},
		{Event{Kind: Wrote, Outcome: OK, Record: loaded}, "", true},
	} {
		if got := ops(m.Step(time.Unix(0, 0), step.e)); got != step.want || m.Done() != step.done {
			t.Errorf("%s %s: %q, done %v; want %q, %v", step.e.Kind, step.e.Op, got, m.Done(), step.want, step.done)
		}
	}
}

// A copy whose memory is lost before it ran is not let run, unless it lacks none any more.
func TestForfeitedBeforeTheStart(t *testing.T) {
	for what, c := range map[string]struct {
		starting bool
		after    Copy // the look after OpDrop
		want     []string
	}{
		"lacks some":             {after: Copy{ID: "c"}, want: []string{"drop ; ", "look ; ", "look ; ", "kill ; "}},
		"is whole":               {after: Copy{ID: "c", Alive: true, Frozen: true}, want: []string{"drop ; ", "look ; ", "write start; "}},
		"is whole, was starting": {starting: true, want: []string{"drop ; ", "resume ; "}}, // OpResume looks, too
	} {
		t.Run(what, func(t *testing.T) {
			r := committedRecord()
			r.PostCopy, r.Target.Starting, r.Source.Forfeited = true, c.starting, true
			t0 := time.Unix(0, 0)
			m := NewTarget(DefaultConfig(), r, TargetFacts{BootID: "b", Copy: "c", Waiter: "c", Deadline: t0.Add(time.Hour), Images: true, Held: true, Alive: true, Frozen: true})
			e := Event{Kind: Seen, Record: r}
			for _, want := range c.want {
				acts := m.Step(t0, e)
				if got := ops(acts); got != want {
					t.Fatalf("after %s %s: %q, want %q", e.Kind, e.Op, got, want)
				}
				switch acts[0].Op {
				case OpDrop:
					e = Event{Kind: Done, Op: OpDrop}
				case OpLook:
					e = Event{Kind: Looked, Copies: []Copy{c.after}}
				}
			}
		})
	}
}

// What the controller does while memory is fetched.
func TestOverseeWhileLoading(t *testing.T) {
	for _, c := range []struct {
		what    string
		c       Cluster
		forfeit bool
		rest    Verdict
	}{
		{"ready", Cluster{ReplacementReady: true}, false, Verdict{}},
		{"replacement deleted", Cluster{ReplacementGone: true}, false, Verdict{}},
		{"source deleted by the user", Cluster{SourceUnwanted: true, SourceDeleted: true}, false, Verdict{Discard: true}},
		{"source evicted", Cluster{SourceDeleted: true}, false, Verdict{}},
		{"source's node gone", Cluster{SourceDeleted: true, SourceNodeGone: true}, true, Verdict{}},
		{"both nodes gone", Cluster{SourceNodeGone: true, TargetNodeGone: true}, false, Verdict{Settled: true}},
	} {
		r := committedRecord()
		r.PostCopy, r.Target.Resumed = true, true
		v := Oversee(r, c.c)
		if (v.Forfeit != nil) != c.forfeit {
			t.Errorf("%s: forfeit %v, want %v", c.what, v.Forfeit, c.forfeit)
		}
		if v.Forfeit = nil; v != c.rest {
			t.Errorf("%s: %+v, want %+v", c.what, v, c.rest)
		}
	}
}
