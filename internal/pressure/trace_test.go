package pressure

import (
	"bufio"
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/model"
)

// trace is one recorded by nodeagent/measure, see testdata/README.md: what was read of the
// containers of a node, a line a second.
type trace []struct {
	At         float64           `json:"at"` // seconds
	Containers map[string]Sample `json:"containers"`
}

func readTrace(t *testing.T, file string) (all trace) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for first := true; lines.Scan(); first = false {
		if first {
			continue // how it was recorded
		}
		all = append(all, trace{{}}...)
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&all[len(all)-1]); err != nil {
			t.Fatalf("%s: %s: %v", file, lines.Text(), err)
		}
	}
	if len(all) < 20 {
		t.Fatalf("%s has %d readings: too few to judge by", file, len(all))
	}
	return all
}

// run gives the worst grade of every container and resource ("web cpu"), and how many readings
// had it when it came. change may alter what was read.
func (tr trace) run(change func(*Sample)) (worst map[string]model.Grade, after map[string]int) {
	worst, after = map[string]model.Grade{}, map[string]int{}
	watches, seen := map[string]*Watch{}, map[string]int{}
	for _, reading := range tr {
		for name, s := range reading.Containers {
			w, ok := watches[name]
			if !ok {
				w = NewWatch(Default())
				watches[name] = w
			}
			change(&s)
			seen[name]++
			for r, state := range w.Feed(at(reading.At), s) {
				key := name + " " + string(r)
				if now := worst[key]; now == "" || state.Grade == model.Severe || state.Grade == model.Tight && now == model.Fine {
					if now != state.Grade {
						worst[key], after[key] = state.Grade, seen[name]
					}
				}
			}
		}
	}
	return worst, after
}

// What the traces are graded that are not quiet, by what the kernel measured and by the estimate
// alone. What is not named is never more than fine; what is named may be what it says and nothing else.
var graded = map[string]map[string][]model.Grade{
	"spikes":    {"web cpu": {model.Fine, model.Tight}},
	"flapping":  {"web cpu": {model.Fine, model.Tight}},
	"aggressor": {"web cpu": {model.Severe}},
	"shortage":  {"web memory": {model.Severe}},
	// The machine did other work on that CPU beside, and batch waited for it.
	"io-beside": {"web io": {model.Severe}, "batch cpu": {model.Fine, model.Tight}},
}

func TestTraces(t *testing.T) {
	quiet, err := os.ReadFile("testdata/quiet.txt")
	if err != nil {
		t.Fatal(err)
	}
	graded := maps.Clone(graded)
	for _, name := range strings.Fields(string(quiet)) {
		if graded[name] != nil {
			t.Errorf("%s is quiet and is not", name)
		}
		graded[name] = map[string][]model.Grade{}
	}
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(files) != len(graded) {
		t.Fatalf("%d traces (%v), %d are known", len(files), err, len(graded))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		want, ok := graded[name]
		if !ok {
			t.Errorf("nobody says what %s is", name)
		}
		tr := readTrace(t, file)
		for by, change := range map[string]func(*Sample){
			"measured":  func(*Sample) {},
			"estimated": func(s *Sample) { c := *s.CPU; c.Owed = nil; s.CPU = &c },
		} {
			t.Run(name+"/"+by, func(t *testing.T) {
				worst, after := tr.run(change)
				for key, got := range worst {
					may, ok := want[key]
					if !ok {
						may = []model.Grade{model.Fine}
					}
					if !slices.Contains(may, got) {
						t.Errorf("%s is %s after %d readings, want %v", key, got, after[key], may)
					}
				}
				for key := range want {
					if _, ok := worst[key]; !ok {
						t.Errorf("%s is not in it: %v", key, worst)
					}
				}
			})
		}
	}
}

// The traces hold what they are there for: stalls that would be alarms if they were not told apart.
func TestTracesHoldWhatTheyTestFor(t *testing.T) {
	greatest := func(name, container string, of func(Sample) float64) (most float64) {
		for _, reading := range readTrace(t, "testdata/"+name+".jsonl") {
			if s, ok := reading.Containers[container]; ok && s.CPU != nil {
				most = max(most, of(s))
			}
		}
		return most
	}
	for _, c := range []struct {
		trace, what string
		least       float64
		of          func(Sample) float64
	}{
		{"busy", "run-queue wait, s/s", 2, func(s Sample) float64 { return s.CPU.Wait }},
		{"crowd", "run-queue wait, s/s", 30, func(s Sample) float64 { return s.CPU.Wait }},
		{"crowd", "wait that others cause, s/s", Default()[model.OnCPU].Severe.Trigger, func(s Sample) float64 { return s.CPU.External() }},
		{"throttled", "throttled time, s/s", .5, func(s Sample) float64 { return s.CPU.Throttled }},
		{"leak", "use of its limit", NearLimit, func(s Sample) float64 { return s.Memory.OfLimit() }},
		{"thrash", "memory stall", Default()[model.OnMemory].Tight.Trigger, func(s Sample) float64 { return s.Memory.All() }},
		{"io-alone", "IO stall", .3, func(s Sample) float64 { return s.IO.All() }},
	} {
		got := greatest(c.trace, "web", func(s Sample) float64 {
			if s.Memory == nil {
				s.Memory, s.IO = &Memory{}, &IO{}
			}
			return c.of(s)
		})
		if got < c.least {
			t.Errorf("%s: %s is %v at most, want at least %v", c.trace, c.what, got, c.least)
		}
	}
}
