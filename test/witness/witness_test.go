package witness

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAccount(t *testing.T) {
	type tick struct {
		seq  uint64
		from string
		now  uint64
	}
	for name, c := range map[string]struct {
		ticks []tick
		fault string
	}{
		"nothing":                {nil, "never heard"},
		"one home":               {[]tick{{1, "a", 7}, {2, "a", 7}}, ""},
		"moved":                  {[]tick{{1, "a", 7}, {2, "a", 7}, {3, "b", 7}}, ""},
		"heard from the middle":  {[]tick{{40, "a", 7}, {41, "a", 7}}, ""},
		"a tick twice":           {[]tick{{1, "a", 7}, {2, "a", 7}, {2, "b", 7}}, "twice"},
		"a tick lost":            {[]tick{{1, "a", 7}, {3, "b", 7}}, "missing"},
		"the old one still runs": {[]tick{{1, "a", 7}, {2, "b", 7}, {3, "a", 7}}, "two copies"},
		"heap damaged":           {[]tick{{1, "a", 7}, {2, "b", 8}}, "checksum"},
		"late but in order":      {[]tick{{2, "a", 7}, {1, "a", 7}, {3, "b", 7}}, ""},
	} {
		w, at := New(), time.Unix(0, 0)
		for _, k := range c.ticks {
			at = at.Add(time.Millisecond)
			w.Record(Heard{Tick: Tick{Instance: "i", Seq: k.seq, Start: 7, Now: k.now}, From: k.from, At: at})
		}
		got := w.Account("i").Fault()
		if (c.fault == "") != (got == "") || !strings.Contains(got, c.fault) {
			t.Errorf("%s: fault %q, want one with %q", name, got, c.fault)
		}
	}
}

// After many moves an address may be used again: then the number of turns counts.
func TestFaultAfterMoves(t *testing.T) {
	for name, c := range map[string]struct {
		froms string // one a tick
		moves int
		fault string
	}{
		"stayed":                      {"aaa", 0, ""},
		"there and back":              {"aabba", 2, ""},
		"an old copy spoke once more": {"aabab", 1, "3 times in 1 moves"},
		"it never went":               {"aaaaa", 1, "0 times in 1 moves"},
	} {
		w := New()
		for i, from := range c.froms {
			w.Record(Heard{Tick: Tick{Instance: "i", Seq: uint64(i + 1)}, From: string(from)})
		}
		got := w.Account("i").FaultAfter(c.moves)
		if (c.fault == "") != (got == "") || !strings.Contains(got, c.fault) {
			t.Errorf("%s: fault %q, want one with %q", name, got, c.fault)
		}
	}
}

func TestNamed(t *testing.T) {
	w := New()
	for _, n := range []string{"x-2", "y-1", "x-1", "x-1"} {
		w.Record(Heard{Tick: Tick{Instance: n, Seq: 1}})
	}
	if got := w.Named("x-"); !slices.Equal(got, []string{"x-1", "x-2"}) {
		t.Errorf("named x-: %v, want x-1 and x-2", got)
	}
}

func TestGapIsTheLongestSilence(t *testing.T) {
	w := New()
	for i, ms := range []int{0, 20, 40, 540, 560} {
		w.Record(Heard{Tick: Tick{Instance: "i", Seq: uint64(i + 1)}, From: "a", At: time.UnixMilli(int64(ms))})
	}
	// 540 - 40 = 500 ms, after the third tick.
	if a := w.Account("i"); a.Gap != 500*time.Millisecond || a.GapAfter != 3 {
		t.Fatalf("gap %v after %d, want 500ms after 3", a.Gap, a.GapAfter)
	}
}
