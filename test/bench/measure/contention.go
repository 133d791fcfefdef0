package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
	"github.com/drover-project/drover/nodeagent/measure"
	"github.com/drover-project/drover/test/bench/report"
)

// podsCPU is the one that all pods of a scenario share, and that traffic is handled on.
const podsCPU = 0

// pod is one of a scenario, with one container.
type pod struct {
	name    string
	shares  int
	quota   float64 // cores; 0: none
	threads int
	// Each thread computes for a part of each period; all of it without one.
	work, period time.Duration
	forks        bool
	guilty       bool // it is an aggressor
}

// scenario is one node for a few seconds. The first pod is the one that is looked at.
type scenario struct {
	kind    string
	pods    []pod
	traffic bool
}

// kinds are met in turn; the seed draws the rest.
var kinds = []string{"one aggressor", "two aggressors", "own quota", "own quota and an aggressor", "softirq", "fork storm", "busy alone", "fork storm and an aggressor"}

func draw(seed int) scenario {
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	s := scenario{kind: kinds[seed%len(kinds)]}
	between := func(a, b int) int { return a + r.IntN(b-a+1) }
	victim := pod{name: "victim", shares: 1024, threads: between(1, 3)}
	if r.IntN(2) == 0 {
		victim.work, victim.period = time.Duration(between(3, 8))*time.Millisecond, 10*time.Millisecond
	}
	aggressor := func() {
		s.pods = append(s.pods, pod{name: fmt.Sprintf("aggressor-%d", len(s.pods)), shares: between(512, 4096), threads: between(1, 4), guilty: true})
	}
	storm := func() {
		s.pods = append(s.pods, pod{name: "storm", shares: between(1024, 4096), threads: between(2, 4), forks: true, guilty: true})
	}
	if strings.Contains(s.kind, "own quota") {
		victim.quota, victim.period = .1+.3*r.Float64(), 0
	}
	if s.kind == "busy alone" {
		victim.threads, victim.period = between(2, 4), 0
	}
	s.pods = []pod{victim}
	switch s.kind {
	case "one aggressor", "own quota and an aggressor":
		aggressor()
	case "two aggressors":
		aggressor()
		aggressor()
	case "fork storm":
		storm()
	case "fork storm and an aggressor":
		storm()
		aggressor()
	case "softirq":
		s.traffic = true
	}
	for i := range between(1, 3) { // who only stands beside
		s.pods = append(s.pods, pod{name: fmt.Sprintf("bystander-%d", i), shares: 1024, threads: 1,
			work: time.Duration(between(200, 1000)) * time.Microsecond, period: time.Duration(between(50, 200)) * time.Millisecond})
	}
	return s
}

// stageNames names containers by their control groups' names: the pod's UID ends with its number.
type stageNames struct{}

func uidOf(number int) string { return fmt.Sprintf("0a1b2c3d-1111-4222-8333-%012d", number) }

// Container knows every pod of a scenario.
func (stageNames) Container(uid, _ string) (model.PodID, string, bool) {
	number, err := strconv.Atoi(uid[len(uid)-12:])
	if err != nil {
		return model.PodID{}, "", false
	}
	return model.PodID{Namespace: "bench", Name: "p" + strconv.Itoa(number), UID: uid}, "main", true
}

func nameOf(number int) blame.Name {
	return blame.Name{Namespace: "bench", Pod: "p" + strconv.Itoa(number), Container: "main"}
}

// node is a kubepods of the benchmark's own, measured as an agent does it.
type node struct {
	tree       cgroup.Tree
	contention *measure.Contention
	net        *pair
	next       int // number of the next pod
}

// withNode measures contention while f runs.
func withNode(interval time.Duration, thresholds pressure.Thresholds, f func(*node) error) (err error) {
	tree, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if err := tree.Make(podsIn, true); err != nil {
		return err
	}
	defer removeGroups(tree)
	for _, h := range tree {
		if h.Has("cpuset") {
			if err := os.WriteFile(h.Path(podsIn)+"/cpuset.cpus", []byte(strconv.Itoa(podsCPU)), 0o644); err != nil {
				return fmt.Errorf("keep the pods on CPU %d: %w", podsCPU, err)
			}
		}
	}
	// Others' work on the machine must not be what the pods wait for.
	if err := setShares(tree, benchGroup, 1<<16); err != nil {
		return err
	}
	cgroups, err := measure.OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		return err
	}
	n := &node{tree: tree}
	if n.net, err = newVeth(); err != nil {
		return err
	}
	defer n.net.close()
	if err := n.net.peer.steer(podsCPU); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	n.contention = measure.NewContention(measure.ContentionConfig{Cgroups: cgroups, Kubepods: podsIn, Proc: "/proc",
		Interval: interval, Thresholds: thresholds, Attach: measure.AttachWaitMeter("", log), Triggers: measure.OpenTriggers, Names: stageNames{}, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.contention.Run(ctx) }()
	err = f(n)
	cancel()
	return errors.Join(err, <-ended)
}

// running is a pod that works, and its number.
type running struct {
	pod
	number int
	group  string
	actor  *actor
}

