package chaos

import (
	"context"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
)

var (
	whole = flag.Bool("chaos.table", false, "run every case that has no result for this commit yet, and write docs/chaos.md")
	last  = flag.Duration("chaos.for", 0, "with -chaos.table: begin no case after this time; 0 is no limit")
	again = flag.Bool("chaos.again", false, "with -chaos.table: run the cases with a bad result for this commit once more")
)

// TestPairwise runs every fault and meets every step.
func TestPairwise(t *testing.T) {
	if *whole {
		t.Skip("-chaos.table runs all cases")
	}
	c := needStage(t)
	now := state(t)
	for _, k := range choice() {
		t.Run(k.String(), func(t *testing.T) {
			r := play(t, c, k)
			r.Commit = now
			must(t, r.save())
			stage.last = &r
			if r.Missed != "" {
				t.Errorf("missed: %s", r.Missed)
			}
		})
	}
	// Nor did the last one leave anything that its pod's end should have taken along.
	mine, _, err := (&scene{Cluster: c, lab: c.Lab}).clean(t.Context())
	must(t, err)
	for _, l := range mine {
		t.Error(l)
	}
}

// TestTable runs every case, and goes on where it was interrupted.
func TestTable(t *testing.T) {
	if !*whole {
		t.Skip("the whole table takes an hour: make chaos")
	}
	began, played := time.Now(), map[string]bool{}
	all, err := readResults()
	if err != nil {
		t.Fatal(err)
	}
	now := state(t)
	defer writePage(t)
	for _, k := range append(choice(), table()...) { // if time is short, better a bit of all
		if played[k.String()] {
			continue
		}
		played[k.String()] = true
		r, done := newest(all, k, now)
		if done && !(*again && (len(r.Wrong) > 0 || r.Missed != "")) {
			continue
		}
		if *last > 0 && time.Since(began) > *last {
			t.Logf("the time given is over; run it again to go on")
			return
		}
		t.Run(k.String(), func(t *testing.T) {
			r := play(t, needStage(t), k)
			r.Commit = now
			must(t, r.save())
			stage.last = &r
		})
	}
}

// state names what the results are about.
func state(t *testing.T) string {
	t.Helper()
	now, err := commit()
	must(t, err)
	return now
}

// play runs one case, again if its step was missed: some last for milliseconds.
func play(t *testing.T, c *cluster.Cluster, k chaos) result {
	t.Helper()
	var r result
	for range 3 {
		r = once(t, c, k)
		if r.Missed == "" {
			break
		}
	}
	for _, w := range r.Wrong {
		t.Error(w)
	}
	t.Logf("%s: %s %s after %d ms, silence of %d ms %s", k, r.Outcome, r.Reason, r.Settle, r.Silence, r.Missed)
	return r
}

func once(t *testing.T, c *cluster.Cluster, k chaos) result {
	t.Helper()
	r := result{Fault: k.fault.name, Step: k.step.String(), At: time.Now().UTC()}
	bad := func(err error) { r.Wrong = append(r.Wrong, err.Error()) }
	ctx, cancel := context.WithTimeout(t.Context(), bound+2*cleanBound)
	defer cancel()
	s, err := set(ctx, c)
	if err != nil {
		t.Fatal("the scene could not be set: ", err)
	}
	defer tidy(t, s)
	if err := s.reach(ctx, k.step); errors.Is(err, errMissed) {
		r.Missed = err.Error()
		return r
	} else if err != nil {
		bad(err)
		return r
	}
	struck := time.Now()
	if err := s.suffer(ctx, k.fault); errors.Is(err, errNothing) {
		r.Missed = err.Error()
		return r
	} else if err != nil {
		bad(err)
	}
	end, err := s.settled(ctx)
	r.Reason = end.Status.DecisionReason
	t.Log(story(end))
	if err != nil {
		bad(err)
		return r
	}
	mine, before, err := s.clean(ctx)
	if err != nil {
		bad(err)
	}
	r.Wrong = append(r.Wrong, mine...)
	blame(t, before)
	r.Settle = time.Since(struck).Milliseconds()
	var wrong []string
	r.Outcome, wrong = s.verdict(ctx, k, end)
	r.Wrong = append(r.Wrong, wrong...)
	r.Silence = c.Witness.Account(s.was.Instance).Gap.Milliseconds()
	return r
}

// blame amends the result of the case before.
func blame(t *testing.T, left []string) {
	t.Helper()
	if len(left) == 0 {
		return
	}
	t.Errorf("by the case before: %s", strings.Join(left, "; "))
	if stage.last != nil {
		stage.last.Wrong = append(stage.last.Wrong, left...)
		must(t, stage.last.save())
	}
}

// tidy makes the stage ready for the next case, whatever came of this one.
func tidy(t *testing.T, s *scene) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	if err := mend(ctx, s); err != nil {
		t.Error(err)
	}
	if err := lose(0)(ctx, s); err != nil {
		t.Error(err)
	}
	if err := s.clear(ctx); err != nil {
		t.Logf("not cleared away: %v", err)
	}
	if err := well(ctx, s.Cluster); err != nil {
		t.Fatal("the stage did not get well: ", err)
	}
}

// story is the record's timeline in a few lines.
func story(m *v1alpha1.PodMigration) string {
	s := string(m.Status.Phase) + " " + m.Status.DecisionReason + ": " + m.Status.DecisionMessage
	for _, e := range m.Status.Timeline {
		s += "\n  " + e.At.Format("05.000") + " " + e.By + " " + e.Step + " " + e.Message
	}
	return s
}
