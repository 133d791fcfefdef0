package gossip

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
	bench "github.com/drover-project/drover/test/bench/report"
)

var (
	parts   = flag.String("parts", "", "what is measured, of steady,baseline,loss,join,partition,hour,swarm,figures; empty: nothing")
	sizes   = flag.String("sizes", "100,200,300,500,1000", "numbers of nodes of steady and baseline")
	faulty  = flag.String("faulty", "200", "numbers of nodes of loss, join, partition and hour")
	swarms  = flag.String("swarms", "100,200,300,500,1000,5000", "numbers of nodes of swarm, the model; 5,000 take 8 GB")
	runs    = flag.Int("runs", 1, "how often each is measured, with other seeds; medians are told")
	length  = flag.Duration("length", time.Minute, "how long a cluster at rest is measured, in virtual time")
	hour    = flag.Duration("hour", time.Hour, "how long false deaths are looked for, in virtual time")
	out     = flag.String("out", "out/bench/gossip.json", "`file` for the figures")
	docs    = flag.String("docs", "", "`directory` for what the documentation shows; empty: none")
	runData = flag.String("data", "out/bench/gossip-runs.json", "`file` for what each run has shown: pieces are put together there")
)

// bubble makes a world in virtual time and ends it.
func bubble(t *testing.T, name string, nodes int, seed uint64, loss float64, make func(t *testing.T) maker, progress io.Writer, do func(w *world) error) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k, err := kinds()
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(name, nodes, seed, lan(seed, loss, k), make(t), progress)
			if err := do(w); err != nil {
				t.Error(err)
			}
			if err := w.close(); err != nil {
				t.Error(err)
			}
		})
	})
}

func numbers(t *testing.T, list string) []int {
	var all []int
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 4 {
			t.Fatalf("size %q is no number of nodes from 4 on", s)
		}
		all = append(all, n)
	}
	return all
}

// TestBench is what "make bench-gossip" runs.
func TestBench(t *testing.T) {
	if *parts == "" {
		t.Skip("nothing is asked for: see -parts")
	}
	d, err := load(*runData)
	if err != nil {
		t.Fatal(err)
	}
	chosen := strings.Split(*parts, ",")
	known := []string{"steady", "baseline", "loss", "join", "partition", "hour", "swarm", "figures"}
	for _, c := range chosen {
		if !slices.Contains(known, c) {
			t.Fatalf("part %q is none of %v", c, known)
		}
	}
	for run := range *runs {
		seed := uint64(run + 1)
		for _, part := range known {
			if slices.Contains(chosen, part) {
				measure(t, d, part, seed)
			}
		}
	}
	if !slices.Contains(chosen, "figures") {
		return
	}
	metrics := figures(d)
	if err := bench.Print(os.Stdout, metrics); err != nil {
		t.Fatal(err)
	}
	if err := bench.Write(*out, metrics); err != nil {
		t.Fatal(err)
	}
	if *docs != "" {
		if err := drawGrowth(d, *docs); err != nil {
			t.Fatal(err)
		}
	}
}

func measure(t *testing.T, d *data, part string, seed uint64) {
	ofDrover := func(n int, told detail) func(t *testing.T) maker {
		return func(t *testing.T) maker { return drover(t, n, seed, told) }
	}
	save := func() {
		if err := d.save(*runData); err != nil {
			t.Fatal(err)
		}
	}
	steady := func(system string, n int, loss float64, make func(t *testing.T) maker) {
		name := fmt.Sprintf("%s-%d-loss-%g", system, n, 100*loss)
		bubble(t, name, n, seed, loss, make, os.Stderr, func(w *world) error {
			r := result{System: system, Nodes: n, Loss: loss, Seed: seed}
			if err := w.steady(n, *length, &r); err != nil {
				return err
			}
			if system == theirs {
				r.Kinds = nil // it compresses
			}
			d.result(r)
			return nil
		})
		save()
	}
	happens := func(n int, loss float64, do func(w *world, o *outcome) error) {
		bubble(t, fmt.Sprintf("%s-%d", part, n), n, seed, loss, ofDrover(n, much), os.Stderr, func(w *world) error {
			o := outcome{Part: part, System: ours, Nodes: n, Seed: seed}
			if err := do(w, &o); err != nil {
				return err
			}
			d.outcome(o)
			return nil
		})
		save()
	}
	switch part {
	case "steady":
		for _, n := range numbers(t, *sizes) {
			steady(ours, n, ordinaryLoss, ofDrover(n, atRest(n)))
		}
	case "baseline":
		size := sizesOfRecords(t, d)
		for _, n := range numbers(t, *sizes) {
			steady(theirs, n, ordinaryLoss, func(t *testing.T) maker { return baseline(size, seed) })
		}
	case "loss":
		size := sizesOfRecords(t, d)
		for _, n := range numbers(t, *faulty) {
			for _, loss := range []float64{0.05, 0.2} {
				steady(ours, n, loss, ofDrover(n, atRest(n)))
				steady(theirs, n, loss, func(t *testing.T) maker { return baseline(size, seed) })
			}
		}
	case "swarm":
		size := sizesOfRecords(t, d)
		for _, n := range numbers(t, *swarms) {
			d.swarm(measureSwarm(n, seed, ordinaryLoss, size, min(*length, 20*time.Second), os.Stderr))
			save()
		}
	case "join":
		for _, n := range numbers(t, *faulty) {
			happens(n+n/10, ordinaryLoss, func(w *world, o *outcome) error { return w.join(n, o) })
		}
	case "partition":
		for _, n := range numbers(t, *faulty) {
			happens(n, ordinaryLoss, func(w *world, o *outcome) error { return w.partition(o) })
		}
	case "hour":
		for _, n := range numbers(t, *faulty) {
			happens(n, 0.05, func(w *world, o *outcome) error {
				if err := w.settle(n); err != nil {
					return err
				}
				return w.deaths(*hour, o)
			})
		}
	}
}

