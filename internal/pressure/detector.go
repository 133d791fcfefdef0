// Package pressure tells when a container suffers from contention for the CPU: how much of
// its waiting others cause (Share), and whether that has gone on for long enough (Detector).
//
// It is pure: it is fed times and figures, and keeps no clock.
package pressure

import (
	"fmt"
	"math"
	"time"
)

// Config holds the thresholds of a Detector. Waits are in seconds waited per second of wall
// time, summed over a container's threads.
type Config struct {
	// Trigger: a container suffers once its mean wait over Window is at least this.
	Trigger float64
	// Clear: it suffers no more once its mean wait over Window is less than this. Below
	// Trigger, so that a wait near one threshold does not switch to and fro.
	Clear float64
	// Window is how long the wait must go on.
	Window time.Duration
}

// Default gives the thresholds used where none are set: half a second waited per second,
// for five seconds. A service that waits as much takes twice its time for every answer.
func Default() Config {
	return Config{Trigger: 0.5, Clear: 0.2, Window: 5 * time.Second}
}

// Validate says what is wrong with the thresholds, if anything is.
func (c Config) Validate() error {
	switch {
	case !(c.Trigger > 0) || math.IsInf(c.Trigger, 0):
		return fmt.Errorf("contention trigger is %v: want a wait greater than 0, in seconds per second", c.Trigger)
	case !(c.Clear >= 0 && c.Clear < c.Trigger):
		return fmt.Errorf("contention clear threshold is %v: want at least 0 and less than the trigger, %v", c.Clear, c.Trigger)
	case c.Window <= 0:
		return fmt.Errorf("contention window is %v: want a time greater than 0", c.Window)
	}
	return nil
}

// State is what a Detector knows after a sample.
type State struct {
	// Suffering: the wait is above the thresholds and has been for long enough.
	Suffering bool
	// Since is when the suffering began: the start of the window that proved it. Zero
	// when not Suffering.
	Since time.Time
	// Mean is the mean wait over the window, or over as much of it as is known.
	Mean float64
}

// Detector follows the wait of one container. Its zero value is of no use: see New.
type Detector struct {
	config  Config
	last    time.Time // when the last sample ended; zero before the first
	samples []sample  // those that reach into the window, oldest first, without gaps
	state   State
}

// sample is a constant wait from one time to another.
type sample struct {
	from, to time.Time
	wait     float64
}

// New gives a Detector that has seen nothing yet and is not suffering.
func New(config Config) *Detector { return &Detector{config: config} }

// Feed takes the mean wait since the previous call and gives the state now.
//
// The first call only sets the start. A wait that is negative or not a number counts as 0;
// a call that is not later than the previous one changes nothing. After a silence longer than
// the window all is forgotten, suffering too: what is not known is no reason to act.
func (d *Detector) Feed(now time.Time, wait float64) State {
	if d.last.IsZero() {
		d.last = now
		return d.state
	}
	if !now.After(d.last) {
		return d.state
	}
	if now.Sub(d.last) > d.config.Window {
		*d = Detector{config: d.config, last: now}
		return d.state
	}
	if !(wait > 0) {
		wait = 0
	}
	d.samples = append(d.samples, sample{d.last, now, wait})
	d.last = now
	d.judge(now)
	return d.state
}

// State gives what the last call of Feed gave.
func (d *Detector) State() State { return d.state }

// judge drops what is older than the window and applies the thresholds to the rest.
//
// One great wait alone is not "sustained", although it may lift the mean: suffering begins
// only when no sample in the window was below Clear.
func (d *Detector) judge(now time.Time) {
	start := now.Add(-d.config.Window)
	for !d.samples[0].to.After(start) {
		d.samples = d.samples[1:]
	}
	var waited, known, least = 0.0, 0.0, math.Inf(1)
	for _, s := range d.samples {
		from := s.from
		if from.Before(start) {
			from = start
		}
		seconds := s.to.Sub(from).Seconds()
		waited += s.wait * seconds
		known += seconds
		least = min(least, s.wait)
	}
	d.state.Mean = waited / known
	if d.samples[0].from.After(start) {
		return // the window is not full yet
	}
	switch {
	case d.state.Suffering && d.state.Mean < d.config.Clear:
		d.state.Suffering, d.state.Since = false, time.Time{}
	case !d.state.Suffering && d.state.Mean >= d.config.Trigger && least >= d.config.Clear:
		d.state.Suffering, d.state.Since = true, start
	}
}
