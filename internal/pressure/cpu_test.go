package pressure

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/drover-project/drover/internal/model"
)

func TestExternal(t *testing.T) {
	for _, c := range []struct {
		name  string
		share CPU
		want  float64
	}{
		{"nothing happened", CPU{Limit: 2}, 0},
		// 1 thread shares 1 CPU of 2 with one neighbour, the other CPU is the neighbour's
		// too: it had 0.5 of the 2.0 used, and of the 2 it can have. 0.5*0.75 = 0.375.
		{"one thread and a neighbour", CPU{Wait: .5, Run: .5, Others: 1.5, Limit: 2}, .375},
		// 8 threads get 0.2 of 2 CPUs: 7.8*(1.8/2) = 7.02.
		{"starved", CPU{Wait: 7.8, Run: .2, Others: 1.8, Limit: 2}, 7.02},
		// A node of 0.6 CPUs, of which a ticking thread uses 0.03: 0.6*(0.57/0.6) = 0.57.
		{"starved though it wants little", CPU{Wait: .6, Run: .03, Others: .57, Limit: .6}, .57},
		// 8 threads on 2 CPUs, alone: they wait 6 s/s for each other.
		{"busy on an idle node", CPU{Wait: 6, Run: 2, Others: 0, Limit: 2}, 0},
		// The same half of the time: it had half of what it can have, but nobody took the rest.
		{"busy in bursts on an idle node", CPU{Wait: 3, Run: 1, Others: 0, Limit: 2}, 0},
		// The system's own 2 %: 3*0.02/1.02 = 0.0588.
		{"the same with a little noise", CPU{Wait: 3, Run: 1, Others: .02, Limit: 2}, 3 * .02 / 1.02},
		// 0.5-0.5*1 = 0, and it had all of its quota of 0.5.
		{"throttled all the time", CPU{Wait: .5, Run: .5, Others: 1, Limit: .5, Throttled: .5, Threads: 1}, 0},
		// Quota of 1, used in bursts of 4 threads on 2 run queues, both throttled a quarter of
		// the time: 2*0.25 = 0.5 throttled, 4*0.25 = 1 waited for it. 1-0.5*4 < 0.
		{"throttled in bursts beside a busy neighbour", CPU{Wait: 1, Run: .5, Others: 1.5, Limit: 1, Throttled: .5, Threads: 4}, 0},
		// A quota of 1 that is never reached: others had 1.8/2 = 0.9, but of the quota only
		// 1-0.2/1 = 0.8 was kept from it. 0.8*0.8 = 0.64.
		{"starved below its quota", CPU{Wait: .8, Run: .2, Others: 1.8, Limit: 1, Threads: 4}, .64},
		{"without a limit nothing is known", CPU{Wait: 1, Run: .2, Others: 1.8}, 0},
		{"a thread count of 0 still counts one", CPU{Wait: .8, Run: .2, Others: 1.8, Limit: 2, Throttled: .8}, 0},
		{"more run than the limit, by the error of two clocks", CPU{Wait: 1, Run: 2.01, Others: 1, Limit: 2}, 0},
		// Measured: 0.5 for a neighbour, whatever the estimate says.
		{"the kernel saw a neighbour", CPU{Wait: 4, Run: .5, Others: .5, Limit: 2, Owed: &Owed{Others: .5}}, .5},
		// It waited for its own threads, the neighbour ran on the other CPU.
		{"the kernel saw none", CPU{Wait: 3, Run: 1, Others: 1, Limit: 2, Owed: &Owed{}}, 0},
		// 0.1 + 0.4*(0.5/2) = 0.2.
		{"what is shared is shared by use", CPU{Wait: 1, Run: 1.5, Others: .5, Limit: 4, Owed: &Owed{Others: .1, Shared: .4}}, .2},
		// It had 0.45 of its 0.5: (1-0.9)*(0.55+0.45) = 0.1.
		{"it got its quota all the same", CPU{Wait: .55, Run: .45, Others: 1.5, Limit: .5, Owed: &Owed{Others: .55}}, .1},
		// Throttled and starved at once: the kernel tells them apart.
		{"throttled, and starved beside it", CPU{Wait: 2, Run: .2, Others: 1.8, Limit: 1, Throttled: .5, Threads: 4, Owed: &Owed{Others: 1.2}}, 1.2},
		{"not a number", CPU{Wait: math.NaN(), Run: 1, Others: 1, Limit: 2}, 0},
		{"nothing known of the CPU", CPU{Wait: 1, Run: model.Cores(math.NaN()), Others: 1, Limit: 2}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.share.External(); math.Abs(got-c.want) > 1e-9 {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestExternalProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		s := CPU{
			Wait: rng.ExpFloat64(), Run: model.Cores(rng.ExpFloat64()), Others: model.Cores(rng.ExpFloat64()),
			Limit: model.Cores(rng.ExpFloat64()), Throttled: rng.ExpFloat64() * float64(rng.IntN(2)), Threads: rng.IntN(50),
		}
		got := s.External()
		if rng.IntN(2) == 0 {
			s.Owed = &Owed{rng.ExpFloat64(), rng.ExpFloat64()}
			got = s.External()
		}
		if stall := s.Stall(); !(stall >= 0 && stall <= 1 && stall <= got) {
			t.Fatalf("%+v: stall %v, external %v", s, stall, got)
		}
		if !(got >= 0 && got <= s.Wait) || got > 0 && s.Run >= s.Limit {
			t.Fatalf("%+v: %v", s, got)
		}
		more := s
		more.Throttled += rng.Float64()
		if more.External() > got {
			t.Fatalf("%+v: more throttling, more external wait: %v > %v", s, more.External(), got)
		}
		more = s
		more.Wait += rng.Float64()
		if more.External() < got {
			t.Fatalf("%+v: more wait, less external wait: %v < %v", s, more.External(), got)
		}
	}
}

func TestStallIsAShareOfTheTimeThatItCouldRun(t *testing.T) {
	for _, c := range []struct {
		name string
		cpu  CPU
		want float64
	}{
		{"one thread that gets half of a CPU", CPU{Wait: .5, Run: .5, Others: 1.5, Limit: 2, Owed: &Owed{Others: .5}}, .5},
		// 98 threads on two CPUs, of which a neighbour takes a twentieth: each of the 98 waits
		// that long, 4.9 s/s in all, of the 98 s/s in which they can run.
		{"very many threads and a small neighbour", CPU{Wait: 96.1, Run: 1.9, Others: .1, Limit: 2, Owed: &Owed{Others: 4.9}}, 4.9 / 98},
		{"the same by the estimate", CPU{Wait: 96.1, Run: 1.9, Others: .1, Limit: 2}, 4.805 / 98},
		{"many threads, starved", CPU{Wait: 7.8, Run: .2, Others: 1.8, Limit: 2}, 7.02 / 8},
		// It wants little, and half of that is kept from it: 0.01 s in a second.
		{"one that hardly runs", CPU{Wait: .01, Run: .01, Others: 1, Limit: 2, Owed: &Owed{Others: .01}}, .01},
	} {
		if got := c.cpu.Stall(); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
