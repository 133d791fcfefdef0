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
		if len(acts) != 1 || acts[0].Op != want {
			t.Errorf("read %v after the create: %+v, want %s", after, acts, want)
		}
	}
}

// An agent that dies while it kills a copy may leave it thawed with the kill pending: what
// bears no mark was never let run, and must not be acknowledged.
func TestAThawedCopyWithoutAMarkDidNotRun(t *testing.T) {
	for begun, want := range map[bool]Verb{true: Resume, false: ""} {
		m := NewTarget(DefaultConfig(), committedRecord(), TargetFacts{BootID: "b", Copy: "c", Alive: true, Begun: begun})
		acts := m.Step(time.Unix(0, 0), Event{Kind: Tick})
		if len(acts) != 1 || acts[0].Change.Verb != want {
			t.Errorf("begun %v: %+v, want %q", begun, acts, want)
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
