package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/test/bench/report"
	"github.com/drover-project/drover/test/netspace"
)

// load is a program whose speed is compared with and without Drover. Its figure is a rate.
type load struct {
	name   string
	goal   float64 // of with / without
	most   bool    // of the time that it takes: without / with, at most the goal
	figure *regexp.Regexp
	run    func(b *bench) (string, error)
}

const (
	sockperfPort = "18100"
	redisPort    = "18101"
	nginxPort    = "18102"
)

var loads = []load{
	{"tcp-rr", .97, false, regexp.MustCompile(`SentMessages=(\d+)`), func(b *bench) (string, error) {
		return b.output(&b.pair.origin, "/usr/bin/sockperf", "ping-pong", "--tcp", "-i", b.server(), "-p", sockperfPort, "-t", "3", "--mps=max")
	}},
	{"redis", .99, false, regexp.MustCompile(`GET: ([\d.]+) requests per second`), func(b *bench) (string, error) {
		return b.output(&b.pair.origin, "/usr/bin/redis-benchmark", "-h", b.server(), "-p", redisPort, "-t", "get", "-n", "300000", "-c", "20", "-q")
	}},
	{"nginx", .99, false, regexp.MustCompile(`Requests/sec:\s+([\d.]+)`), func(b *bench) (string, error) {
		return b.output(&b.pair.origin, "/usr/bin/wrk", "-t", "1", "-c", "20", "-d", "3s", "http://"+net.JoinHostPort(b.server(), nginxPort)+"/")
	}},
	{"sched-pipe-two-cpus", 1.05, true, regexp.MustCompile(`([\d]+) ops/sec`), func(b *bench) (string, error) {
		return b.output(nil, "/usr/bin/perf", "bench", "sched", "pipe", "-l", "150000")
	}},
	{"sched-pipe-one-cpu", 1.20, true, regexp.MustCompile(`([\d]+) ops/sec`), func(b *bench) (string, error) {
		return b.output(nil, "/usr/bin/taskset", "-c", "0", "/usr/bin/perf", "bench", "sched", "pipe", "-l", "300000")
	}},
}

func namesOf(loads []load) (names []string) {
	for _, l := range loads {
		names = append(names, l.name)
	}
	return names
}

// choose gives the loads of a comma-separated list of names; all, if it is empty.
func choose(names string) (chosen []load, _ error) {
	if names == "" {
		return loads, nil
	}
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(loads, func(l load) bool { return l.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no load %q: want some of %s", name, strings.Join(namesOf(loads), ","))
		}
		chosen = append(chosen, loads[i])
	}
	return chosen, nil
}

// bench is two hosts, the programs, and the servers that run.
type bench struct {
	*software
	tree cgroup.Tree
	pair *pair
	stop []func() error
}

func (b *bench) server() string { return b.pair.peer.address.String() }

