package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/test/bench/measure/truth"
	"github.com/drover-project/drover/test/bench/report"
)

// network is what is between the two hosts; a veth pair has no delay that could be set.
type network struct {
	name   string
	oneWay time.Duration
	veth   bool
}

var networks = []network{
	{name: "veth", veth: true},
	{name: "2ms", oneWay: time.Millisecond},
	{name: "20ms", oneWay: 10 * time.Millisecond},
}

// condition is how the machine is while it is measured.
type condition struct {
	name     string
	spinners int
	shares   int           // of the CPU, of each agent and the probers beside it; the spinners have 1024
	times    time.Duration // longer, as there is less to see
}

const fullShares = 1024

var conditions = []condition{
	{"idle", 0, fullShares, 1},
	{"busy", 4, fullShares, 1},
	{"starved", 4, 2, 3},
}

// probers are compared; the first is ours.
var probers = []truth.Prober{truth.Drover, truth.UDP, truth.HTTP}

var proberNames = map[truth.Prober]string{truth.Drover: "drover", truth.UDP: "udp", truth.HTTP: "http"}

// sample is one round trip with what it truly was.
type sample struct{ told, truth time.Duration }

// cell is what the probers found in one network and condition, once.
type cell map[truth.Prober][]sample

// benchGroup is the control group that all of the benchmark's are in.
const benchGroup = "/drover-bench-measure"

// measureRoutes compares Drover's round trips with plain probers', against the truth.
func measureRoutes(reps int, length time.Duration) ([]report.Metric, error) {
	tree, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	groups := []string{benchGroup + "/origin", benchGroup + "/peer", benchGroup + "/spinners", benchGroup + "/switch"}
	for _, g := range groups {
		if err := tree.Make(g, true); err != nil {
			return nil, err
		}
	}
	defer removeGroups(tree)
	witness, err := truth.Open()
	if err != nil {
		return nil, err
	}
	defer witness.Close()
	awake, err := keepAwake()
	if err != nil {
		return nil, err
	}
	defer awake.Close()
	all := map[string][]cell{}
	for rep := range reps {
		for _, n := range networks {
			p, err := n.make(groups[3])
			if err != nil {
				return nil, err
			}
			for _, c := range conditions {
				fmt.Fprintf(os.Stderr, "routes: run %d of %d, %s, %s\n", rep+1, reps, n.name, c.name)
				got, err := probe(tree, witness, p, c, length*c.times)
				if err != nil {
					return nil, errors.Join(fmt.Errorf("%s, %s: %w", n.name, c.name, err), p.close())
				}
				all[n.name+"/"+c.name] = append(all[n.name+"/"+c.name], got)
			}
			if err := p.close(); err != nil {
				return nil, err
			}
		}
	}
	if lost, err := witness.Lost(); err != nil || lost > 0 {
		return nil, errors.Join(err, fmt.Errorf("%d stamps of the truth were lost", lost))
	}
	return judge(all), nil
}

func (n network) make(group string) (*pair, error) {
	if n.veth {
		return newVeth()
	}
	return newFabric(group, n.oneWay)
}

// keepAwake keeps the machine's processors from going to sleep until the file is closed: waking them
// up can take a virtual machine longer than what is to be measured, and is nothing that a prober or
// the lab's switch could do anything about.
func keepAwake() (*os.File, error) {
	f, err := os.OpenFile("/dev/cpu_dma_latency", os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("keep the processors awake: %w", err)
	}
	if _, err := f.Write(make([]byte, 4)); err != nil { // none is acceptable, in µs
		return nil, errors.Join(fmt.Errorf("keep the processors awake: %w", err), f.Close())
	}
	return f, nil
}

func removeGroups(tree cgroup.Tree) {
	ctx, cancel := timeout(time.Minute)
	defer cancel()
	if err := tree.Remove(ctx, benchGroup); err != nil {
		fmt.Fprintln(os.Stderr, "routes:", err)
	}
}

// setShares sets what part of the CPU a group has beside others.
func setShares(tree cgroup.Tree, group string, shares int) error {
	for _, h := range tree {
		if !h.Has("cpu") {
			continue
		}
		file, value := "cpu.shares", shares
		if h.Version == 2 { // the kernel's own conversion: 1024 is 100
			file, value = "cpu.weight", max(1, shares*100/fullShares)
		}
		return os.WriteFile(h.Path(group)+"/"+file, []byte(strconv.Itoa(value)), 0o644)
	}
	return errors.New("no control group hierarchy has the cpu controller")
}

