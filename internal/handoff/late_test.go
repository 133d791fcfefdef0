package handoff

import (
	"testing"
	"time"
)

func committedRecord() Record {
	return Record{ID: "m", Version: "9", Epoch: 2, Decision: Committed, Source: SourceRecord{Offered: true},
		Target: TargetRecord{Waiting: true, BootID: "b", Starting: true}}
}

// A commit whose answer was lost may be read when the create has no time left: kubelet
// would kill a copy that had just begun to run. One that never ran is given back instead.
func TestACommitReadTooLateIsGivenBack(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	r := committedRecord()
	r.Decision = Undecided
	held := TargetFacts{BootID: "b", Copy: "c", Waiter: "c", Deadline: t0.Add(100 * time.Second), Images: true, Held: true, Alive: true, Frozen: true}
	for after, want := range map[time.Duration]Op{99 * time.Second: OpResume, 100 * time.Second: OpKill, 118 * time.Second: OpKill} {
		m := NewTarget(DefaultConfig(), r, held)
		now := committedRecord()
		acts := m.Step(t0.Add(after), Event{Kind: Read, Outcome: OK, Record: now})
		if len(acts) == 1 && acts[0].Op == OpLook {
			acts = m.Step(t0.Add(after), Event{Kind: Looked, Copies: []Copy{{ID: "c", Alive: true, Frozen: true}}})
		}
		if len(acts) != 1 || acts[0].Op != want {
			t.Errorf("read %v after the create: %+v, want %s", after, acts, want)
		}
	}
}

// An agent that dies while it kills a copy may leave it thawed with the kill pending: what
// bears no mark was never let run, and must not be acknowledged. What is thawed and not killed
// was let run by somebody, mark or not; without one it is let run by the agent, too, so that
// nobody takes it for held any more.
func TestAThawedCopyWithoutAMark(t *testing.T) {
	for _, c := range []struct {
		what         string
		begun, dying bool
		want         Action
	}{
		{"marked", true, false, Action{Op: OpWrite, Change: Change{Verb: Resume}}},
		{"killed", false, true, Action{Op: OpKill}},
		{"thawed by somebody", false, false, Action{Op: OpResumeRest}},
	} {
		m := NewTarget(DefaultConfig(), committedRecord(), TargetFacts{BootID: "b", Copy: "c", Alive: true, Begun: c.begun})
		acts := m.Step(time.Unix(0, 0), Event{Kind: Tick})
		if len(acts) == 1 && acts[0].Op == OpLook {
			acts = m.Step(time.Unix(0, 0), Event{Kind: Looked, Copies: []Copy{{ID: "c", Alive: true, Dying: c.dying}}})
		}
		if len(acts) != 1 || acts[0].Op != c.want.Op || acts[0].Change.Verb != c.want.Change.Verb {
			t.Errorf("%s: %+v, want %+v", c.what, acts, c.want)
		}
	}
}

