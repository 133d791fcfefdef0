package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
	"github.com/drover-project/drover/nodeagent/measure"
	"github.com/drover-project/drover/test/bench/report"
)

// traces are recorded ones; in those that quiet.txt names nobody suffers by others.
const traces = "internal/pressure/testdata"

// measureAlarms says how soon contention is noticed, with an agent's pace and thresholds, and
// how often it is where there is none.
func measureAlarms(count int, log io.Writer) ([]report.Metric, error) {
	onset := map[model.Grade][]float64{}
	err := withNode(time.Second, pressure.Default(), func(n *node) error {
		for seed := range count {
			fmt.Fprintf(log, "alarms: run %d of %d\n", seed+1, count)
			took, err := n.suffer(rand.New(rand.NewPCG(uint64(seed), 1)))
			if err != nil {
				return fmt.Errorf("alarm %d: %w", seed, err)
			}
			for grade, d := range took {
				onset[grade] = append(onset[grade], d.Seconds())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "from onset to\tp25 s\tmedian s\tp75 s\tgreatest s\t")
	for _, g := range []model.Grade{model.Tight, model.Severe} {
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t\n", g, quantile(onset[g], .25), quantile(onset[g], .5), quantile(onset[g], .75), quantile(onset[g], 1))
	}
	w.Flush()
	graded, alarms, err := falseAlarms()
	if err != nil {
		return nil, err
	}
	fmt.Printf("%d alarms in %d readings of containers in quiet traces\n", alarms, graded)
	return []report.Metric{
		report.AtMost("contention/onset-to-alarm", quantile(onset[model.Tight], .5), "s", 3, 0),
		// What moves a pod takes longer on purpose; nothing is asked of it.
		report.AtMost("contention/onset-to-severe", quantile(onset[model.Severe], .5), "s", pressure.Default()[model.OnCPU].Severe.Window.Seconds()+2, 0),
		report.AtMost("contention/false-alarms", float64(alarms), "alarms", 0, 0),
	}, nil
}

// suffer lets a pod work by itself and then beside an aggressor, and tells how long after that it
// had each grade.
func (n *node) suffer(r *rand.Rand) (took map[model.Grade]time.Duration, err error) {
	victim := pod{name: "victim", shares: 1024, threads: 1 + r.IntN(2)}
	if r.IntN(2) == 0 {
		victim.work, victim.period = time.Duration(5+r.IntN(4))*time.Millisecond, 10*time.Millisecond
		victim.threads = 1
	}
	aggressor := pod{name: "aggressor", shares: 2048 + r.IntN(4096), threads: 2 + r.IntN(3)}
	var all []*running
	defer func() {
		for _, p := range all {
			err = errors.Join(err, n.stop(p))
		}
	}()
	for _, p := range []pod{victim, aggressor} {
		started, err := n.start(p)
		if err != nil {
			return nil, err
		}
		all = append(all, started)
	}
	if err := all[0].actor.letGo(); err != nil {
		return nil, err
	}
	// Two readings, and any part of a third: the onset is at no certain time of the agent's.
	if _, err := n.await(time.Now().Add(2*time.Second + time.Duration(r.Int64N(int64(time.Second))))); err != nil {
		return nil, err
	}
	<-time.After(time.Duration(r.Int64N(int64(time.Second)))) // the same, after a reading
	if err := all[1].actor.letGo(); err != nil {
		return nil, err
	}
	began := time.Now()
	took = map[model.Grade]time.Duration{}
	err = until(context.Background(), func() bool {
		switch grade := gradeOf(n.contention.Snapshot(), all[0]); {
		case grade == model.Severe:
			took[grade] = time.Since(began)
			if took[model.Tight] == 0 {
				took[model.Tight] = took[grade]
			}
			return true
		case grade == model.Tight && took[grade] == 0:
			took[grade] = time.Since(began)
		}
		return false
	})
	if err != nil {
		return nil, fmt.Errorf("%+v beside %+v is not noticed: %w", victim, aggressor, err)
	}
	return took, nil
}

func gradeOf(s measure.ContentionSnapshot, p *running) model.Grade {
	for _, c := range s.Containers {
		if c.Shares.Name == nameOf(p.number) {
			return c.States[model.OnCPU].Grade
		}
	}
	return model.Fine
}

// falseAlarms grades the recorded traces in which all is well.
func falseAlarms() (graded, alarms int, err error) {
	quiet, err := os.ReadFile(filepath.Join(traces, "quiet.txt"))
	if err != nil {
		return 0, 0, fmt.Errorf("run it in the checkout's root: %w", err)
	}
	for _, name := range strings.Fields(string(quiet)) {
		f, err := os.Open(filepath.Join(traces, name+".jsonl"))
		if err != nil {
			return 0, 0, err
		}
		defer f.Close()
		watches, worst := map[string]*pressure.Watch{}, map[string]model.Grade{}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			var reading struct {
				At         float64                    `json:"at"`
				Containers map[string]pressure.Sample `json:"containers"`
			}
			if err := json.Unmarshal(lines.Bytes(), &reading); err != nil {
				return 0, 0, fmt.Errorf("%s: %w", f.Name(), err)
			}
			now := time.Unix(0, 0).Add(time.Duration(reading.At * float64(time.Second)))
			for container, s := range reading.Containers {
				if watches[container] == nil {
					watches[container] = pressure.NewWatch(pressure.Default())
				}
				graded++
				_, state := watches[container].Feed(now, s).Worst()
				if state.Grade != model.Fine && worst[container] != state.Grade {
					alarms++
				}
				worst[container] = state.Grade
			}
		}
		if err := lines.Err(); err != nil {
			return 0, 0, err
		}
	}
	return graded, alarms, nil
}
