package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/cluster"
)

// trial is one placement of one chain in the lab. Its nodes n1 and n2 have a core each, to which
// all that their pods run is kept; users are on n3, which runs nothing else.
type trial struct {
	name       string
	place      []int // of each service: 0 is n1, 1 is n2
	neighbours [2]int
	oneWay     time.Duration // between any two nodes
	demand     float64
}

// trials; the first is what the cost of a call is taken from: the CPU time of its services beyond their work.
var trials = []trial{
	{name: "together, alone", place: []int{0, 0, 0}, demand: 20},
	{name: "apart, alone", place: []int{0, 1, 0}, oneWay: time.Millisecond, demand: 20},
	{name: "together, more load", place: []int{1, 1, 1}, demand: 60},
	{name: "together, one neighbour", place: []int{0, 0, 0}, neighbours: [2]int{1, 0}, demand: 20},
	{name: "apart, two neighbours", place: []int{0, 1, 1}, neighbours: [2]int{0, 2}, oneWay: 500 * time.Microsecond, demand: 20},
	{name: "apart, neighbours on both", place: []int{1, 0, 1}, neighbours: [2]int{1, 1}, oneWay: 2 * time.Millisecond, demand: 15},
}

var trialChain = []service{
	{name: "s1", work: 2 * time.Millisecond, calls: 2, request: .25},
	{name: "s2", work: time.Millisecond, calls: 1, request: .25},
	{name: "s3", work: 3 * time.Millisecond, request: .25},
}

const (
	trialRounds      = 3
	trialCalls       = 500 // of each round
	neighbourRequest = .1  // cores, of each neighbour

	// calm is by how much the rounds' medians of one trial may differ; where it is more, something else ran
	// on the machine, and the trial is played again, so many times at most. The calmest counts.
	calm     = .15
	attempts = 3
)

// outcome is what a trial took in the lab, round by round, and in the model.
type outcome struct {
	trial
	rounds [][]time.Duration
	model  []time.Duration
}

// found is what a trial took in the lab, as it is kept in a file.
type found struct {
	Trial  string            `json:"trial"` // all of it
	Rounds [][]time.Duration `json:"rounds"`
	Trip   [][]time.Duration `json:"trip"` // as Drover has measured it meanwhile
	// Cost is what a call took of the CPU, at both ends, beyond its work.
	Cost time.Duration `json:"cost"`
}

func (t trial) String() string {
	return fmt.Sprintf("%s: %v beside %v, %v one way, %v/s; %+v, %d rounds of %d", t.name, t.place, t.neighbours, t.oneWay, t.demand,
		trialChain, trialRounds, trialCalls)
}

// calibrate plays the trials in a lab, but those that are kept, and in the model, and gives the cost of a call that the
// model takes from the first.
func calibrate(ctx context.Context, name, file string) (cost time.Duration, all []outcome, err error) {
	kept, err := read(file)
	if err != nil {
		return 0, nil, err
	}
	if err := playMissing(ctx, name, file, kept); err != nil {
		return 0, nil, err
	}
	for i, t := range trials {
		f := kept[t.String()]
		w := t.world(f.Trip)
		if i == 0 {
			cost = f.Cost
		}
		w.cost = cost
		all = append(all, outcome{t, f.Rounds, times(open(&w, t.place, 20*trialRounds*trialCalls, uint64(i)))})
	}
	return cost, all, nil
}

// playMissing brings up a lab if a trial is not kept, and plays and keeps those that are not.
func playMissing(ctx context.Context, name, file string, kept map[string]found) (err error) {
	if !slices.ContainsFunc(trials, func(t trial) bool { _, known := kept[t.String()]; return !known }) {
		fmt.Fprintf(os.Stderr, "lab: all trials are kept in %s\n", file)
		return nil
	}
	c, err := cluster.Up(ctx, cluster.Options{
		Lab: lab.Config{Name: name, Nodes: []lab.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}}, Log: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	if err := c.Measured(ctx); err != nil {
		return err
	}
	for i, t := range trials {
		if _, known := kept[t.String()]; known {
			continue
		}
		fmt.Fprintf(os.Stderr, "lab: %s, %d of %d\n", t.name, i+1, len(trials))
		f, err := t.play(ctx, c, fmt.Sprintf("trial%d", i))
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		kept[t.String()] = f
		if err := write(file, kept); err != nil {
			return err
		}
	}
	return nil
}

// read gives what is kept, by the trials; nothing if there is no such file.
func read(file string) (map[string]found, error) {
	kept := map[string]found{}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return kept, nil
	}
	var all []found
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read what was found in the lab (remove the file to begin anew): %w", err)
	}
	for _, f := range all {
		kept[f.Trial] = f
	}
	return kept, nil
}

func write(file string, kept map[string]found) error {
	var all []found
	for _, t := range trials {
		if f, known := kept[t.String()]; known {
			all = append(all, f)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// between are the least and the greatest of the rounds' quantiles.
func between(rounds [][]time.Duration, q float64) (low, high time.Duration) {
	for i, r := range rounds {
		at := quantile(r, q)
		if high = max(high, at); i == 0 || at < low {
			low = at
		}
	}
	return low, high
}
