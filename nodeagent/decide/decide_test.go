package decide

import (
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/view"
)

var now = time.Unix(1_000_000, 0)

const ms = time.Millisecond

// node has 4 cores and 8 GiB, of which the given cores are in use, is 1 ms from n1 and was
// heard of just now.
func node(name model.NodeID, used model.Cores) view.Node {
	return view.Node{
		Alive:    true,
		Received: now,
		State: model.NodeState{
			Node: name,
			Load: model.Load{
				Allocatable: model.Resources{CPU: 4, Memory: 8 * model.GiB},
				Used:        model.Resources{CPU: used, Memory: model.GiB},
				At:          now,
			},
			Routes: map[model.NodeID]model.RouteTime{"n1": {RTT: ms, Samples: 9, Stamp: model.StampKernel, At: now}},
		},
	}
}

// web is movable, waits 1 s a second, uses 0.5 cores and 400 MiB.
func web() Pod {
	return Pod{
		ID: model.PodID{Namespace: "shop", Name: "web", UID: "u1"}, Container: "app", Origin: "o1",
		OptedIn: true, Wrapped: true, Containers: 1,
		Requests: model.Resources{CPU: 1, Memory: model.GiB},
		Resource: model.OnCPU, Wait: 1, Since: now.Add(-time.Minute), Run: .5, Memory: 400 * model.MiB,
	}
}

// scene is web on n1, which is full; n2 and n3 are nearly idle, n3 a little more so.
func scene() Input {
	in := Input{Here: "n1", Suffering: []Pod{web()}, Params: placement.Defaults(), Tried: map[string]time.Time{}}
	whole := model.Resources{CPU: 4, Memory: 8 * model.GiB}
	in.Allocatable = map[model.NodeID]model.Resources{"n1": whole, "n2": whole, "n3": whole}
	in.View = view.Snapshot{At: now, Self: "n1", Nodes: map[model.NodeID]view.Node{
		"n1": node("n1", 4), "n2": node("n2", .7), "n3": node("n3", .35),
	}}
	return in
}

// change alters what is known of a node.
func change(in *Input, id model.NodeID, f func(*view.Node)) {
	n := in.View.Nodes[id]
	f(&n)
	in.View.Nodes[id] = n
}

func TestGo(t *testing.T) {
	d := Decide(Default(), scene(), now)
	if d.Move == nil {
		t.Fatalf("stays: %+v", d.Verdicts)
	}
	// Here others use (4-0.5)/4 = 87.5 %, on n3 0.35/4 = 8.75 %: 1*8.75/87.5 = 0.1.
	// 0.3 s + 400 MiB / (400 MiB/s) = 1.3 s.
	m := d.Move
	if m.From != "n1" || m.To != "n3" || math.Abs(m.Predicted-.1) > 1e-9 || m.Frozen != 1300*ms || m.Score.Node != "n3" || m.Score.A <= 0 {
		t.Errorf("got %+v", m)
	}
	const want = "shop/web/app waits 1.00 s a second for the CPU of n1, where others use 88 % of 4.00 cores; " +
		"on n3, where they use 9 % of 4.00, it would wait about 0.10; it would be frozen for about 1.3s"
	if m.Message != want {
		t.Errorf("message\n %s\nwant\n %s", m.Message, want)
	}
	if len(d.Verdicts) != 1 || d.Verdicts[0] != (Verdict{web().ID, Go, want}) {
		t.Errorf("verdicts %+v", d.Verdicts)
	}
}

// What is only tight elsewhere, or tells of no grade as agents before it did.
func TestOnlySevereKeepsATargetOut(t *testing.T) {
	for grade, free := range map[model.Grade]bool{model.Tight: true, model.Severe: false, "": false, "yet to come": true} {
		in := scene()
		for _, id := range []model.NodeID{"n2", "n3"} {
			change(&in, id, func(n *view.Node) {
				n.State.Suffering = []model.Contention{{Pod: model.PodID{Namespace: "shop", Name: "db"}, Grade: grade}}
			})
		}
		if d := Decide(Default(), in, now); (d.Move != nil) != free {
			t.Errorf("grade %q: %+v, want a move: %v", grade, d, free)
		}
	}
}