// measureCost compares programs with and without Drover's measuring beside them.
func measureCost(ctx context.Context, loads []load, reps int) ([]report.Metric, error) {
	b, err := setUp(ctx)
	if err != nil {
		return nil, err
	}
	ratios := map[string][]float64{}
	for rep := range reps {
		for _, l := range loads {
			fmt.Fprintf(os.Stderr, "cost: run %d of %d, %s\n", rep+1, reps, l.name)
			// Without, with, with, without: what drifts falls on both.
			var with, without float64
			for _, on := range []bool{false, true, true, false} {
				rate, err := b.rate(l, on)
				if err != nil {
					return nil, errors.Join(err, b.close())
				}
				if on {
					with += rate / 2
				} else {
					without += rate / 2
				}
			}
			ratio := with / without
			if l.most {
				ratio = without / with
			}
			ratios[l.name] = append(ratios[l.name], ratio)
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\tratio p25\tmedian\tp75\t")
	var metrics []report.Metric
	for _, l := range loads {
		mid := median(ratios[l.name], func(r float64) float64 { return r })
		fmt.Fprintf(w, "%s\t%.3f\t%.3f\t%.3f\t\n", l.name, quantile(ratios[l.name], .25), mid, quantile(ratios[l.name], .75))
		if l.most {
			metrics = append(metrics, report.AtMost("cost/"+l.name+"-time", mid, "ratio", l.goal, 1))
		} else {
			metrics = append(metrics, report.AtLeast("cost/"+l.name, mid, "ratio", l.goal, 1))
		}
	}
	w.Flush()
	return metrics, b.close()
}

// rate runs a load once.
func (b *bench) rate(l load, beside bool) (float64, error) {
	if beside {
		stop, err := b.beside()
		if err != nil {
			return 0, err
		}
		defer stop()
	}
	out, err := l.run(b)
	if err != nil {
		return 0, err
	}
	m := l.figure.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s printed no figure like %s: %s", l.name, l.figure, out)
	}
	return strconv.ParseFloat(m[1], 64)
}

// beside starts all of Drover's measuring on both hosts.
func (b *bench) beside() (func(), error) {
	var actors []*actor
	stop := func() {
		for _, a := range actors {
			if _, err := a.end(); err != nil {
				fmt.Fprintln(os.Stderr, "cost:", err)
			}
		}
	}
	for i, h := range []*host{&b.pair.peer, &b.pair.origin} {
		a, err := start(h, nil, "", "everything", append(args(h, b.pair), []string{"first", "second"}[i])...)
		if err != nil {
			stop()
			return nil, err
		}
		actors = append(actors, a)
		if err := a.letGo(); err != nil {
			stop()
			return nil, err
		}
	}
	for _, a := range actors {
		if line, err := a.out.ReadString('\n'); line != "measuring\n" {
			stop()
			return nil, fmt.Errorf("%s: %q, %v", a.name, line, err)
		}
	}
	return stop, nil
}

func setUp(ctx context.Context) (b *bench, err error) {
	b = &bench{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.software, err = newSoftware(ctx); err != nil {
		return b, err
	}
	if b.tree, err = cgroup.Detect(); err != nil {
		return b, err
	}
	if err := b.tree.Make(container, true); err != nil {
		return b, err
	}
	b.stop = append(b.stop, func() error {
		ctx, cancel := timeout(time.Minute)
		defer cancel()
		return b.tree.Remove(ctx, benchGroup)
	}, b.software.close)
	if b.pair, err = newVeth(); err != nil {
		return b, err
	}
	b.stop = append(b.stop, b.pair.close)
	if err := b.pair.origin.in(func() error { return netspace.Up("lo") }); err != nil {
		return b, err
	}
	config := fmt.Sprintf("worker_processes 1; daemon off; error_log stderr; pid /run/nginx.pid; user root;\n"+
		"events {}\nhttp { access_log off; keepalive_requests 100000000; server { listen %s; location / { return 200 \"hello\"; } } }\n",
		net.JoinHostPort(b.server(), nginxPort))
	if err := os.WriteFile(filepath.Join(b.root, "nginx.conf"), []byte(config), 0o644); err != nil {
		return b, err
	}
	for _, s := range [][]string{
		{"/usr/bin/sockperf", "server", "--tcp", "-i", b.server(), "-p", sockperfPort},
		{"/usr/bin/redis-server", "--bind", b.server(), "--port", redisPort, "--protected-mode", "no", "--save", "", "--appendonly", "no"},
		{"/usr/sbin/nginx", "-c", "/nginx.conf"},
	} {
		stop, err := b.serve(&b.pair.peer, b.join, s[0], s[1:]...)
		if err != nil {
			return b, err
		}
		b.stop = append(b.stop, stop)
	}
	for _, port := range []string{sockperfPort, redisPort, nginxPort} {
		if err := b.pair.origin.in(func() error { return answers(ctx, net.JoinHostPort(b.server(), port)) }); err != nil {
			return b, err
		}
	}
	return b, nil
}

// join puts a server into the pod's container.
func (b *bench) join(pid int) error { return join(b.tree, container, pid) }

func answers(ctx context.Context, address string) error {
	var last error
	err := until(ctx, func() bool {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if last = err; err != nil {
			return false
		}
		conn.Close()
		return true
	})
	if err != nil {
		return fmt.Errorf("nothing answers on %s: %w: %w", address, err, last)
	}
	return nil
}

func (b *bench) close() error {
	var errs []error
	for i := len(b.stop) - 1; i >= 0; i-- {
		errs = append(errs, b.stop[i]())
	}
	b.stop = nil
	return errors.Join(errs...)
}
