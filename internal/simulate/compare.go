package simulate

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"

	"github.com/drover-project/drover/internal/view"
)

// Question is what is to be simulated.
type Question struct {
	Cluster *Cluster
	Pods    []*corev1.Pod
	// Measured is by which placements are judged; empty: by nothing measured. The plugins have theirs
	// from elsewhere.
	Measured view.Snapshot
	Config   *config.KubeSchedulerConfiguration
	// More are the plugins beside kube-scheduler's own.
	More frameworkruntime.Registry
	// Runs, 1 or more, is how often each profile places the pods, with the lots of Seed, Seed+1, ...
	Runs int
	Seed uint64
	// Progress is told how many pods of all profiles and runs have been tried. It may be called by several
	// at once; nil: nobody is told.
	Progress func(done, of int)
}

// Answer is what each profile would have done.
type Answer struct {
	Runs     int       `json:"runs"`
	Seed     uint64    `json:"seed"`
	Profiles []Profile `json:"profiles"`
}

// Profile is what one would have done.
type Profile struct {
	Name    string  `json:"name"`
	Summary Summary `json:"summary"`
	// Pods are in the order in which they were placed.
	Pods []Outcome `json:"pods"`
}

// Outcome is where a pod came, most often.
type Outcome struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Node is empty where it is pending, for Reason.
	Node   string `json:"node,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Runs is in how many runs it came there. Nodes is how often each node was chosen, "" for pending;
	// only of several runs.
	Runs  int            `json:"runs"`
	Nodes map[string]int `json:"nodes,omitempty"`
	// RouteTime is that to its peers in milliseconds, in the first of those runs; nil: not known.
	RouteTime *float64 `json:"routeTimeMs,omitempty"`
}

// Pod is namespace/name.
func (o Outcome) Pod() string { return o.Namespace + "/" + o.Name }

// run is one run of one profile.
type run struct {
	placements []Placement
	routes     map[int]time.Duration
	summary    Summary
}

// Ask lets every profile place the pods. The same question has the same answer.
func Ask(ctx context.Context, q Question) (*Answer, error) {
	if q.Runs < 1 {
		return nil, fmt.Errorf("%d runs: want 1 or more", q.Runs)
	}
	profiles := q.Config.Profiles
	runs := make([][]run, len(profiles))
	judge := newJudge(q.Cluster, q.Measured)
	told := &progress{of: len(profiles) * q.Runs * len(q.Pods), tell: q.Progress}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range profiles {
		runs[i] = make([]run, q.Runs)
		for n := range runs[i] {
			group.Go(func() error {
				all, err := place(ctx, q.Cluster, q.Pods, q.Config, *profiles[i].DeepCopy(), q.More, q.Seed+uint64(n), told.one)
				if err != nil {
					return err
				}
				f := newFellows(q.Cluster, all)
				routes := judge.routes(f, all)
				runs[i][n] = run{all, routes, judge.summary(all, f, routes)}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	a := &Answer{Runs: q.Runs, Seed: q.Seed}
	for i := range profiles {
		a.Profiles = append(a.Profiles, answer(profiles[i].SchedulerName, q.Pods, runs[i]))
	}
	return a, nil
}

// answer puts the runs of a profile together.
func answer(name string, pods []*corev1.Pod, runs []run) Profile {
	p := Profile{Name: name}
	var all []Summary
	for _, r := range runs {
		all = append(all, r.summary)
	}
	p.Summary = mean(all)
	for i, pod := range pods {
		p.Pods = append(p.Pods, outcome(pod, i, runs))
	}
	return p
}

// outcome is the place of one pod; of two that are as frequent the one that came first.
func outcome(pod *corev1.Pod, i int, runs []run) Outcome {
	nodes := map[string]int{}
	for _, r := range runs {
		nodes[r.placements[i].Node]++
	}
	most := slices.MaxFunc(runs, func(a, b run) int { return nodes[a.placements[i].Node] - nodes[b.placements[i].Node] })
	here := most.placements[i]
	o := Outcome{Namespace: pod.Namespace, Name: pod.Name, Node: here.Node, Reason: here.Reason, Runs: nodes[here.Node]}
	if len(runs) > 1 {
		o.Nodes = nodes
	}
	if t, known := most.routes[i]; known {
		ms := milliseconds(t)
		o.RouteTime = &ms
	}
	return o
}

// progress adds up what several runs have done.
type progress struct {
	mu       sync.Mutex
	done, of int
	tell     func(done, of int)
}

func (p *progress) one() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.tell != nil {
		p.tell(p.done, p.of)
	}
}