// start makes the pod and its process, which waits to be let go.
func (n *node) start(p pod) (*running, error) {
	n.next++
	r := &running{pod: p, number: n.next}
	r.group = path.Join(podsIn, "pod"+uidOf(r.number), fmt.Sprintf("%064x", r.number))
	if err := n.tree.Make(r.group, false); err != nil {
		return nil, err
	}
	if err := setShares(n.tree, path.Dir(r.group), p.shares); err != nil {
		return nil, err
	}
	if p.quota > 0 {
		if err := n.tree.SetSpeed(r.group, p.quota); err != nil {
			return nil, err
		}
	}
	role := "work"
	if p.forks {
		role = "forks"
	}
	var err error
	r.actor, err = start(nil, n.tree, r.group, role, strconv.Itoa(p.threads), p.work.String(), p.period.String())
	return r, err
}

func (n *node) stop(r *running) error {
	var err error
	if r.actor != nil {
		err = ignoreEnded(unix.Kill(-r.actor.cmd.Process.Pid, unix.SIGKILL))
		r.actor.cmd.Wait()
	}
	ctx, cancel := timeout(time.Minute)
	defer cancel()
	return errors.Join(err, n.tree.Remove(ctx, path.Dir(r.group)))
}

// await returns the first reading after a moment.
func (n *node) await(after time.Time) (measure.ContentionSnapshot, error) {
	var s measure.ContentionSnapshot
	err := until(context.Background(), func() bool {
		s = n.contention.Snapshot()
		return s.At.After(after)
	})
	return s, err
}

// play runs a scenario and gives whom Drover names, and who it was.
func (n *node) play(s scenario, length time.Duration) (named, guilty []string, err error) {
	var all []*running
	defer func() {
		for _, r := range all {
			err = errors.Join(err, n.stop(r))
		}
	}()
	for _, p := range s.pods {
		r, err := n.start(p)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, r)
	}
	if s.traffic {
		a, err := start(&n.net.origin, nil, "", "flood", args(&n.net.origin, n.net)...)
		if err != nil {
			return nil, nil, err
		}
		defer a.kill()
		if err := a.letGo(); err != nil {
			return nil, nil, err
		}
	}
	for _, r := range all {
		if err := r.actor.letGo(); err != nil {
			return nil, nil, err
		}
	}
	last, err := n.await(time.Now().Add(length))
	if err != nil {
		return nil, nil, err
	}
	names := map[blame.Name]string{}
	for _, r := range all {
		names[nameOf(r.number)] = r.name
		if r.guilty {
			guilty = append(guilty, r.name)
		}
	}
	for _, c := range last.Containers {
		if c.Shares.Name != nameOf(all[0].number) {
			continue
		}
		for _, to := range c.Shares.Aggressors() {
			if name, known := names[to.Name]; known {
				named = append(named, name)
			} else {
				named = append(named, to.Pod+" of the scenario before")
			}
		}
	}
	slices.Sort(named)
	slices.Sort(guilty)
	return named, guilty, nil
}

// score counts who was named rightly, wrongly, or not at all.
type score struct{ right, wrong, missed int }

func (s *score) add(named, guilty []string) {
	for _, n := range named {
		if slices.Contains(guilty, n) {
			s.right++
		} else {
			s.wrong++
		}
	}
	for _, g := range guilty {
		if !slices.Contains(named, g) {
			s.missed++
		}
	}
}

func part(of, rest int) float64 { return float64(of) / float64(of+rest) }

// measureBlame plays seeded scenarios, and asks who kept a pod from the CPU.
func measureBlame(count int, log io.Writer) ([]report.Metric, error) {
	const length = 4 * time.Second
	var sum score
	by := map[string]*score{}
	// As an agent's, but quick: a scenario is over soon.
	thresholds := pressure.Default()
	for r, c := range thresholds {
		c.Tight.Window, c.Severe.Window = length-time.Second, length-time.Second
		thresholds[r] = c
	}
	err := withNode(500*time.Millisecond, thresholds, func(n *node) error {
		for seed := range count {
			s := draw(seed)
			named, guilty, err := n.play(s, length)
			if err != nil {
				return fmt.Errorf("scenario %d, %s: %w", seed, s.kind, err)
			}
			if by[s.kind] == nil {
				by[s.kind] = &score{}
			}
			by[s.kind].add(named, guilty)
			sum.add(named, guilty)
			if !slices.Equal(named, guilty) {
				fmt.Fprintf(log, "contention: scenario %d, %s: named %v, guilty %v\n", seed, s.kind, named, guilty)
			} else if seed%10 == 9 {
				fmt.Fprintf(log, "contention: %d of %d scenarios\n", seed+1, count)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "scenarios\tnamed rightly\twrongly\tmissed\t")
	for _, k := range kinds {
		if s := by[k]; s != nil {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t\n", k, s.right, s.wrong, s.missed)
		}
	}
	w.Flush()
	return []report.Metric{
		report.AtLeast("contention/aggressor-precision", part(sum.right, sum.wrong), "ratio", .95, 0),
		report.AtLeast("contention/aggressor-recall", part(sum.right, sum.missed), "ratio", .95, 0),
	}, nil
}
