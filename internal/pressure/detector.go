package pressure

import (
	"math"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// State is what a Detector knows after a sample.
type State struct {
	// Grade is Fine until the thresholds of another are crossed.
	Grade model.Grade
	// Since is when that grade began: the start of the window that proved it. Zero when Fine.
	Since time.Time
	// Mean is the mean stall over the window of Severe, or over as much of it as is known.
	Mean float64
}

// Detector grades one stall of one container. Its zero value is of no use: see New.
type Detector struct {
	config  Config
	last    time.Time // when the last sample ended; zero before the first
	samples []sample  // those that reach into the longer window, oldest first, without gaps
	since   [2]time.Time
	mean    float64
}

// sample is a constant stall from one time to another.
type sample struct {
	from, to time.Time
	stall    float64
}

// New gives a Detector that has seen nothing yet.
func New(config Config) *Detector { return &Detector{config: config} }

// Feed takes the mean stall since the previous call and gives the state now.
//
// The first call only sets the start. A stall that is negative or not a number counts as 0;
// a call that is not later than the previous one changes nothing. After a silence longer than
// the window of Severe all is forgotten, the grade too: what is not known is no reason to act.
func (d *Detector) Feed(now time.Time, stall float64) State {
	switch {
	case d.last.IsZero():
		d.last = now
	case !now.After(d.last):
	case now.Sub(d.last) > d.config.Severe.Window:
		*d = Detector{config: d.config, last: now}
	default:
		d.samples = append(d.samples, sample{d.last, now, share(stall)})
		d.last = now
		d.judge(now)
	}
	return d.State()
}

// State gives what the last call of Feed gave.
func (d *Detector) State() State {
	s := State{Grade: model.Fine, Mean: d.mean}
	for i, l := range d.config.levels() {
		if !d.since[i].IsZero() {
			s.Grade, s.Since = l.grade, d.since[i]
		}
	}
	return s
}

// judge drops what is older than the longer window and applies the thresholds to the rest.
//
// One great stall alone is not "sustained", although it may lift the mean: a grade begins
// only when no sample in its window was below Clear, nor, where a late one fills the window, the
// one before.
func (d *Detector) judge(now time.Time) {
	for start := now.Add(-d.config.Severe.Window); !d.samples[0].to.After(start); {
		d.samples = d.samples[1:]
	}
	for i, l := range d.config.levels() {
		start := now.Add(-l.Window)
		mean, least := d.look(start)
		d.mean = mean // severe's, the last
		if d.samples[0].from.After(start) {
			continue // the window is not full yet
		}
		switch {
		case !d.since[i].IsZero() && mean < l.Clear:
			d.since[i] = time.Time{}
		case d.since[i].IsZero() && mean >= l.Trigger && least >= l.Clear:
			d.since[i] = start
		}
	}
}

// look gives the mean stall from start on, and the least of its samples: of two or more, -1
// where only one is known.
func (d *Detector) look(start time.Time) (mean, least float64) {
	stalled, known, least := 0.0, 0.0, math.Inf(1)
	if len(d.samples) < 2 {
		least = -1
	}
	for i, s := range d.samples {
		if !s.to.After(start) {
			if i == len(d.samples)-2 {
				least = s.stall
			}
			continue
		}
		from := s.from
		if from.Before(start) {
			from = start
		}
		seconds := s.to.Sub(from).Seconds()
		stalled += s.stall * seconds
		known += seconds
		least = min(least, s.stall)
	}
	return stalled / known, least
}
