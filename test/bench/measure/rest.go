package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/test/bench/report"
	"github.com/drover-project/drover/test/cluster"
)

// settle is how long a new agent is given to come to rest: its first lists of the API server,
// and two collections of what they left.
const settle = time.Minute

// measureRest says what agents need on nodes on which nothing happens.
func measureRest(ctx context.Context, reps int, length time.Duration) (metrics []report.Metric, err error) {
	c, err := cluster.Up(ctx, cluster.Options{Lab: lab.Config{Name: "bench", Nodes: []lab.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}}, Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	if err := errors.Join(c.Measured(ctx), c.Able(ctx)); err != nil {
		return nil, err
	}
	<-time.After(settle)
	agents, err := agentsOf(c)
	if err != nil {
		return nil, err
	}
	var cores, mib []float64
	for rep := range reps {
		fmt.Fprintf(os.Stderr, "rest: run %d of %d\n", rep+1, reps)
		before, began := make([]time.Duration, len(agents)), time.Now()
		for i, pid := range agents {
			if before[i], err = ran(pid); err != nil {
				return nil, err
			}
		}
		<-time.After(length)
		for i, pid := range agents {
			now, err := ran(pid)
			if err != nil {
				return nil, err
			}
			cores = append(cores, (now-before[i]).Seconds()/time.Since(began).Seconds())
			kib, err := resident(pid)
			if err != nil {
				return nil, err
			}
			mib = append(mib, float64(kib)/1024)
		}
	}
	same := func(v float64) float64 { return v }
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "agent at rest\tmedian\tgreatest\t\ncores\t%.4f\t%.4f\t\nresident MiB\t%.1f\t%.1f\t\n",
		median(cores, same), quantile(cores, 1), median(mib, same), quantile(mib, 1))
	w.Flush()
	return []report.Metric{
		report.AtMost("cost/agent-at-rest-cpu", median(cores, same), "cores", .01, 0),
		report.AtMost("cost/agent-at-rest-memory", median(mib, same), "MiB", 60, 0),
	}, nil
}

// agentsOf finds the agents' processes. Their companions run the same program, and do nothing.
func agentsOf(c *cluster.Cluster) ([]int, error) {
	var pids []int
	for _, n := range c.Nodes() {
		processes, err := c.Lab.Processes(n)
		if err != nil {
			return nil, err
		}
		for _, p := range processes {
			if p.Program() == "drover-agent" && !slices.Contains(p.Args, "path") {
				pids = append(pids, p.PID)
			}
		}
	}
	if len(pids) != len(c.Nodes()) {
		return nil, fmt.Errorf("%d agents are found on %d nodes", len(pids), len(c.Nodes()))
	}
	return pids, nil
}

// ran is the CPU time that a process has used, the threads that have ended included
// (proc(5): utime and stime, in hundredths of a second).
func ran(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	sum := time.Duration(0)
	for _, f := range fields[11:13] {
		ticks, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sum, nil
}

// resident is the memory that a process has in use, in KiB, its program's pages included.
func resident(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(b), "VmRSS:")
	if !found {
		return 0, fmt.Errorf("process %d tells no VmRSS", pid)
	}
	return strconv.Atoi(strings.Fields(rest)[0])
}