// The formula ranks the candidates: n3 is a little more idle, but far away.
func TestTheFormulaChooses(t *testing.T) {
	in := scene()
	change(&in, "n3", func(n *view.Node) { n.State.Routes = map[model.NodeID]model.RouteTime{"n1": {RTT: 20 * ms, At: now}} })
	// (3.3+0.25*7)/1 ms beats (3.65+0.25*7)/20 ms.
	if d := Decide(Default(), in, now); d.Move == nil || d.Move.To != "n2" {
		t.Errorf("%+v, want n2", d)
	}
	// Its one peer is on n3, 20 ms from n2.
	change(&in, "n2", func(n *view.Node) { n.State.Routes["n3"] = model.RouteTime{RTT: 20 * ms, At: now} })
	in.Suffering[0].Peers, in.Suffering[0].PeersBy = map[model.NodeID]float64{"n3": 1}, "observed"
	if d := Decide(Default(), in, now); d.Move == nil || d.Move.To != "n3" || !strings.Contains(d.Move.Message, "; route times count from its peers (observed)") {
		t.Errorf("%+v, want n3", d)
	}
}

// A node that claims more than its Node object gives counts as if it had told what that gives:
// with 4 of 4 cores in use, it is full; and one without a Node object has nothing.
func TestClaimsAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		used  model.Cores
		spoil func(*Input)
	}{
		"more cores than it has": {4, func(in *Input) { change(in, "n3", func(n *view.Node) { n.State.Load.Allocatable.CPU = 400 }) }},
		"more memory than it has": {.35, func(in *Input) {
			change(in, "n3", func(n *view.Node) {
				n.State.Load.Allocatable.Memory, n.State.Load.Requested.Memory = model.GiB<<20, 8*model.GiB
			})
		}},
		"no Node object": {.35, func(in *Input) { delete(in.Allocatable, "n3") }},
	} {
		in := scene()
		change(&in, "n3", func(n *view.Node) { n.State.Load.Used.CPU = c.used })
		c.spoil(&in)
		was := in.View.Nodes["n3"].State.Load
		if d := Decide(Default(), in, now); d.Move == nil || d.Move.To != "n2" {
			t.Errorf("%s: %+v, want n2", name, d)
		}
		if !reflect.DeepEqual(in.View.Nodes["n3"].State.Load, was) {
			t.Errorf("%s: the picture was changed, which others read", name)
		}
	}
}