// probe lets all probers work side by side for a while.
func probe(tree cgroup.Tree, witness *truth.Witness, p *pair, c condition, length time.Duration) (got cell, err error) {
	for _, end := range []string{"/origin", "/peer"} {
		if err := setShares(tree, benchGroup+end, c.shares); err != nil {
			return nil, err
		}
	}
	var actors, spinners, origins []*actor
	defer func() {
		for _, a := range append(actors, spinners...) {
			err = errors.Join(err, ignoreEnded(a.kill()))
		}
	}()
	add := func(to *[]*actor, h *host, group, role string) error {
		a, err := start(h, tree, benchGroup+group, role, args(h, p)...)
		if err == nil {
			*to = append(*to, a)
		}
		return err
	}
	for _, name := range []string{"drover", "udp", "http"} {
		if err := add(&actors, &p.peer, "/peer", name+"-peer"); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"drover", "udp", "http"} {
		if err := add(&actors, &p.origin, "/origin", name+"-origin"); err != nil {
			return nil, err
		}
		origins = append(origins, actors[len(actors)-1])
	}
	for range c.spinners {
		if err := add(&spinners, nil, "/spinners", "spin"); err != nil {
			return nil, err
		}
	}
	for _, a := range append(slices.Clone(spinners), actors...) {
		if err := a.letGo(); err != nil {
			return nil, err
		}
	}
	seen, err := watch(witness, time.Now().Add(length))
	if err != nil {
		return nil, err
	}
	// Who is starved would take long to say what it found.
	for _, a := range spinners {
		if err := ignoreEnded(a.kill()); err != nil {
			return nil, err
		}
	}
	got = cell{}
	for i, a := range origins {
		lines, err := a.end()
		if err != nil {
			return nil, err
		}
		told, err := parseFound(lines)
		if err != nil {
			return nil, err
		}
		got[probers[i]] = seen.match(probers[i], told)
		if len(got[probers[i]]) < 5 {
			return nil, fmt.Errorf("%s: %d round trips told, %d of them witnessed: too few", a.name, len(told), len(got[probers[i]]))
		}
	}
	return got, nil
}

func args(h *host, p *pair) []string {
	switch h {
	case &p.origin:
		return []string{p.origin.address.String(), p.peer.address.String()}
	case &p.peer:
		return []string{p.peer.address.String(), p.origin.address.String()}
	}
	return nil
}

func ignoreEnded(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// trip is when the packets of one round trip passed the points; 0: never.
type trip [truth.Points]time.Duration

// network gives what of the trip passed between the drivers.
func (t trip) network() (time.Duration, bool) {
	for i := range t {
		if t[i] == 0 || i > 0 && t[i] < t[i-1] {
			return 0, false
		}
	}
	return t[truth.RequestComes] - t[truth.RequestLeaves] + t[truth.AnswerComes] - t[truth.AnswerLeaves], true
}

// seen is what the witness saw: datagrams by nonce, segments in order.
type seen struct {
	trips    map[truth.Prober]map[uint64]*trip
	segments []truth.Event
}

// watch collects what the witness sees until the deadline.
func watch(w *truth.Witness, deadline time.Time) (*seen, error) {
	s := &seen{trips: map[truth.Prober]map[uint64]*trip{truth.Drover: {}, truth.UDP: {}}}
	for {
		e, err := w.Read(deadline)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		if e.Prober == truth.HTTP {
			s.segments = append(s.segments, e)
			continue
		}
		t := s.trips[e.Prober][e.ID]
		if t == nil {
			t = &trip{}
			s.trips[e.Prober][e.ID] = t
		}
		t[e.Point] = e.At
	}
}

// match gives those round trips whose truth is known.
func (s *seen) match(p truth.Prober, told []found) []sample {
	var all []sample
	for _, f := range told {
		t := s.trips[p][f.nonce]
		if p == truth.HTTP {
			t = s.between(f.began, f.began+f.rtt)
		}
		if t == nil {
			continue
		}
		if n, whole := t.network(); whole {
			all = append(all, sample{f.rtt, n})
		}
	}
	return all
}

// between is the trip of the segments in a time in which one request was under way.
func (s *seen) between(from, to time.Duration) *trip {
	var t trip
	for _, e := range s.segments {
		if e.At >= from && e.At <= to && t[e.Point] == 0 {
			t[e.Point] = e.At
		}
	}
	return &t
}

// judge makes the figures: of each the median over the runs.
func judge(all map[string][]cell) []report.Metric {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "network\tcondition\tprober\tround trips\ttruth p50 µs\terror p50 µs\terror p99 µs\t")
	var metrics []report.Metric
	for _, n := range networks {
		for _, c := range conditions {
			cells := all[n.name+"/"+c.name]
			worst := map[truth.Prober]float64{}
			for _, p := range probers {
				of := func(f func(cell) float64) float64 { return median(cells, f) }
				worst[p] = of(func(c cell) float64 { return quantile(errorsOf(c[p]), .99) })
				fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%.1f\t%.1f\t%.1f\t\n", n.name, c.name, proberNames[p],
					of(func(c cell) float64 { return float64(len(c[p])) }),
					of(func(c cell) float64 { return quantile(truths(c[p]), .5) }),
					of(func(c cell) float64 { return quantile(errorsOf(c[p]), .5) }), worst[p])
			}
			name := "routes/" + n.name + "/" + c.name
			goal := max(20, .05*median(cells, func(c cell) float64 { return quantile(truths(c[truth.Drover]), .5) }))
			metrics = append(metrics, report.AtMost(name+"/error-p99", worst[truth.Drover], "µs", goal, worst[truth.UDP]))
			if !n.veth {
				set := 2 * n.oneWay
				off := func(p truth.Prober) float64 {
					return median(cells, func(c cell) float64 { return quantile(offBy(c[p], set), .99) })
				}
				metrics = append(metrics, report.AtMost(name+"/set-delay-error-p99", off(truth.Drover), "µs",
					max(20, .05*micros(set)), off(truth.UDP)))
			}
			if c.name == "starved" {
				metrics = append(metrics,
					report.AtLeast(name+"/udp-error-over-ours", worst[truth.UDP]/worst[truth.Drover], "ratio", 20, 1),
					report.AtLeast(name+"/http-error-over-ours", worst[truth.HTTP]/worst[truth.Drover], "ratio", 20, 1))
			}
		}
	}
	w.Flush()
	return metrics
}
