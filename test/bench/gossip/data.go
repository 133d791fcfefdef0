package gossip

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// The systems that are compared.
const (
	ours   = "drover"
	theirs = "memberlist"
)

// data is what runs have shown. Pieces of the benchmark add to one file.
type data struct {
	Steady   []result
	Outcomes []outcome
	Swarms   []swarmed
}

func load(file string) (*data, error) {
	d := &data{}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return d, nil
}

func (d *data) save(file string) error {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func (r *result) order(o *result) int {
	return cmp.Or(cmp.Compare(r.System, o.System), cmp.Compare(r.Loss, o.Loss), cmp.Compare(r.Nodes, o.Nodes), cmp.Compare(r.Seed, o.Seed))
}

func (o *outcome) order(p *outcome) int {
	return cmp.Or(cmp.Compare(o.Part, p.Part), cmp.Compare(o.System, p.System), cmp.Compare(o.Nodes, p.Nodes), cmp.Compare(o.Seed, p.Seed))
}

func (r *swarmed) order(o *swarmed) int {
	return cmp.Or(cmp.Compare(r.Nodes, o.Nodes), cmp.Compare(r.Seed, o.Seed))
}

// put takes what a run has shown in the place of what the same run had shown before.
func put[T any](all []T, one T, order func(a, b *T) int) []T {
	all = slices.DeleteFunc(all, func(o T) bool { return order(&o, &one) == 0 })
	all = append(all, one)
	slices.SortFunc(all, func(a, b T) int { return order(&a, &b) })
	return all
}

func (d *data) result(r result) { d.Steady = put(d.Steady, r, (*result).order) }

func (d *data) outcome(o outcome) { d.Outcomes = put(d.Outcomes, o, (*outcome).order) }

func (d *data) swarm(r swarmed) { d.Swarms = put(d.Swarms, r, (*swarmed).order) }

// medians are the results of a system and loss, by size; of several seeds' the medians.
func (d *data) medians(system string, loss float64) []result {
	var out []result
	for _, r := range d.Steady {
		if r.System != system || r.Loss != loss || len(out) > 0 && out[len(out)-1].Nodes == r.Nodes {
			continue
		}
		var same []result
		for _, o := range d.Steady {
			if o.System == system && o.Loss == loss && o.Nodes == r.Nodes {
				same = append(same, o)
			}
		}
		out = append(out, middle(same))
	}
	return out
}

func middle(all []result) result {
	m := all[0]
	set := func(of func(*result) *float64) {
		values := make([]float64, len(all))
		for i := range all {
			values[i] = *of(&all[i])
		}
		slices.Sort(values)
		*of(&m) = values[len(values)/2]
	}
	for _, of := range []func(*result) *float64{
		func(r *result) *float64 { return &r.BytesMean }, func(r *result) *float64 { return &r.BytesMax }, func(r *result) *float64 { return &r.Packets },
		func(r *result) *float64 { return &r.SentMean }, func(r *result) *float64 { return &r.SentMax },
		func(r *result) *float64 { return &r.Told.Most50 }, func(r *result) *float64 { return &r.Told.Most99 },
		func(r *result) *float64 { return &r.Told.All50 }, func(r *result) *float64 { return &r.Told.All99 },
		func(r *result) *float64 { return &r.Report.Most50 }, func(r *result) *float64 { return &r.Report.Most99 },
		func(r *result) *float64 { return &r.Report.All50 }, func(r *result) *float64 { return &r.Report.All99 },
		func(r *result) *float64 { return &r.Location.Most50 }, func(r *result) *float64 { return &r.Location.Most99 },
		func(r *result) *float64 { return &r.Location.All50 }, func(r *result) *float64 { return &r.Location.All99 },
	} {
		set(of)
	}
	return m
}