// That every copy is held is looked at right before the commit and right before the start: a
// freezer that somebody has let go tells nobody.
func TestCopiesAreLookedAtAgain(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	frozen, thawed := Copy{ID: "p", Alive: true, Frozen: true}, Copy{ID: "p", Alive: true}
	dead := Copy{ID: "p"}
	last := Copy{ID: "c", Alive: true, Frozen: true}
	orphan := Copy{ID: "c", Alive: true, Frozen: true, Orphaned: true}
	facts := TargetFacts{BootID: "b", Copy: "c", Waiter: "c", Deadline: t0.Add(100 * time.Second), Images: true, Held: true, Alive: true, Frozen: true}
	undecided, committed, started := committedRecord(), committedRecord(), committedRecord()
	undecided.Decision, undecided.Target.Starting, committed.Target.Starting = Undecided, false, false
	for _, c := range []struct {
		what   string
		r      Record
		resume bool // and it failed
		copies []Copy
		want   string
	}{
		{"commit", undecided, false, []Copy{frozen, last}, "write commit"},
		{"commit, thawed", undecided, false, []Copy{thawed, last}, "write abort"},
		{"commit, ended", undecided, false, []Copy{dead, last}, "write abort"},
		{"commit, not found", undecided, false, []Copy{last}, "write abort"},
		{"commit, the last thawed", undecided, false, []Copy{frozen, {ID: "c", Alive: true}}, "write abort"},
		{"commit, killed while held", undecided, false, []Copy{{ID: "p", Alive: true, Frozen: true, Dying: true}, last}, "write abort"},
		{"commit, CRIU killed", undecided, false, []Copy{frozen, orphan}, "write abort"},
		{"start", committed, false, []Copy{frozen, last}, "write start"},
		{"start, CRIU killed", committed, false, []Copy{frozen, orphan}, "kill "},
		{"start, thawed", committed, false, []Copy{thawed, last}, "write start"}, // it ran
		{"start, ended", committed, false, []Copy{dead, last}, "kill "},
		{"resume failed", started, true, []Copy{frozen, last}, "kill "},
		{"resume failed, thawed", started, true, []Copy{thawed, last}, "resume-rest "},
		{"resume failed, ended", started, true, []Copy{dead, last}, "resume-rest "},                          // perhaps thawed
		{"resume failed, all thawed", started, true, []Copy{thawed, {ID: "c", Alive: true}}, "resume-rest "}, // CRIU waits for its hook
		{"resume failed, ended while held", started, true, []Copy{{ID: "p", Frozen: true}, last}, "kill "},
		{"resume failed, killed", started, true, []Copy{{ID: "p", Alive: true, Dying: true}, last}, "kill "},
	} {
		c.r.Containers, facts.Passed = 2, []Copy{frozen}
		m := NewTarget(DefaultConfig(), c.r, facts)
		acts := m.Step(t0, Event{Kind: Seen, Record: c.r})
		if len(acts) == 1 && acts[0].Op == OpConfirm {
			acts = m.Step(t0, Event{Kind: Read, Outcome: OK, Record: c.r, Confirmed: true})
		}
		if c.resume {
			acts = m.Step(t0, Event{Kind: Failed, Op: OpResume})
		}
		if len(acts) != 1 || acts[0].Op != OpLook {
			t.Errorf("%s: %+v, want a look", c.what, acts)
			continue
		}
		if again := m.Step(t0, Event{Kind: Failed, Op: OpLook}); len(again) != 0 {
			t.Errorf("%s: %+v at once after a look that failed", c.what, again)
		}
		if acts = m.Step(t0, Event{Kind: Tick}); len(acts) != 1 || acts[0].Op != OpLook {
			t.Errorf("%s: %+v after a look that failed, want another", c.what, acts)
		}
		for len(acts) == 1 && acts[0].Op == OpLook {
			acts = m.Step(t0, Event{Kind: Looked, Copies: c.copies})
		}
		if got := ops(acts); got != c.want+"; " {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// What an end that failed half-way has killed must not be taken for what ran, whatever becomes of
// the record meanwhile.
func TestAnEndThatFailedIsNoRun(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	r := committedRecord()
	r.Containers = 2
	m := NewTarget(DefaultConfig(), r, TargetFacts{BootID: "b", Copy: "c", Alive: true, Frozen: true, Passed: []Copy{{ID: "p", Alive: true, Frozen: true}}})
	m.Step(t0, Event{Kind: Seen, Record: r})
	held := []Copy{{ID: "p", Alive: true, Frozen: true}, {ID: "c", Alive: true, Frozen: true}}
	if got := ops(m.Step(t0, Event{Kind: Looked, Copies: held})); got != "kill ; " {
		t.Fatalf("%q, want the copies killed", got)
	}
	m.Step(t0, Event{Kind: Failed, Op: OpKill})
	r.Version = "10"
	m.Step(t0, Event{Kind: Seen, Record: r})
	acts := m.Step(t0, Event{Kind: Tick})
	if len(acts) == 1 && acts[0].Op == OpLook {
		acts = m.Step(t0, Event{Kind: Looked, Copies: []Copy{{ID: "p"}, held[1]}})
	}
	if got := ops(acts); got != "kill ; " {
		t.Errorf("%q after an end that has failed, want another", got)
	}
}

// An abort is tried, and acted on, while a copy is being passed: what is waited for may hang.
func TestAbortWhilePassing(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	r := committedRecord()
	r.Decision, r.Target.Starting, r.Containers = Undecided, false, 2
	m := NewTarget(DefaultConfig(), r, TargetFacts{BootID: "b", Copy: "c", Waiter: "c", Deadline: t0.Add(100 * time.Second), Images: true, Held: true, Alive: true, Frozen: true})
	aborted := r
	aborted.Decision = Aborted
	for _, step := range []struct {
		now  time.Duration
		e    Event
		want string
	}{
		{0, Event{Kind: Seen, Record: r}, "pass ; "},
		{0, Event{Kind: Tick}, ""},
		{95 * time.Second, Event{Kind: Tick}, "write abort; "},
		{95 * time.Second, Event{Kind: Wrote, Outcome: OK, Record: aborted}, "cancel ; "},
		{96 * time.Second, Event{Kind: Tick}, ""},
		{96 * time.Second, Event{Kind: Failed, Op: OpPass}, "kill ; "},
	} {
		if got := ops(m.Step(t0.Add(step.now), step.e)); got != step.want {
			t.Errorf("%s after %v: %q, want %q", step.e.Kind, step.now, got, step.want)
		}
	}
}

// A target that was booted since its copy was starting cannot know whether it ran. It says
// that it did, so that nobody goes on from the state before; unless its fence, which it wrote
// before the boot, says that the copy was ended unrun.
func TestABootAfterTheStartCountsAsHavingRun(t *testing.T) {
	for _, c := range []struct {
		what  string
		facts TargetFacts
		want  Verb
	}{
		{"booted", TargetFacts{BootID: "b2"}, Resume},
		{"ended unrun, then booted", TargetFacts{BootID: "b2", Fence: true}, Fail},
		{"ended unrun", TargetFacts{BootID: "b", Fence: true}, Fail},
	} {
		acts := NewTarget(DefaultConfig(), committedRecord(), c.facts).Step(time.Unix(0, 0), Event{Kind: Tick})
		if len(acts) != 1 || acts[0].Change.Verb != c.want {
			t.Errorf("%s: %+v, want %s", c.what, acts, c.want)
		}
	}
}

// Once the copy was starting, neither a new boot nor a node that is gone gives the pod back.
func TestWhatProvesThatTheCopyNeverRan(t *testing.T) {
	node := func(boot string, gone bool) Event {
		return Event{Kind: Node, Outcome: OK, BootID: boot, Gone: gone}
	}
	for _, c := range []struct {
		what             string
		starting, failed bool
		e                Event
		want             Verb
	}{
		{"booted", false, false, node("b2", false), Return},
		{"gone", false, false, node("", true), Return},
		{"same boot", false, false, node("b", false), ""},
		{"booted after the start", true, false, node("b2", false), ""},
		{"gone after the start", true, false, node("", true), Lose},
		{"failed after the start", true, true, Event{Kind: Tick}, Return},
	} {
		r := committedRecord()
		r.Target.Starting, r.Target.Failed = c.starting, c.failed
		var got Verb
		for _, a := range NewSource(DefaultConfig(), r, SourceFacts{Fence: true, Alive: true, Frozen: true}).Step(time.Unix(0, 0), c.e) {
			got = a.Change.Verb
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// A source that was booted, or whose container ended, while it was held is let go on, and says
// that there is nothing left of it.
func TestReleaseOfWhatIsGone(t *testing.T) {
	r := committedRecord()
	r.Decision, r.Target.Starting, r.Containers = Aborted, false, 2
	for _, c := range []struct {
		what  string
		facts SourceFacts
		lost  bool
	}{
		{"held", SourceFacts{Fence: true, Alive: true, Frozen: true}, false},
		{"booted", SourceFacts{Fence: true}, true},
		{"one of two ended", SourceFacts{Fence: true, Alive: true, Frozen: true, Short: true}, true},
	} {
		m := NewSource(DefaultConfig(), r, c.facts)
		acts := m.Step(time.Unix(0, 0), Event{Kind: Seen, Record: r})
		for _, op := range []Op{OpLift, OpThaw} {
			if len(acts) != 1 || acts[0].Op != op {
				t.Fatalf("%s: %+v, want %s", c.what, acts, op)
			}
			acts = m.Step(time.Unix(0, 0), Event{Kind: Done, Op: op})
		}
		if len(acts) != 1 || acts[0].Change.Verb != Release || (acts[0].Change.Message != "") != c.lost {
			t.Errorf("%s: %+v, want a release that says that it is lost: %v", c.what, acts, c.lost)
		}
	}
}

// A copy that has ended by itself has left its traces: they are cleared away before the move is.
func TestDeadCopyIsClearedAway(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	aborted, returned := committedRecord(), committedRecord()
	aborted.Decision, aborted.Target.Starting = Aborted, false
	returned.Target.Starting, returned.Target.Failed, returned.Returned = false, true, true
	for what, r := range map[string]Record{"aborted": aborted, "returned": returned} {
		m := NewTarget(DefaultConfig(), r, TargetFacts{BootID: "b", Copy: "c", Fence: true})
		if got := ops(m.Step(t0, Event{Kind: Seen, Record: r})); got != "kill ; " {
			t.Errorf("%s: %q, want the copy killed", what, got)
		}
		if got := ops(m.Step(t0, Event{Kind: Done, Op: OpKill})); got != "write clean; " {
			t.Errorf("%s: %q, want the clean end told", what, got)
		}
	}
}

// A look that cannot be acted on at once is of no use later: somebody may have let a copy run since.
func TestALookIsNotKept(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	r := committedRecord()
	frozen := []Copy{{ID: "c", Alive: true, Frozen: true}}
	m := NewTarget(DefaultConfig(), r, TargetFacts{BootID: "b", Copy: "c", Waiter: "c", Deadline: t0.Add(time.Minute), Held: true, Alive: true, Frozen: true})
	for _, step := range []struct {
		e    Event
		want string
	}{
		{Event{Kind: Seen, Record: r}, "resume ; "},
		{Event{Kind: Failed, Op: OpResume}, "look ; "},
		{Event{Kind: Read, Outcome: Unknown}, ""}, // asked for before
		{Event{Kind: Looked, Copies: frozen}, ""},
		{Event{Kind: Tick}, "read ; "},
		{Event{Kind: Read, Outcome: OK, Record: r}, "look ; "},
		{Event{Kind: Looked, Copies: frozen}, "kill ; "},
	} {
		if got := ops(m.Step(t0, step.e)); got != step.want {
			t.Errorf("%s %s%s: %q, want %q", step.e.Kind, step.e.Op, step.e.Outcome, got, step.want)
		}
	}
}

// What a copy that has ended means depends on whether the record says that it was starting: the
// record is read first when that is not known.
func TestTheRecordIsReadBeforeALook(t *testing.T) {
	t0 := time.Unix(1_700_000_000, 0)
	r := committedRecord()
	r.Target.Starting, r.Containers = false, 2
	held := Copy{ID: "p", Alive: true, Frozen: true}
	m := NewTarget(DefaultConfig(), r, TargetFacts{BootID: "b", Copy: "c", Waiter: "c", Deadline: t0.Add(time.Minute), Held: true, Alive: true, Frozen: true, Passed: []Copy{held}})
	started := r
	started.Version, started.Target.Starting = "10", true
	for _, step := range []struct {
		e    Event
		want string
	}{
		{Event{Kind: Seen, Record: r}, "look ; "},
		{Event{Kind: Looked, Copies: []Copy{held, {ID: "c", Alive: true, Frozen: true}}}, "write start; "},
		{Event{Kind: Died, ID: "c"}, ""}, // by kubelet, while "p" was let run by somebody, and ended too
		{Event{Kind: Wrote, Outcome: Unknown}, "read ; "},
		{Event{Kind: Read, Outcome: OK, Record: started}, "look ; "},
		{Event{Kind: Looked, Copies: []Copy{{ID: "p"}}}, "write resume; "}, // it may have run
	} {
		if got := ops(m.Step(t0, step.e)); got != step.want {
			t.Errorf("%s %s%s: %q, want %q", step.e.Kind, step.e.Op, step.e.Outcome, got, step.want)
		}
	}
}
