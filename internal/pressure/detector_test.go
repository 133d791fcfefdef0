package pressure

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
)

var start = time.Unix(1_000_000, 0)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// feed gives one sample a second, beginning at second 1.
func feed(d *Detector, stalls ...float64) State {
	d.Feed(start, 0)
	for i, w := range stalls {
		d.Feed(at(float64(i+1)), w)
	}
	return d.State()
}

var config = Config{
	Tight:  Threshold{Trigger: .25, Clear: .1, Window: 2 * time.Second},
	Severe: Threshold{Trigger: .5, Clear: .2, Window: 5 * time.Second},
}

// All with tight 0.25, cleared at 0.1, within 2 s; severe 0.5, cleared at 0.2, within 5 s; one
// sample a second.
func TestDetector(t *testing.T) {
	fine := func(mean float64) State { return State{Grade: model.Fine, Mean: mean} }
	tight := func(since, mean float64) State { return State{model.Tight, at(since), mean} }
	severe := func(since, mean float64) State { return State{model.Severe, at(since), mean} }
	for _, c := range []struct {
		name   string
		stalls []float64
		want   State
	}{
		{"nothing fed", nil, fine(0)},
		{"not long enough: 1 s of 2", []float64{1}, fine(1)},
		{"tight; it began at the start of the window", []float64{1, 1}, tight(0, 1)},
		{"not long enough for severe: 4 s of 5", []float64{1, 1, 1, 1}, tight(0, 1)},
		{"long enough", []float64{1, 1, 1, 1, 1}, severe(0, 1)},
		{"exactly the trigger", []float64{.5, .5, .5, .5, .5}, severe(0, .5)},
		{"just below", []float64{.4, .4, .4, .4, .4, .4, .4}, tight(0, .4)},
		{"below tight", []float64{.2, .2, .2, .2, .2, .2, .2}, fine(.2)},
		// (0.9+0.3+0.9+0.3+0.9)/5 = 0.66: it swings about the trigger but never lets go.
		{"swinging", []float64{.9, .3, .9, .3, .9}, severe(0, .66)},
		// No two seconds on end.
		{"one spike", []float64{1, 0, 0, 0, 0}, fine(.2)},
		{"flapping", []float64{1, 0, 1, 0, 1, 0, 1, 0, 1}, fine(.6)},
		// The sample below 0.2 at second 2 has to leave the window: (0.1+4*1)/5 = 0.82.
		{"a pause within the window", []float64{1, .1, 1, 1, 1, 1}, tight(0, .82)},
		{"the pause has left", []float64{1, .1, 1, 1, 1, 1, 1}, severe(2, 1)},
		// Mean (4*0.3+1)/5 = 0.44: below the trigger, not below clear.
		{"between the thresholds it goes on", []float64{1, 1, 1, 1, 1, .3, .3, .3, .3}, severe(0, .44)},
		// (1+0*4)/5 = 0.2: not below 0.2 yet.
		{"at the clear threshold it goes on", []float64{1, 1, 1, 1, 1, 0, 0, 0, 0}, severe(0, .2)},
		{"cleared", []float64{1, 1, 1, 1, 1, 0, 0, 0, 0, 0}, fine(0)},
		// The mean of 5 s is 0.15, of 2 s as well.
		{"severe goes, tight stays", []float64{1, 1, 1, 1, 1, .15, .15, .15, .15, .15}, tight(0, .15)},
		{"more than all of the time is all", []float64{7, 7, 7, 7, 7}, severe(0, 1)},
		{"not numbers and negative ones are 0", []float64{math.NaN(), -3, 1, 1, 1}, tight(2, .6)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := feed(New(config), c.stalls...); !near(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestSilenceIsForgotten(t *testing.T) {
	d := New(config)
	if s := feed(d, 1, 1, 1, 1, 1); s.Grade != model.Severe {
		t.Fatal("not severe")
	}
	if s := d.Feed(at(10.1), 1); s != (State{Grade: model.Fine}) {
		t.Errorf("after 5.1 s of silence: %+v, want nothing known", s)
	}
	d.Feed(at(12), 1)
	if s := d.Feed(at(15.1), 1); s.Grade != model.Severe || !s.Since.Equal(at(10.1)) {
		t.Errorf("after 5 s more: %+v, want severe since 10.1 s", s)
	}
}

// What a reading that comes late says of the middle of its time is a guess: two are wanted, as
// usual.
func TestOneLateReadingProvesNothing(t *testing.T) {
	d := New(config)
	d.Feed(start, 0)
	if s := d.Feed(at(4), 1); s.Grade != model.Fine {
		t.Errorf("one reading of 4 s: %+v, want fine", s)
	}
	if s := d.Feed(at(5), 1); s.Grade != model.Severe {
		t.Errorf("another one: %+v, want severe", s)
	}
	d = New(config)
	d.Feed(start, 0)
	if s := d.Feed(at(5), 1); s.Grade != model.Fine {
		t.Errorf("one reading of 5 s: %+v, want fine", s)
	}
}

// An agent that always reads late still tells, once two of its readings say the same.
func TestReadingsThatAreAllLate(t *testing.T) {
	d := New(config)
	d.Feed(start, 0)
	for i, want := range []model.Grade{model.Fine, model.Severe, model.Severe} {
		if s := d.Feed(at(4*float64(i+1)), 1); s.Grade != want {
			t.Errorf("reading %d, every 4 s: %+v, want %s", i+1, s, want)
		}
	}
}

func TestTimeThatStandsOrGoesBackIsIgnored(t *testing.T) {
	d := New(config)
	want := feed(d, 1, 1, 1, 1)
	for _, seconds := range []float64{4, 3, -100} {
		if s := d.Feed(at(seconds), 0); s != want {
			t.Errorf("at %v s: %+v", seconds, s)
		}
	}
	if s := d.Feed(at(5), 1); s.Grade != model.Severe {
		t.Errorf("the next good sample: %+v", s)
	}
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	second := time.Second
	good := Config{Threshold{.25, .1, second}, Threshold{.5, .2, second}}
	with := func(change func(*Config)) Config { c := good; change(&c); return c }
	for _, c := range []struct {
		config Config
		want   string
	}{
		{with(func(c *Config) { c.Tight.Trigger = 0 }), "the trigger of tight is 0"},
		{with(func(c *Config) { c.Severe.Trigger = math.NaN() }), "the trigger of severe is NaN"},
		{with(func(c *Config) { c.Severe.Trigger = 1.5 }), "the trigger of severe is 1.5"},
		{with(func(c *Config) { c.Tight.Clear = .25 }), "clear"},
		{with(func(c *Config) { c.Severe.Clear = -.1 }), "clear"},
		{with(func(c *Config) { c.Severe.Clear = math.NaN() }), "clear"},
		{with(func(c *Config) { c.Tight.Window = 0 }), "window"},
		{with(func(c *Config) { c.Tight = Threshold{.6, .1, second} }), "none of tight's greater"},
		{with(func(c *Config) { c.Tight.Clear = .21 }), "none of tight's greater"},
		{with(func(c *Config) { c.Tight.Window = 2 * second }), "no longer"},
	} {
		all := Default()
		all[model.OnMemory] = c.config
		if err := all.Validate(); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "memory") {
			t.Errorf("%+v: error %v, want one that names memory and %q", c.config, err, c.want)
		}
	}
	if err := (Thresholds{}).Validate(); err == nil || !strings.Contains(err.Error(), "io has no thresholds") {
		t.Errorf("none at all: %v", err)
	}
}

// What holds for any stalls at any times.
func TestDetectorProperties(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d, halves, twin := New(config), New(config), &naive{config: config}
		now := start
		began := now
		d.Feed(now, 0)
		halves.Feed(now, 0)
		twin.feed(now, 0)
		before := d.State()
		level := rng.Float64() // so that all states are met
		for range 60 {
			if rng.IntN(15) == 0 {
				level = rng.Float64()
			}
			step := time.Duration(rng.IntN(1500)+2) * time.Millisecond
			if rng.IntN(100) == 0 {
				step += config.Severe.Window
			}
			stall := max(0, level+0.2*rng.NormFloat64())
			halves.Feed(now.Add(step/2), stall)
			now = now.Add(step)
			got := d.Feed(now, stall)
			if cut := halves.Feed(now, stall); step <= config.Severe.Window && math.Abs(got.Mean-cut.Mean) > 1e-9 {
				t.Fatalf("seed %d: a sample cut in two gives mean %v instead of %v", seed, cut.Mean, got.Mean)
			} else if step > config.Severe.Window {
				*halves = Detector{config: config, last: now}
				began = now
			}
			if want := twin.feed(now, stall); !near(got, want) {
				t.Fatalf("seed %d: %+v, the twin says %+v", seed, got, want)
			}
			if got.Grade == model.Severe && before.Grade != model.Severe && (got.Mean < config.Severe.Trigger || now.Sub(began) < config.Severe.Window) {
				t.Fatalf("seed %d: severe at mean %v after %v", seed, got.Mean, now.Sub(began))
			}
			if (got.Grade == model.Fine) != got.Since.IsZero() || got.Since.After(now) {
				t.Fatalf("seed %d: %s since %v", seed, got.Grade, got.Since)
			}
			before = got
		}
	}
}

func near(a, b State) bool {
	return a.Grade == b.Grade && a.Since.Equal(b.Since) && math.Abs(a.Mean-b.Mean) < 1e-9
}

// naive keeps the stall of every millisecond.
type naive struct {
	config Config
	last   time.Time
	millis []float64
	since  map[model.Grade]time.Time
}

func (n *naive) feed(now time.Time, stall float64) State {
	if n.last.IsZero() || now.Sub(n.last) > n.config.Severe.Window {
		*n = naive{config: n.config, last: now, since: map[model.Grade]time.Time{}}
		return State{Grade: model.Fine}
	}
	for ; n.last.Before(now); n.last = n.last.Add(time.Millisecond) {
		n.millis = append(n.millis, min(1, stall))
	}
	state := State{Grade: model.Fine}
	for grade, t := range map[model.Grade]Threshold{model.Tight: n.config.Tight, model.Severe: n.config.Severe} {
		window := n.millis[max(0, len(n.millis)-int(t.Window/time.Millisecond)):]
		sum, least := 0.0, math.Inf(1)
		for _, w := range window {
			sum += w
			least = min(least, w)
		}
		mean := sum / float64(len(window))
		if grade == model.Severe {
			state.Mean = mean
		}
		if len(window) < int(t.Window/time.Millisecond) {
			continue
		}
		if _, on := n.since[grade]; on && mean < t.Clear {
			delete(n.since, grade)
		} else if !on && mean >= t.Trigger && least >= t.Clear {
			n.since[grade] = now.Add(-t.Window)
		}
	}
	for _, grade := range []model.Grade{model.Tight, model.Severe} {
		if since, on := n.since[grade]; on {
			state.Grade, state.Since = grade, since
		}
	}
	return state
}
