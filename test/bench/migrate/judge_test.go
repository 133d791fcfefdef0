package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/test/bench/report"
)

// Medians of three moves each: Drover's gap is 120 ms, bare CRIU's 100 (goal 1.3 * 100 = 130), the
// standard path's 800 (goal 800 / 8 = 100).
func TestJudge(t *testing.T) {
	s, err := parse([]string{"-sizes", "16", "-dirty", "0"})
	if err != nil {
		t.Fatal(err)
	}
	w, r := workload{16, 0}, results{}
	for side, gaps := range map[string][]int{"drover": {100, 120, 500}, bareCRIU: {90, 100, 101}, standardPath: {700, 800, 900}} {
		for _, ms := range gaps {
			r.add(w, side, figures{gap: time.Duration(ms) * time.Millisecond}, nil)
		}
	}
	r.add(w, newStart, figures{}, errors.New("it did not start"))
	metrics := r.judge(s)
	for _, want := range []report.Metric{
		{Name: "size=16MiB/idle/drover/gap", Value: 120, Unit: "ms", Met: true},
		{Name: "size=16MiB/idle/drover/gap-greatest", Value: 500, Unit: "ms", Met: true},
		{Name: "size=16MiB/idle/drover/gap-beside-bare", Value: 120, Unit: "ms", Goal: 130, Met: true, Baseline: 100},
		{Name: "size=16MiB/idle/drover/gap-beside-standard", Value: 120, Unit: "ms", Goal: 100, Met: false, Baseline: 800},
		{Name: "size=16MiB/idle/recreate/failed", Value: 1, Unit: "moves"},
	} {
		if !slices.Contains(metrics, want) {
			t.Errorf("no %+v in %+v", want, metrics)
		}
	}
	for _, m := range metrics {
		if strings.HasPrefix(m.Name, "size=16MiB/idle/recreate/") && m.Name != "size=16MiB/idle/recreate/failed" {
			t.Errorf("%s is a figure of moves that all failed", m.Name)
		}
	}
}

// A gap of 340 ms of 1 GiB meets the goal of 350, one of 360 does not; of less memory there is no goal.
func TestJudgePostCopy(t *testing.T) {
	s, err := parse([]string{"-sizes", "256,1024", "-dirty", "0"})
	if err != nil {
		t.Fatal(err)
	}
	for ms, met := range map[int]bool{340: true, 360: false} {
		r := results{}
		for _, size := range s.sizes {
			r.add(workload{size, 0}, "post-copy", figures{gap: time.Duration(ms) * time.Millisecond}, nil)
		}
		var goals []report.Metric
		for _, m := range r.judge(s) {
			if strings.HasSuffix(m.Name, "/gap-goal") {
				goals = append(goals, m)
			}
		}
		want := report.Metric{Name: "size=1024MiB/idle/post-copy/gap-goal", Value: float64(ms), Unit: "ms", Goal: 350, Met: met}
		if len(goals) != 1 || goals[0] != want {
			t.Errorf("got %+v, want %+v alone", goals, want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-sizes", "0"}, {"-sizes", "x"}, {"-dirty", "-1"}, {"-dirty", "NaN"}, {"-sides", "drover,none"}, {"-rounds", "0"}} {
		if _, err := parse(args); err == nil || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("%v: error %v, want one that names the flag", args, err)
		}
	}
	s, err := parse([]string{"-sides", "bare,drover"})
	if err != nil || len(s.sides) != 2 || s.sides[0].name != bareCRIU {
		t.Errorf("two sides: %+v, %v", s.sides, err)
	}
}