// What keeps a pod here; n3 is spoilt, and n2 is dead, so that n3 alone counts.
func TestStay(t *testing.T) {
	for _, c := range []struct {
		name    string
		spoil   func(*Input)
		code    Code
		message string
	}{
		{"not opted in", func(in *Input) { in.Suffering[0].OptedIn = false }, NotOptedIn, "drover.dev/migrate"},
		{"another runtime", func(in *Input) { in.Suffering[0].Wrapped = false }, CannotMove, "RuntimeClass"},
		{"two containers", func(in *Input) { in.Suffering[0].Containers = 2 }, CannotMove, "2 containers"},
		{"an obstacle", func(in *Input) { in.Suffering[0].Obstacle = "it is being deleted" }, CannotMove, "it is being deleted"},
		{"just moved here", func(in *Input) {
			in.View.Locations = []model.Location{{Origin: "o1", At: now.Add(-59 * time.Second)}}
		}, CoolingDown, "59s ago"},
		{"just tried", func(in *Input) { in.Tried["o1"] = now.Add(-30 * time.Second) }, CoolingDown, "30s ago"},
		{"moved by a clock that is ahead", func(in *Input) {
			in.View.Locations = []model.Location{{Origin: "o1", At: now.Add(5 * time.Second)}}
		}, CoolingDown, "left alone for 1m0s"},
		{"another is moving", func(in *Input) { in.Moving = "shop/db" }, MoveInProgress, "shop/db is being moved"},
		{"own load not known", func(in *Input) { delete(in.View.Nodes, "n1") }, UnknownHere, "n1"},
		{"nobody else uses the CPU here", func(in *Input) { change(in, "n1", func(n *view.Node) { n.State.Load.Used.CPU = .5 }) }, UnknownHere, "0.50 of 4.00"},

		{"no other node", func(in *Input) { delete(in.View.Nodes, "n2"); delete(in.View.Nodes, "n3") }, NoBetterNode, "no other node"},
		{"all are dead", func(in *Input) { change(in, "n3", func(n *view.Node) { n.Alive = false }) }, NoBetterNode, "no other node"},
		{"cannot restore", func(in *Input) {
			change(in, "n3", func(n *view.Node) { n.State.CannotRestore = "criu is 3.17" })
		}, NoBetterNode, "n3: it cannot restore a pod: criu is 3.17"},
		{"barred", func(in *Input) {
			in.Suffering[0].Barred = map[model.NodeID]string{"n3": "it is cordoned"}
		}, NoBetterNode, "n3: it is cordoned"},
		{"stale", func(in *Input) {
			change(in, "n3", func(n *view.Node) { n.Received = now.Add(-time.Minute) })
		}, NoBetterNode, "n3: the node's state is 1m0s old"},
		{"never heard of", func(in *Input) { change(in, "n3", func(n *view.Node) { n.Received = time.Time{} }) }, NoBetterNode, "n3: nothing was heard"},
		{"load not measured yet", func(in *Input) { change(in, "n3", func(n *view.Node) { n.State.Load.At = time.Time{} }) }, NoBetterNode, "n3: "},
		{"load senseless", func(in *Input) {
			change(in, "n3", func(n *view.Node) { n.State.Load.Used.CPU = model.Cores(math.NaN()) })
		}, NoBetterNode, "n3: the node's load makes no sense"},
		{"suffers itself", func(in *Input) {
			change(in, "n3", func(n *view.Node) {
				n.State.Suffering = []model.Contention{{Pod: model.PodID{Namespace: "shop", Name: "db"}, Grade: model.Severe}}
			})
		}, NoBetterNode, "n3: shop/db suffers there itself"},
		{"CPU request does not fit", func(in *Input) { change(in, "n3", func(n *view.Node) { n.State.Load.Requested.CPU = 3.5 }) }, NoBetterNode, "3.50 cores are requested of 4.00, 1.00 more"},
		{"memory request does not fit", func(in *Input) {
			change(in, "n3", func(n *view.Node) { n.State.Load.Requested.Memory = 7.5 * 1024 * model.MiB })
		}, NoBetterNode, "7.50 GiB are requested of 8.00, 1.00 more"},
		{"memory in use", func(in *Input) {
			change(in, "n3", func(n *view.Node) { n.State.Load.Used.Memory = 7.75 * 1024 * model.MiB })
		}, NoBetterNode, "7.75 GiB are in use of 8.00"},
		// 4-3.45 = 0.55 idle; 0.55-0.5 = 0.05 left.
		{"no headroom", func(in *Input) { change(in, "n3", func(n *view.Node) { n.State.Load.Used.CPU = 3.45 }) }, NoBetterNode, "0.55 cores are idle; with the pod's 0.50 less than 0.10"},
		// 1*(1.8/4)/(3.5/4) = 0.514: 2 times that is more than 1.
		{"not clearly better", func(in *Input) { change(in, "n3", func(n *view.Node) { n.State.Load.Used.CPU = 1.8 }) }, NoBetterNode, "it would wait about 0.51 there for cpu, not 2 times less"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := scene()
			change(&in, "n2", func(n *view.Node) { n.Alive = false })
			c.spoil(&in)
			d := Decide(Default(), in, now)
			if d.Move != nil || len(d.Verdicts) != 1 || d.Verdicts[0].Code != c.code || !strings.Contains(d.Verdicts[0].Message, c.message) {
				t.Errorf("got %+v, want %s with %q", d, c.code, c.message)
			}
		})
	}
}