// sizesOfRecords are those of Drover's records, as the runs have shown them.
func sizesOfRecords(t *testing.T, d *data) payload {
	for _, r := range d.Steady {
		if r.System == ours && r.Report.Bytes > 0 && r.Location.Bytes > 0 {
			return payload{r.Report.Bytes, r.Location.Bytes}
		}
	}
	t.Fatal("the baseline spreads as many bytes as Drover: measure the part steady first, over a time with a location")
	return payload{}
}

// All parts, in a small cluster and a short time.
func TestSmallCluster(t *testing.T) {
	const n, seed = 8, 1
	check := func(r *result) {
		if r.Report.Records == 0 || r.Report.All99 == never || r.BytesMean <= 0 || r.BytesMax < r.BytesMean || r.Overflows != 0 {
			t.Errorf("%+v", r)
		}
	}
	var size payload
	bubble(t, "drover", n, seed, ordinaryLoss, func(t *testing.T) maker { return drover(t, n, seed, atRest(n)) }, io.Discard, func(w *world) error {
		r := &result{}
		err := w.steady(n, 4*time.Minute, r)
		check(r)
		if r.Location.All99 == never && r.Location.Records > 0 || r.Kinds["load"] <= 0 || r.Kinds["unknown"] > 0 || r.Kinds["other"] > 0 {
			t.Errorf("%+v", r)
		}
		size = payload{r.Report.Bytes, 400}
		return err
	})
	bubble(t, "memberlist", n, seed, ordinaryLoss, func(t *testing.T) maker { return baseline(size, seed) }, io.Discard, func(w *world) error {
		r := &result{}
		err := w.steady(n, time.Minute, r)
		check(r)
		return err
	})
	bubble(t, "partition", n, seed, ordinaryLoss, func(t *testing.T) maker { return drover(t, n, seed, much) }, io.Discard, func(w *world) error {
		o := outcome{}
		err := w.partition(&o)
		if o.All == never || !o.Equal || o.Deaths != 0 || o.BytesMean <= 0 {
			t.Errorf("%+v", o)
		}
		return err
	})
	bubble(t, "join", n+2, seed, ordinaryLoss, func(t *testing.T) maker { return drover(t, n+2, seed, much) }, io.Discard, func(w *world) error {
		o := outcome{}
		err := w.join(n, &o)
		if o.All == never || o.Deaths != 0 || o.BytesMean <= 0 {
			t.Errorf("%+v", o)
		}
		return err
	})
	// A death is seen for what it is: of a node that is cut off, by the others and by itself.
	bubble(t, "deaths", n, seed, 0, func(t *testing.T) maker { return drover(t, n, seed, much) }, io.Discard, func(w *world) error {
		o := outcome{}
		if err := w.settle(n); err != nil {
			return err
		}
		w.net.Cut(func(from, to *gossiptest.Port) bool { return (from.Index == 0) != (to.Index == 0) })
		if err := w.deaths(3*time.Minute, &o); err != nil {
			return err
		}
		if o.Deaths != 2*(n-1) {
			t.Errorf("%d deaths, want %d: one node and %d others do not reach each other", o.Deaths, 2*(n-1), n-1)
		}
		return nil
	})
}
