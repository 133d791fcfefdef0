package handoff

import (
	"testing"
	"time"
)

func committedRecord() Record {
	return Record{ID: "m", Version: "9", Epoch: 2, Decision: Committed, Source: SourceRecord{Offered: true},
		Target: TargetRecord{Waiting: true, BootID: "b"}}
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
