// Package pressure grades how much others keep a container from CPU, memory and IO: how much
// of its stall they cause (CPU, Memory, IO), and whether that is bad enough and has gone on
// for long enough (Detector), for all three at once (Watch).
//
// A stall is a share of time, 0..1: at 0.5 every answer of a service takes twice its time.
// What a container does to itself, being busy, throttled by its own quota, near its own
// limit, is no stall here: it would do the same anywhere. That is Evidence.
//
// It is pure: it is fed times and figures, and keeps no clock.
package pressure

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// Threshold is what one grade takes. Stalls are means over Window, 0..1.
type Threshold struct {
	// Trigger: the grade begins at a stall of at least this.
	Trigger float64
	// Clear: it ends at a stall below this, which is below Trigger, so that a stall near
	// one threshold does not switch to and fro.
	Clear float64
	// Window is how long the stall must go on.
	Window time.Duration
}

// Config holds the thresholds of one resource.
type Config struct{ Tight, Severe Threshold }

// Thresholds are those of all resources.
type Thresholds map[model.Resource]Config

// Resources lists those that are graded, in the order in which they are told.
var Resources = []model.Resource{model.OnCPU, model.OnMemory, model.OnIO}

// Default gives the thresholds used where none are set, for a reading a second. Tight is told
// after two readings; severe, which moves a pod, takes what doubles the time of every answer,
// for long enough that a build or a collection of garbage has passed. A memory stall of a fifth is
// thrashing: a node that is only nearly full has next to none.
//
// Windows are half a reading shorter than so many readings, so that one that comes a
// little early does not make it one more.
func Default() Thresholds {
	const second, half = time.Second, time.Second / 2
	return Thresholds{
		model.OnCPU: {
			Tight:  Threshold{Trigger: .25, Clear: .1, Window: 2*second - half},
			Severe: Threshold{Trigger: .5, Clear: .2, Window: 5*second - half},
		},
		model.OnMemory: {
			Tight:  Threshold{Trigger: .05, Clear: .02, Window: 2*second - half},
			Severe: Threshold{Trigger: .2, Clear: .05, Window: 5*second - half},
		},
		model.OnIO: {
			Tight:  Threshold{Trigger: .25, Clear: .1, Window: 5*second - half},
			Severe: Threshold{Trigger: .6, Clear: .3, Window: 10*second - half},
		},
	}
}

// Window is the longest of all windows.
func (t Thresholds) Window() (longest time.Duration) {
	for _, c := range t {
		longest = max(longest, c.Severe.Window)
	}
	return longest
}

// Validate says everything that is wrong with the thresholds.
func (t Thresholds) Validate() error {
	var errs []error
	for _, r := range Resources {
		c, ok := t[r]
		if !ok {
			errs = append(errs, fmt.Errorf("contention for %s has no thresholds", r))
			continue
		}
		if err := c.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("contention for %s: %w", r, err))
		}
	}
	return errors.Join(errs...)
}

// Validate says what is wrong with the thresholds, if anything is.
func (c Config) Validate() error {
	for _, l := range c.levels() {
		switch t := l.Threshold; {
		case !(t.Trigger > 0 && t.Trigger <= 1):
			return fmt.Errorf("the trigger of %s is %v: want a stall greater than 0 and at most 1", l.grade, t.Trigger)
		case !(t.Clear >= 0 && t.Clear < t.Trigger):
			return fmt.Errorf("the clear threshold of %s is %v: want at least 0 and less than the trigger, %v", l.grade, t.Clear, t.Trigger)
		case t.Window <= 0:
			return fmt.Errorf("the window of %s is %v: want a time greater than 0", l.grade, t.Window)
		}
	}
	switch {
	case c.Tight.Trigger > c.Severe.Trigger || c.Tight.Clear > c.Severe.Clear:
		return fmt.Errorf("tight has trigger %v and clear threshold %v, severe %v and %v: want none of tight's greater than severe's",
			c.Tight.Trigger, c.Tight.Clear, c.Severe.Trigger, c.Severe.Clear)
	case c.Tight.Window > c.Severe.Window:
		return fmt.Errorf("the window of tight is %v, of severe %v: want tight's no longer", c.Tight.Window, c.Severe.Window)
	}
	return nil
}

type level struct {
	Threshold
	grade model.Grade
}

// levels gives tight and severe.
func (c Config) levels() [2]level {
	return [2]level{{c.Tight, model.Tight}, {c.Severe, model.Severe}}
}

// share bounds a share of time; what is not a number, or negative, counts as 0.
func share(v float64) float64 {
	if !(v > 0) {
		return 0
	}
	return math.Min(1, v)
}
