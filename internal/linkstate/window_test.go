package linkstate

import (
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
)

const ms = time.Millisecond

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return start.Add(d) }

func TestRouteTime(t *testing.T) {
	type add struct {
		at    time.Duration
		rtt   time.Duration
		stamp model.Stamp
		path  int
	}
	const kernel, user = model.StampKernel, model.StampUser
	for _, c := range []struct {
		name string
		size int
		adds []add
		now  time.Duration
		want *model.RouteTime // nil: unknown
	}{
		{name: "nothing measured", size: 5},
		{name: "one sample is the route time, without spread", size: 5,
			adds: []add{{0, 4 * ms, kernel, 0}},
			want: &model.RouteTime{RTT: 4 * ms, Samples: 1, Stamp: kernel, At: at(0)}},
		{name: "quartiles of 1..5 are 2 and 4: half of their distance is 1", size: 5, now: 5 * time.Second,
			adds: []add{{1 * time.Second, 5 * ms, kernel, 0}, {2 * time.Second, 1 * ms, kernel, 0}, {3 * time.Second, 3 * ms, kernel, 0},
				{4 * time.Second, 2 * ms, kernel, 0}, {5 * time.Second, 4 * ms, kernel, 0}},
			want: &model.RouteTime{RTT: 2 * ms, Spread: 1 * ms, Samples: 5, Stamp: kernel, At: at(5 * time.Second)}},
		{name: "of two, a quarter and three quarters of the way: 1.25 and 1.75", size: 5,
			adds: []add{{0, 2 * ms, kernel, 0}, {0, 1 * ms, kernel, 0}},
			want: &model.RouteTime{RTT: 1250 * time.Microsecond, Spread: 250 * time.Microsecond, Samples: 2, Stamp: kernel, At: at(0)}},
		{name: "the oldest make room: 9 and 8 have gone, 1 2 3 stay", size: 3,
			adds: []add{{0, 9 * ms, kernel, 0}, {0, 8 * ms, kernel, 0}, {0, 1 * ms, kernel, 0}, {0, 2 * ms, kernel, 0}, {0, 3 * ms, kernel, 0}},
			want: &model.RouteTime{RTT: 1500 * time.Microsecond, Spread: 500 * time.Microsecond, Samples: 3, Stamp: kernel, At: at(0)}},
		{name: "a sample as old as the window counts, an older one does not", size: 5, now: 11 * time.Second,
			adds: []add{{999 * ms, 1 * ms, kernel, 0}, {1 * time.Second, 7 * ms, kernel, 0}},
			want: &model.RouteTime{RTT: 7 * ms, Samples: 1, Stamp: kernel, At: at(1 * time.Second)}},
		{name: "all too old: unknown", size: 5, now: time.Hour, adds: []add{{0, 1 * ms, kernel, 0}}},
		{name: "user stamps count while there are no others", size: 5,
			adds: []add{{0, 6 * ms, user, 0}},
			want: &model.RouteTime{RTT: 6 * ms, Samples: 1, Stamp: user, At: at(0)}},
		{name: "one kernel stamp puts them aside, their time too", size: 5, now: time.Second,
			adds: []add{{0, 2 * ms, kernel, 0}, {time.Second, 6 * ms, user, 0}},
			want: &model.RouteTime{RTT: 2 * ms, Samples: 1, Stamp: kernel, At: at(0)}},
		{name: "until it is too old itself", size: 5, now: 10*time.Second + 1,
			adds: []add{{0, 2 * ms, kernel, 0}, {time.Second, 6 * ms, user, 0}},
			want: &model.RouteTime{RTT: 6 * ms, Samples: 1, Stamp: user, At: at(time.Second)}},
		{name: "negative is left out, zero is not", size: 5,
			adds: []add{{0, -1, kernel, 0}, {0, 0, kernel, 0}},
			want: &model.RouteTime{Samples: 1, Stamp: kernel, At: at(0)}},
		{name: "levels 2 and 6 of two paths: mean 4, apart 4; above them 0 0 1 1, quartiles 0 and 1", size: 5,
			adds: []add{{0, 2 * ms, kernel, 0}, {0, 3 * ms, kernel, 0}, {0, 6 * ms, kernel, 7}, {0, 7 * ms, kernel, 7}},
			want: &model.RouteTime{RTT: 4 * ms, Spread: 2500 * time.Microsecond, Samples: 4, Stamp: kernel, At: at(0)}},
		{name: "a path that was measured long ago is none", size: 5, now: 11 * time.Second,
			adds: []add{{0, 2 * ms, kernel, 0}, {5 * time.Second, 6 * ms, kernel, 1}},
			want: &model.RouteTime{RTT: 6 * ms, Samples: 1, Stamp: kernel, At: at(5 * time.Second)}},
		{name: "nor is one that user space alone has measured", size: 5,
			adds: []add{{0, 2 * ms, user, 0}, {0, 6 * ms, kernel, 1}},
			want: &model.RouteTime{RTT: 6 * ms, Samples: 1, Stamp: kernel, At: at(0)}},
		{name: "a window of no size holds one", size: 0,
			adds: []add{{0, 1 * ms, kernel, 0}, {0, 2 * ms, kernel, 0}},
			want: &model.RouteTime{RTT: 2 * ms, Samples: 1, Stamp: kernel, At: at(0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWindow(10*time.Second, c.size)
			for _, a := range c.adds {
				w.Add(at(a.at), a.rtt, a.stamp, a.path)
			}
			got, known := w.RouteTime(at(c.now))
			if known != (c.want != nil) {
				t.Fatalf("known: %v, got %+v", known, got)
			}
			if c.want == nil {
				return
			}
			if diff := cmp.Diff(*c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Up to two thirds of the samples may be disturbed without the route time leaving the
// undisturbed ones; then a change of the route itself is followed within one window.
func TestDisturbanceAndChange(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	w := NewWindow(time.Hour, 50)
	now := start
	measure := func(n int, base time.Duration, disturbed float64) model.RouteTime {
		for range n {
			now = now.Add(200 * ms)
			rtt := base + time.Duration(rng.Int63n(int64(base/20)))
			if rng.Float64() < disturbed {
				rtt += time.Duration(rng.Int63n(int64(100 * ms)))
			}
			w.Add(now, rtt, model.StampKernel, 0)
		}
		route, _ := w.RouteTime(now)
		return route
	}
	inside := func(got model.RouteTime, base time.Duration) {
		t.Helper()
		if got.RTT < base || got.RTT > base+base/20 {
			t.Errorf("route time %v, the undisturbed samples are %v to %v", got.RTT, base, base+base/20)
		}
	}
	inside(measure(50, 2*ms, 0), 2*ms)
	for range 20 {
		inside(measure(50, 2*ms, 0.5), 2*ms)
	}
	inside(measure(50, 20*ms, 0.5), 20*ms)
	inside(measure(50, 1*ms, 0.5), 1*ms)
}

// The window agrees with a naive twin that keeps everything.
func TestAgainstNaiveTwin(t *testing.T) {
	for seed := range int64(500) {
		rng := rand.New(rand.NewSource(seed))
		size, age := 1+rng.Intn(20), time.Duration(1+rng.Intn(5000))*ms
		w := NewWindow(age, size)
		var all []sample
		now := start
		for range 100 {
			now = now.Add(time.Duration(rng.Intn(500)) * ms)
			s := sample{now, time.Duration(rng.Intn(1000)), model.StampKernel, 0}
			w.Add(s.at, s.rtt, s.stamp, s.path)
			all = append(all, s)
			later := now.Add(time.Duration(rng.Intn(2000)) * ms)
			var rtts []time.Duration
			for _, s := range all[max(0, len(all)-size):] {
				if later.Sub(s.at) <= age {
					rtts = append(rtts, s.rtt)
				}
			}
			slices.Sort(rtts)
			got, known := w.RouteTime(later)
			if known != (len(rtts) > 0) || got.Samples != len(rtts) {
				t.Fatalf("seed %d: got %+v, twin holds %v", seed, got, rtts)
			}
			if known && (got.RTT < rtts[0] || got.RTT > rtts[len(rtts)/2] || got.Spread < 0 ||
				2*got.Spread > rtts[len(rtts)-1]-rtts[0] || !got.At.Equal(now)) {
				t.Fatalf("seed %d: got %+v, twin holds %v", seed, got, rtts)
			}
		}
	}
}