// Just outside the limits of TestStay.
func TestGoAtTheLimits(t *testing.T) {
	for name, bend := range map[string]func(*Input){
		"moved a minute ago": func(in *Input) { in.View.Locations = []model.Location{{Origin: "o1", At: now.Add(-time.Minute)}} },
		"another was moved":  func(in *Input) { in.Tried["o2"] = now },
		// 1*(1.75/4)/(3.5/4) = 0.5.
		"half the wait":     func(in *Input) { change(in, "n3", func(n *view.Node) { n.State.Load.Used.CPU = 1.75 }) },
		"request just fits": func(in *Input) { change(in, "n3", func(n *view.Node) { n.State.Load.Requested.CPU = 3 }) },
		"route not known":   func(in *Input) { change(in, "n3", func(n *view.Node) { n.State.Routes = nil }) },
	} {
		in := scene()
		change(&in, "n2", func(n *view.Node) { n.Alive = false })
		bend(&in)
		if d := Decide(Default(), in, now); d.Move == nil || d.Move.To != "n3" {
			t.Errorf("%s: %+v, want n3", name, d)
		}
	}
}

// The best node by the formula is passed over when another one alone is clearly better.
func TestTheNextBestIsTaken(t *testing.T) {
	in := scene()
	change(&in, "n3", func(n *view.Node) { n.State.CannotRestore = "no criu" })
	if d := Decide(Default(), in, now); d.Move == nil || d.Move.To != "n2" {
		t.Errorf("%+v, want n2", d)
	}
}

func TestTheMoveThatRelievesMostForItsCostGoes(t *testing.T) {
	in := scene()
	small, large := web(), web()
	small.ID.Name, small.Origin, small.Memory, small.Wait = "small", "o2", 80*model.MiB, .8
	large.ID.Name, large.Origin, large.Memory, large.Wait = "large", "o3", 2*model.GiB, 2
	in.Suffering = []Pod{large, small, web()}
	d := Decide(Default(), in, now)
	// Each saves 0.9 of its wait: small 0.72/0.5 s = 1.4, web 0.9/1.3 s = 0.7, large 1.8/5.4 s = 0.3.
	if d.Move == nil || d.Move.Pod.ID.Name != "small" {
		t.Fatalf("%+v", d.Move)
	}
	want := map[string]Code{"shop/large": OtherFirst, "shop/small": Go, "shop/web": OtherFirst}
	for _, v := range d.Verdicts {
		if want[v.Pod.String()] != v.Code {
			t.Errorf("%+v, want %s", v, want[v.Pod.String()])
		}
	}
	if len(d.Verdicts) != 3 || !strings.Contains(d.Verdicts[0].Message, "saves 1.4 s of waiting for every second frozen, this one's 0.3") {
		t.Errorf("verdicts %+v", d.Verdicts)
	}
	// Of equals the one of higher priority.
	other := web()
	other.ID.Name, other.Origin, other.Priority = "zebra", "o9", 5
	in.Suffering = []Pod{web(), other}
	if d := Decide(Default(), in, now); d.Move == nil || d.Move.Pod.ID.Name != "zebra" {
		t.Errorf("%+v, want zebra", d.Move)
	}
}

