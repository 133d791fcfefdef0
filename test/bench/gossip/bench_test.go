package gossip

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-project/drover/internal/gossip/gossiptest"
	bench "github.com/drover-project/drover/test/bench/report"
)

var (
	parts  = flag.String("parts", "", "what is measured, of "+strings.Join(allParts, ",")+"; empty: nothing")
	sizes  = flag.String("sizes", "100,200,300,500,1000", "numbers of nodes of steady and baseline")
	faulty = flag.String("faulty", "200", "numbers of nodes of loss, join and partition")
	hours  = flag.String("hours", "100", "numbers of nodes of hour")
	swarms = flag.String("swarms", "100,200,300,500,1000,5000", "numbers of nodes of swarm, the model; 5,000 take 8 GB")
	runs   = flag.Int("runs", 1, "how often each is measured, with other seeds; medians are told")
	length = flag.Duration("length", time.Minute, "how long a cluster at rest of 300 nodes or more is measured, in virtual time; smaller ones for longer, full queues for half as long")
	hour   = flag.Duration("hour", time.Hour, "how long false deaths are looked for, in virtual time")
	jobs   = flag.Int("jobs", 2, "how many pieces are measured at once, each by a process of its own")
	memory = flag.Float64("memory", 12, "how many GB they may take together")
	dir    = flag.String("dir", "out/bench/gossip", "`directory` for what was found of each piece: a run that was interrupted goes on there, as long as the code is the same")
	out    = flag.String("out", "out/bench/gossip.json", "`file` for the figures")
	docs   = flag.String("docs", "", "`directory` for what the documentation shows; empty: none")
	one    = flag.String("piece", "", "one piece, as JSON, that this process measures itself: its finding goes to -out")
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
	if *one != "" {
		measureOne(t, *one, *out)
		return
	}
	if *parts == "" {
		t.Skip("nothing is asked for: see -parts")
	}
	chosen := strings.Split(*parts, ",")
	for _, part := range chosen {
		if !slices.Contains(allParts, part) {
			t.Fatalf("part %q is none of %v", part, allParts)
		}
	}
	asked := scope{steady: numbers(t, *sizes), faulty: numbers(t, *faulty), hours: numbers(t, *hours), swarms: numbers(t, *swarms), seeds: *runs, length: *length, hour: *hour}
	var all []piece
	for _, part := range allParts {
		if slices.Contains(chosen, part) {
			all = append(all, asked.pieces(part)...)
		}
	}
	code, err := codeDigest()
	if err != nil {
		t.Fatal(err)
	}
	c := &conductor{dir: *dir, code: code, jobs: *jobs, memory: *memory, measure: measureApart, log: os.Stderr}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := c.run(ctx, all); err != nil {
		t.Fatalf("%v\nwhat was measured is kept in %s: the same again goes on there", err, *dir)
	}
	if slices.Contains(chosen, partFigures) {
		tell(t, c)
	}
}

// tell writes the figures of all that this code has found.
func tell(t *testing.T, c *conductor) {
	found, err := c.all()
	if err != nil {
		t.Fatal(err)
	}
	d := together(found)
	metrics := figures(d)
	if err := bench.Print(os.Stdout, metrics); err != nil {
		t.Fatal(err)
	}
	if err := bench.WriteWith(*out, metrics, map[string]any{"code": c.code, "pieces": sources(found)}); err != nil {
		t.Fatal(err)
	}
	if *docs != "" {
		if err := drawGrowth(d, *docs); err != nil {
			t.Fatal(err)
		}
	}
}

// measureApart has a piece measured by a process of its own, on one processor: the members of one
// cluster would wait for each other on two, and its memory is free again when it ends.
func measureApart(ctx context.Context, p piece) (f finding, err error) {
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	what, err := json.Marshal(p)
	if err != nil {
		return f, err
	}
	tmp, err := os.MkdirTemp("", "gossip-piece-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "finding.json")
	cmd := exec.CommandContext(ctx, self, "-test.run=^TestBench$", "-test.timeout=3h", "-piece", string(what), "-out", file)
	// It collects garbage rarely as long as it has memory for that.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400", fmt.Sprintf("GOMEMLIMIT=%.0fMiB", 900*p.gigabytes()))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal comes when the thread ends that has begun the process
	defer runtime.UnlockOSThread()
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return f, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("read %s: %w", file, err)
	}
	f.Ended, f.Took = time.Now().UTC(), time.Since(begun).Seconds()
	f.Processors = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.Memory = float64(use.Maxrss) / 1e6 // KiB
	}
	return f, nil
}

// measureOne is the other end of measureApart.
func measureOne(t *testing.T, what, file string) {
	var p piece
	if err := json.Unmarshal([]byte(what), &p); err != nil {
		t.Fatalf("-piece %q: %v", what, err)
	}
	f := measure(t, p, os.Stderr)
	if t.Failed() {
		return
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func measure(t *testing.T, p piece, progress io.Writer) (f finding) {
	n := p.Nodes
	steady := func(make func(t *testing.T) maker) {
		bubble(t, p.String(), n, p.Seed, p.Loss, make, progress, func(w *world) error {
			f.Result = &result{System: p.System, Nodes: n, Loss: p.Loss, Seed: p.Seed}
			err := w.steady(n, p.Span, f.Result)
			if p.System == theirs {
				f.Result.Kinds = nil // it compresses
			}
			return err
		})
	}
	happens := func(nodes int, do func(w *world, o *outcome) error) {
		ofDrover := func(t *testing.T) maker { return drover(t, nodes, p.Seed, much) }
		bubble(t, p.String(), nodes, p.Seed, p.Loss, ofDrover, progress, func(w *world) error {
			f.Outcome = &outcome{Part: p.Part, System: p.System, Nodes: nodes, Seed: p.Seed}
			return do(w, f.Outcome)
		})
	}
	switch {
	case p.Part == partSwarm:
		s := measureSwarm(n, p.Seed, p.Loss, sizesOfRecords(t), p.Span, progress)
		f.Swarm = &s
	case p.Part == partJoin:
		happens(n+n/10, func(w *world, o *outcome) error { return w.join(n, o) })
	case p.Part == partPartition:
		happens(n, func(w *world, o *outcome) error { return w.partition(o) })
	case p.Part == partHour:
		happens(n, func(w *world, o *outcome) error {
			if err := w.settle(n); err != nil {
				return err
			}
			return w.deaths(p.Span, o)
		})
	case p.System == theirs:
		size := sizesOfRecords(t)
		steady(func(t *testing.T) maker { return baseline(size, p.Seed) })
	default:
		steady(func(t *testing.T) maker { return drover(t, n, p.Seed, atRest(n)) })
	}
	return f
}

// sizesOfRecords are those of Drover's records, which what it is compared with spreads, too.
func sizesOfRecords(t *testing.T) (size payload) {
	none := func() []string { return nil }
	m, err := drover(t, 2, 1, much)(0, none, gossiptest.NewNetwork(gossiptest.Config{}).Open(), func(_ int, k kind, _ int, _ uint64, bytes int) {
		switch k {
		case report:
			size.report = bytes
		case location:
			size.location = bytes
		}
	})
	if err == nil {
		err = m.tell(true)
	}
	if err == nil {
		err = m.announce(someMove(0, 1, 1))
	}
	if err != nil || size.report == 0 || size.location == 0 {
		t.Fatalf("records of %+v bytes: %v", size, err)
	}
	return size
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
