package deadband

import (
	"math"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
)

func said() model.Load {
	return model.Load{
		Allocatable: model.Resources{CPU: 8, Memory: 16 * model.GiB},
		Requested:   model.Resources{CPU: 2, Memory: model.GiB},
		Used:        model.Resources{CPU: 3, Memory: 4 * model.GiB},
		Pressure:    .2, Pressures: map[model.Resource]float64{model.OnCPU: .2, model.OnIO: .1},
		At: time.Unix(1, 0),
	}
}

func TestLoad(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*model.Load)
		want   bool
	}{
		"the same":                    {func(*model.Load) {}, false},
		"measured later":              {func(l *model.Load) { l.At = time.Unix(9, 0) }, false},
		"not measured":                {func(l *model.Load) { l.At = time.Time{} }, true},
		"0.05 of 8 cores more":        {func(l *model.Load) { l.Used.CPU += .05 * 8 }, false},
		"more than that":              {func(l *model.Load) { l.Used.CPU += .05*8 + .01 }, true},
		"less by more":                {func(l *model.Load) { l.Used.CPU -= .05*8 + .01 }, true},
		"a small node, 0.09":          {func(l *model.Load) { l.Allocatable.CPU, l.Used.CPU = 1, 3.09 }, false},
		"a small node, 0.11":          {func(l *model.Load) { l.Allocatable.CPU, l.Used.CPU = 1, 3.11 }, true},
		"0.02 of 16 GiB more":         {func(l *model.Load) { l.Used.Memory += 16 * model.GiB / 50 }, false},
		"more memory than that":       {func(l *model.Load) { l.Used.Memory += 17 * model.GiB / 50 }, true},
		"a request of a thousandth":   {func(l *model.Load) { l.Requested.CPU += .001 }, true},
		"a sum in another order":      {func(l *model.Load) { l.Requested.CPU += 1e-15 }, false},
		"a request of a byte":         {func(l *model.Load) { l.Requested.Memory++ }, true},
		"a pressure within":           {func(l *model.Load) { l.Pressure = .249 }, false},
		"a pressure beyond":           {func(l *model.Load) { l.Pressure = .251 }, true},
		"another resource's pressure": {func(l *model.Load) { l.Pressures = map[model.Resource]float64{model.OnCPU: .2, model.OnIO: .2} }, true},
		"another resource":            {func(l *model.Load) { l.Pressures = map[model.Resource]float64{model.OnCPU: .2, model.OnMemory: .1} }, true},
		"one resource less":           {func(l *model.Load) { l.Pressures = map[model.Resource]float64{model.OnCPU: .2} }, true},
		"no number":                   {func(l *model.Load) { l.Used.CPU = model.Cores(math.NaN()) }, true},
	} {
		now := said()
		test.change(&now)
		if got := Load(said(), now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// What drifts by steps within the band is told in the end: the band lies around what was said.
func TestDriftIsTold(t *testing.T) {
	last, now, told := said(), said(), 0
	for range 100 {
		now.Used.CPU += .05
		if Load(last, now) {
			last, told = now, told+1
		}
	}
	if told != 100/9 { // the ninth step is the first beyond 0.4
		t.Errorf("5 cores in steps of 0.05 were told %d times, want %d", told, 100/9)
	}
}

func TestBandwidth(t *testing.T) {
	b := func(sent, received, capacity model.Rate) *model.Bandwidth {
		return &model.Bandwidth{Sent: sent, Received: received, Capacity: capacity}
	}
	for name, test := range map[string]struct {
		said, now *model.Bandwidth
		want      bool
	}{
		"never known":                  {nil, nil, false},
		"known now":                    {nil, b(0, 0, 0), true},
		"known no more":                {b(0, 0, 0), nil, true},
		"a little of nothing":          {b(0, 0, 0), b(1e6, 1e6, 0), false},
		"more":                         {b(0, 0, 0), b(0, 2e6, 0), true},
		"a quarter":                    {b(100e6, 0, 0), b(125e6, 0, 0), false},
		"more than a quarter":          {b(100e6, 0, 0), b(126e6, 0, 0), true},
		"a tenth of the capacity":      {b(1e6, 0, 1e9), b(101e6, 0, 1e9), false},
		"more than that":               {b(1e6, 0, 1e9), b(102e6, 0, 1e9), true},
		"the capacity is registration": {b(0, 0, 1e9), b(0, 0, 2e9), false},
	} {
		if got := Bandwidth(test.said, test.now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestRoute(t *testing.T) {
	r := func(rtt, spread time.Duration, samples int) model.RouteTime {
		return model.RouteTime{RTT: rtt, Spread: spread, Samples: samples, Stamp: model.StampKernel}
	}
	const us, ms = time.Microsecond, time.Millisecond
	user := r(8*ms, 0, 50)
	user.Stamp = model.StampUser
	for name, test := range map[string]struct {
		said, now model.RouteTime
		want      bool
	}{
		"an eighth":               {r(8*ms, 0, 50), r(9*ms, 0, 50), false},
		"more":                    {r(8*ms, 0, 50), r(9*ms+us, 0, 50), true},
		"below the floor":         {r(20*us, 0, 50), r(70*us, 0, 50), false},
		"within the spread":       {r(8*ms, 3*ms, 50), r(11*ms, 3*ms, 50), false},
		"beyond it":               {r(8*ms, 3*ms, 50), r(11*ms+us, 3*ms, 50), true},
		"a spread that grows":     {r(8*ms, ms, 50), r(8*ms, 3*ms, 50), true},
		"one that hardly does":    {r(8*ms, ms, 50), r(8*ms, 2*ms, 50), false},
		"stamped elsewhere":       {r(8*ms, 0, 50), user, true},
		"the first few answers":   {r(8*ms, 0, 1), r(8*ms, 0, 3), false},
		"more of them":            {r(8*ms, 0, 1), r(8*ms, 0, 4), true},
		"a fifth of answers lost": {r(8*ms, 0, 50), r(8*ms, 0, 40), false},
		"most of them":            {r(8*ms, 0, 48), r(8*ms, 0, 12), true},
	} {
		if got := Route(test.said, test.now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestSuffering(t *testing.T) {
	c := func(uid string, g model.Grade, wait float64) model.Contention {
		return model.Contention{Pod: model.PodID{UID: uid}, Resource: model.OnCPU, Grade: g, Wait: wait}
	}
	type list = []model.Contention
	for name, test := range map[string]struct {
		said, now      list
		differs, grave bool
	}{
		"none":                 {nil, nil, false, false},
		"in another order":     {list{c("a", model.Tight, .3), c("b", model.Tight, .3)}, list{c("b", model.Tight, .3), c("a", model.Tight, .3)}, false, false},
		"a little worse":       {list{c("a", model.Severe, .5)}, list{c("a", model.Severe, .6)}, false, false},
		"worse":                {list{c("a", model.Severe, .5)}, list{c("a", model.Severe, .7)}, true, false},
		"tight":                {nil, list{c("a", model.Tight, .3)}, true, false},
		"tight no more":        {list{c("a", model.Tight, .3)}, nil, true, false},
		"severe":               {nil, list{c("a", model.Severe, .6)}, true, true},
		"tight becomes severe": {list{c("a", model.Tight, .3)}, list{c("a", model.Severe, .6)}, true, true},
		"severe no more":       {list{c("a", model.Severe, .6)}, nil, true, true},
		"another suffers":      {list{c("a", model.Tight, .3)}, list{c("b", model.Tight, .3)}, true, false},
	} {
		if differs, grave := Suffering(test.said, test.now); differs != test.differs || grave != test.grave {
			t.Errorf("%s: differs %v, grave %v; want %v, %v", name, differs, grave, test.differs, test.grave)
		}
	}
}

func TestEdge(t *testing.T) {
	for _, test := range []struct {
		said, now model.Bytes
		want      bool
	}{{1000, 1000, false}, {1000, 1500, false}, {1000, 1501, true}, {1500, 1000, false}, {1501, 1000, true}, {1, 1, false}, {1, 2, true}, {1 << 50, 1, true}} {
		if got := Edge(test.said, test.now); got != test.want {
			t.Errorf("%d after %d: %v, want %v", test.now, test.said, got, test.want)
		}
	}
}
