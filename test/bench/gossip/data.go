package gossip

import (
	"cmp"
	"slices"
	"time"
)

// The systems that are compared.
const (
	ours   = "drover"
	theirs = "memberlist"
)

// data is what was found, by kind.
type data struct {
	Steady   []result
	Outcomes []outcome
	Swarms   []swarmed
}

// together sorts findings by their kinds.
func together(all []finding) *data {
	d := &data{}
	for _, f := range all {
		switch {
		case f.Result != nil:
			d.Steady = append(d.Steady, *f.Result)
		case f.Outcome != nil:
			d.Outcomes = append(d.Outcomes, *f.Outcome)
		case f.Swarm != nil:
			d.Swarms = append(d.Swarms, *f.Swarm)
		}
	}
	slices.SortFunc(d.Steady, func(a, b result) int { return a.order(&b) })
	slices.SortFunc(d.Outcomes, func(a, b outcome) int { return a.order(&b) })
	slices.SortFunc(d.Swarms, func(a, b swarmed) int { return a.order(&b) })
	return d
}

// source tells where figures are from, and what that has cost.
type source struct {
	Piece      string    `json:"piece"`
	Ended      time.Time `json:"ended"`
	Span       float64   `json:"span_seconds"` // measured, in virtual time
	Reports    int       `json:"reports,omitempty"`
	Locations  int       `json:"locations,omitempty"`
	Took       float64   `json:"took_seconds"`
	Processors float64   `json:"processor_seconds"`
	Memory     float64   `json:"memory_gb"`
}

func sources(all []finding) (of []source) {
	for _, f := range all {
		s := source{Piece: f.Piece.String(), Ended: f.Ended, Span: f.Piece.Span.Seconds(), Took: f.Took, Processors: f.Processors, Memory: f.Memory}
		switch {
		case f.Result != nil:
			s.Reports, s.Locations = f.Result.Report.Records, f.Result.Location.Records
		case f.Swarm != nil:
			s.Reports, s.Locations = f.Swarm.Report.Records, f.Swarm.Location.Records
		}
		of = append(of, s)
	}
	return of
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
