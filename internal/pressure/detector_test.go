package pressure

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var start = time.Unix(1_000_000, 0)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// feed gives one sample a second, beginning at second 1.
func feed(d *Detector, waits ...float64) State {
	d.Feed(start, 0)
	for i, w := range waits {
		d.Feed(at(float64(i+1)), w)
	}
	return d.State()
}

// All with trigger 0.5, clear 0.2, window 5 s, one sample a second.
func TestDetector(t *testing.T) {
	for _, c := range []struct {
		name  string
		waits []float64
		want  State
	}{
		{"nothing fed", nil, State{}},
		{"not long enough: 4 s of 5", []float64{1, 1, 1, 1}, State{Mean: 1}},
		{"long enough; it began at the start of the window", []float64{1, 1, 1, 1, 1}, State{true, at(0), 1}},
		{"exactly the trigger", []float64{.5, .5, .5, .5, .5}, State{true, at(0), .5}},
		{"just below", []float64{.4, .4, .4, .4, .4, .4, .4}, State{Mean: .4}},
		// (0.9+0.3+0.9+0.3+0.9)/5 = 0.66: it swings about the trigger but never lets go.
		{"swinging", []float64{.9, .3, .9, .3, .9}, State{true, at(0), .66}},
		// (5+0+0+0+0)/5 = 1: a spike is not sustained, whatever its mean.
		{"one spike", []float64{5, 0, 0, 0, 0}, State{Mean: 1}},
		// The sample below 0.2 at second 2 has to leave the window: (0.1+4*1)/5 = 0.82.
		{"a pause within the window", []float64{1, .1, 1, 1, 1, 1}, State{Mean: .82}},
		{"the pause has left", []float64{1, .1, 1, 1, 1, 1, 1}, State{true, at(2), 1}},
		// Mean (4*0.3+1)/5 = 0.44: below the trigger, not below clear.
		{"between the thresholds it goes on", []float64{1, 1, 1, 1, 1, .3, .3, .3, .3}, State{true, at(0), .44}},
		// (1+0*4)/5 = 0.2: not below 0.2 yet.
		{"at the clear threshold it goes on", []float64{1, 1, 1, 1, 1, 0, 0, 0, 0}, State{true, at(0), .2}},
		{"cleared", []float64{1, 1, 1, 1, 1, 0, 0, 0, 0, 0}, State{}},
		{"not numbers and negative ones are 0", []float64{math.NaN(), -3, 1, 1, 1}, State{Mean: .6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := feed(New(Default()), c.waits...)
			if got.Suffering != c.want.Suffering || !got.Since.Equal(c.want.Since) || math.Abs(got.Mean-c.want.Mean) > 1e-9 {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestSilenceIsForgotten(t *testing.T) {
	d := New(Default())
	if s := feed(d, 1, 1, 1, 1, 1); !s.Suffering {
		t.Fatal("not suffering")
	}
	if s := d.Feed(at(10.1), 1); s != (State{}) {
		t.Errorf("after 5.1 s of silence: %+v, want nothing known", s)
	}
	if s := d.Feed(at(15.1), 1); !s.Suffering || !s.Since.Equal(at(10.1)) {
		t.Errorf("after 5 s more: %+v, want suffering since 10.1 s", s)
	}
}

func TestTimeThatStandsOrGoesBackIsIgnored(t *testing.T) {
	d := New(Default())
	feed(d, 1, 1, 1, 1)
	for _, seconds := range []float64{4, 3, -100} {
		if s := d.Feed(at(seconds), 0); s != (State{Mean: 1}) {
			t.Errorf("at %v s: %+v", seconds, s)
		}
	}
	if s := d.Feed(at(5), 1); !s.Suffering {
		t.Errorf("the next good sample: %+v", s)
	}
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{0, 0, time.Second}, "trigger"},
		{Config{math.NaN(), 0, time.Second}, "trigger"},
		{Config{math.Inf(1), 0, time.Second}, "trigger"},
		{Config{.5, .5, time.Second}, "clear"},
		{Config{.5, -.1, time.Second}, "clear"},
		{Config{.5, math.NaN(), time.Second}, "clear"},
		{Config{.5, .2, 0}, "window"},
	} {
		if err := c.config.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one that names %q", c.config, err, c.want)
		}
	}
}

// What holds for any waits at any times.
func TestDetectorProperties(t *testing.T) {
	config := Default()
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
				step += config.Window
			}
			wait := max(0, level+0.2*rng.NormFloat64())
			halves.Feed(now.Add(step/2), wait)
			now = now.Add(step)
			got := d.Feed(now, wait)
			if cut := halves.Feed(now, wait); step <= config.Window && math.Abs(got.Mean-cut.Mean) > 1e-9 {
				t.Fatalf("seed %d: a sample cut in two gives mean %v instead of %v", seed, cut.Mean, got.Mean)
			} else if step > config.Window {
				*halves = Detector{config: config, last: now}
				began = now
			}
			if want := twin.feed(now, wait); !near(got, want) {
				t.Fatalf("seed %d: %+v, the twin says %+v", seed, got, want)
			}
			if got.Suffering && !before.Suffering && (got.Mean < config.Trigger || now.Sub(began) < config.Window) {
				t.Fatalf("seed %d: began to suffer at mean %v after %v", seed, got.Mean, now.Sub(began))
			}
			if got.Suffering == got.Since.IsZero() || got.Since.After(now) {
				t.Fatalf("seed %d: suffering %v since %v", seed, got.Suffering, got.Since)
			}
			before = got
		}
	}
}

func near(a, b State) bool {
	return a.Suffering == b.Suffering && a.Since.Equal(b.Since) && math.Abs(a.Mean-b.Mean) < 1e-9
}

// naive keeps the wait of every millisecond.
type naive struct {
	config Config
	last   time.Time
	millis []float64
	state  State
}

func (n *naive) feed(now time.Time, wait float64) State {
	if n.last.IsZero() || now.Sub(n.last) > n.config.Window {
		*n = naive{config: n.config, last: now}
		return n.state
	}
	for ; n.last.Before(now); n.last = n.last.Add(time.Millisecond) {
		n.millis = append(n.millis, wait)
	}
	window := n.millis[max(0, len(n.millis)-int(n.config.Window/time.Millisecond)):]
	sum, least := 0.0, math.Inf(1)
	for _, w := range window {
		sum += w
		least = min(least, w)
	}
	n.state.Mean = sum / float64(len(window))
	if len(window) < int(n.config.Window/time.Millisecond) {
		return n.state
	}
	if n.state.Suffering && n.state.Mean < n.config.Clear {
		n.state = State{Mean: n.state.Mean}
	} else if !n.state.Suffering && n.state.Mean >= n.config.Trigger && least >= n.config.Clear {
		n.state.Suffering, n.state.Since = true, now.Add(-n.config.Window)
	}
	return n.state
}