// What a pod has begun to show decides between moves that relieve about as much, before priority
// does, and never between others.
func TestUnwellGoesFirstAmongEquals(t *testing.T) {
	for name, c := range map[string]struct {
		wait float64 // of the one that is unwell; the other's is 1
		want string
	}{
		"a little less": {.95, "unwell"}, // 4*log2(0.9*1/1.3) = -2.1, 4*log2(0.9*0.95/1.3) = -2.4: step -2
		"half":          {.5, "web"},
		"more":          {1.1, "unwell"},
	} {
		in := scene()
		unwell, well := web(), web()
		unwell.ID.Name, unwell.Origin, unwell.Wait, unwell.Unwell = "unwell", "o2", c.wait, "app: its readiness probe fails"
		well.Priority = 5
		in.Suffering = []Pod{well, unwell}
		d := Decide(Default(), in, now)
		if d.Move == nil || d.Move.Pod.ID.Name != c.want {
			t.Errorf("%s: %+v, want %s", name, d.Move, c.want)
			continue
		}
		if told := strings.HasSuffix(d.Move.Message, "; since it waits app: its readiness probe fails"); told != (c.want == "unwell") {
			t.Errorf("%s: message %s", name, d.Move.Message)
		}
	}
}

func TestNobodySuffers(t *testing.T) {
	in := scene()
	in.Suffering = nil
	if d := Decide(Default(), in, now); d.Move != nil || len(d.Verdicts) != 0 {
		t.Errorf("%+v", d)
	}
}

// Whatever is known, no decision breaks the rules, and none panics.
func TestRulesHold(t *testing.T) {
	weird := []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), 1e300, .5, 3.9}
	for seed := range uint64(5000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		figure := func() float64 {
			if rng.IntN(4) == 0 {
				return weird[rng.IntN(len(weird))]
			}
			return 4 * rng.Float64()
		}
		in := scene()
		for id := range in.View.Nodes {
			change(&in, id, func(n *view.Node) {
				n.Alive = rng.IntN(8) > 0
				n.Received = now.Add(-time.Duration(rng.IntN(35)) * time.Second)
				n.State.Load.Used.CPU = model.Cores(figure())
				n.State.Load.Allocatable.CPU = model.Cores(4 * figure())
				n.State.Load.Pressures = map[model.Resource]float64{model.OnIO: figure() / 4}
				if rng.IntN(5) == 0 {
					n.State.CannotRestore = "no"
				}
			})
		}
		in.Suffering = in.Suffering[:0]
		for i := range rng.IntN(4) {
			p := web()
			p.ID.UID, p.Origin = string(rune('a'+i)), string(rune('a'+i))
			p.Also = map[model.Resource]float64{model.OnIO: figure()}
			p.OptedIn, p.Wait, p.Run, p.Memory = rng.IntN(4) > 0, figure(), model.Cores(figure()), model.Bytes(rng.Int64N(int64(16*model.GiB)))
			in.Suffering = append(in.Suffering, p)
		}
		d := Decide(Default(), in, now)
		if len(d.Verdicts) != len(in.Suffering) {
			t.Fatalf("seed %d: %d verdicts of %d pods", seed, len(d.Verdicts), len(in.Suffering))
		}
		if d.Move == nil {
			continue
		}
		to := in.View.Nodes[d.Move.To]
		load := to.State.Load
		if d.Move.To == "n1" || !to.Alive || to.State.CannotRestore != "" || !d.Move.Pod.OptedIn ||
			now.Sub(to.Received) > in.Params.StaleAfter || !(load.Allocatable.CPU-load.Used.CPU-d.Move.Pod.Run >= .1) ||
			!(d.Move.Predicted >= 0 && 2*d.Move.Predicted <= d.Move.Pod.Wait) || d.Move.Frozen <= 0 ||
			!(2*load.Pressures[model.OnIO] <= d.Move.Pod.Also[model.OnIO]) {
			t.Fatalf("seed %d: %+v to %+v", seed, d.Move, to)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*Config){
		"margin":    func(c *Config) { c.Margin = .9 },
		"headroom":  func(c *Config) { c.Headroom = model.Cores(math.NaN()) },
		"cool-down": func(c *Config) { c.CoolDown = -1 },
		"frozen":    func(c *Config) { c.FrozenRate = 0 },
	} {
		c := Default()
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error about the %s", c, err, want)
		}
	}
}
