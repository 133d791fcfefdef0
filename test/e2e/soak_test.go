package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
	"github.com/drover-project/drover/test/remains"
	"github.com/drover-project/drover/test/witness"
)

var (
	soakMoves = flag.Int("soak.moves", 3, "moves of each kind in TestSoakOwners")
	soakHeap  = flag.Int("soak.heap-mib", 16, "size of the heap that TestSoakOwners moves, in MiB")
)

// soakReport is where TestSoakOwners writes what it saw.
const soakReport = "../../out/soak/owners.json"

// ownerKinds are the kinds of pods that can be moved, each with what makes one.
var ownerKinds = []struct {
	name string
	make func(*cluster.Cluster, cluster.Ticker) client.Object
}{
	{"bare", func(c *cluster.Cluster, t cluster.Ticker) client.Object { return c.Pod(t) }},
	{"bare-keeps-name", func(c *cluster.Cluster, t cluster.Ticker) client.Object {
		p := c.Pod(t)
		p.Annotations[v1alpha1.AnnotationKeepName] = "true"
		return p
	}},
	{"deployment", func(c *cluster.Cluster, t cluster.Ticker) client.Object { return c.Deployment(t) }},
	{"replicaset", func(c *cluster.Cluster, t cluster.Ticker) client.Object { return c.ReplicaSet(t) }},
	{"statefulset", func(c *cluster.Cluster, t cluster.Ticker) client.Object { return c.StatefulSet(t) }},
	{"job", func(c *cluster.Cluster, t cluster.Ticker) client.Object { return c.Job(t) }},
	{"several-containers", func(c *cluster.Cluster, t cluster.Ticker) client.Object { return severalContainers(c, t) }},
}

// A pod of every kind is moved from node to node, again and again: every move comes to its
// good end, over all of them no tick is lost or doubled, and they leave nothing behind.
func TestSoakOwners(t *testing.T) {
	r := &soakResults{Moves: *soakMoves, HeapMiB: *soakHeap, Began: time.Now().UTC()}
	before := must[[]string](t)(remains.Find(t.Context(), shared.Lab, shared.Client))
	t.Cleanup(func() { // when all kinds have ended
		r.Left = left(shared, before)
		if len(r.Left) > 0 {
			t.Errorf("left behind: %s", strings.Join(r.Left, "; "))
		}
		check(t, r.write(soakReport))
	})
	for _, k := range ownerKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			_, c, ns := scene(t, "soak-"+k.name)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+time.Duration(*soakMoves)*30*time.Second)
			defer cancel()
			check(t, c.Client.Create(ctx, k.make(c, cluster.Ticker{Namespace: ns, Name: "counter", HeapMiB: *soakHeap, Movable: true})))
			s := &soak{kind: k.name, ns: ns}
			defer func() { r.add(s.result(c, t.Failed())) }()
			s.run(ctx, t, c)
		})
	}
}

// left is what is there and was not before, once nothing more is cleared away.
func left(c *cluster.Cluster, before []string) (left []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	err := cluster.Eventually(ctx, "nothing is left behind", func(ctx context.Context) (bool, string) {
		now, err := remains.Find(ctx, c.Lab, c.Client)
		if err != nil {
			return false, err.Error()
		}
		left = slices.DeleteFunc(now, func(l string) bool { return slices.Contains(before, l) })
		return len(left) == 0, ""
	})
	if err != nil && len(left) == 0 {
		left = []string{err.Error()}
	}
	return left
}

// soak is one pod that is moved many times.
type soak struct {
	kind, ns  string
	processes []process
	ordered   int // moves that came to their end
	// records are of all moves: a pod that keeps its name takes two to a node.
	records []v1alpha1.PodMigration
}

// process is what ticks in one container of the pod, as it was at first.
type process struct {
	part
	was witness.Tick
}

func (s *soak) run(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, s.ns, "counter"))
	for _, p := range parts {
		if !slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c corev1.Container) bool { return c.Name == p.name }) {
			continue
		}
		one := process{part: p}
		check(t, c.Ask(ctx, pod, p.port, "/status", &one.was))
		s.processes = append(s.processes, one)
	}
	s.heard(ctx, t, c, 10)
	for s.ordered < *soakMoves {
		pod = s.move(ctx, t, c, pod)
		s.ordered++
		if n := s.ordered; n%10 == 0 || n == *soakMoves {
			f := s.frozen()
			t.Logf("%s: %d of %d moves, frozen median %.0f ms, max %.0f ms; %d ticks", s.kind, n, *soakMoves, middle(f), slices.Max(f), s.result(c, false).Ticks)
		}
	}
	s.heard(ctx, t, c, 50) // 50 ticks sum the whole heap
	for _, p := range s.processes {
		var is witness.Tick
		check(t, c.Ask(ctx, pod, p.port, "/status", &is))
		if is.Instance != p.was.Instance || is.Now != p.was.Start {
			t.Errorf("%s: before %+v, after %+v: want the same process with its memory", p.name, p.was, is)
		}
	}
	pods := &corev1.PodList{}
	check(t, c.Client.List(ctx, pods, client.InNamespace(s.ns)))
	if len(pods.Items) != 1 {
		t.Errorf("%d pods are there after the last move, want one", len(pods.Items))
	}
}

// heard waits until so many more ticks of every process are heard, and wants none of all
// doubled or missing.
func (s *soak) heard(ctx context.Context, t *testing.T, c *cluster.Cluster, n uint64) {
	t.Helper()
	for _, p := range s.processes {
		last, _ := c.Witness.Last(p.was.Instance)
		heard(ctx, t, c, p.was.Instance, last.Seq+n)
		if fault := c.Witness.Account(p.was.Instance).FaultAfter(len(s.records)); fault != "" {
			t.Fatalf("%s after %d moves: %s: %s", s.kind, s.ordered, p.name, fault)
		}
	}
}

// move moves the pod to the next node, and gives the pod that is there then.
func (s *soak) move(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	what := fmt.Sprintf("move %d of %s", s.ordered+1, s.kind)
	to := next(c.Nodes(), pod.Spec.NodeName)
	must[*v1alpha1.PodMigration](t)(c.Ended(ctx, must[*v1alpha1.PodMigration](t)(c.Order(ctx, pod, to))))
	check(t, cluster.Eventually(ctx, what+": every record is finished", func(ctx context.Context) (bool, string) {
		var all v1alpha1.PodMigrationList
		if err := c.Client.List(ctx, &all, client.InNamespace(s.ns)); err != nil {
			return false, err.Error()
		}
		for _, m := range all.Items {
			if !v1alpha1.Finished(&m) {
				return false, m.Name + " is not"
			}
		}
		s.remember(all.Items)
		return true, ""
	}))
	for _, m := range s.records {
		if m.Status.Phase != v1alpha1.PhaseCompleted {
			t.Fatalf("%s, to %s: phase %s: %s: %s", what, to, m.Status.Phase, m.Status.DecisionReason, m.Status.DecisionMessage)
		}
	}
	pod = must[*corev1.Pod](t)(c.OnlyPod(ctx, s.ns, "counter"))
	if pod.Spec.NodeName != to {
		t.Fatalf("%s: the pod is on %s, want it on %s", what, pod.Spec.NodeName, to)
	}
	for _, is := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if is.RestartCount != 0 {
			t.Fatalf("%s: container %s has restarted %d times", what, is.Name, is.RestartCount)
		}
	}
	s.heard(ctx, t, c, 5)
	return pod
}

// remember adds the records that are new: old ones are deleted after some time.
func (s *soak) remember(all []v1alpha1.PodMigration) {
	for _, m := range all {
		if !slices.ContainsFunc(s.records, func(known v1alpha1.PodMigration) bool { return known.UID == m.UID }) {
			s.records = append(s.records, m)
		}
	}
}

// frozen gives the frozen times in milliseconds.
func (s *soak) frozen() []float64 {
	var all []float64
	for _, m := range s.records {
		if f := m.Status.FrozenTime; f != nil {
			all = append(all, millis(f.Duration))
		}
	}
	return all
}

// steps gives, for each step of the timeline, the median time since the step before it, in
// milliseconds. The clocks are those of several nodes, in the lab one.
func (s *soak) steps() map[string]float64 {
	times := map[string][]float64{}
	for _, m := range s.records {
		line := m.Status.Timeline
		for i := range line[1:] {
			times[line[i+1].Step] = append(times[line[i+1].Step], millis(line[i+1].At.Sub(line[i].At.Time)))
		}
	}
	medians := map[string]float64{}
	for step, all := range times {
		medians[step] = middle(all)
	}
	return medians
}

func (s *soak) result(c *cluster.Cluster, failed bool) soakResult {
	r := soakResult{Kind: s.kind, Failed: failed, Completed: s.ordered}
	for _, p := range s.processes {
		a := c.Witness.Account(p.was.Instance)
		r.Ticks, r.Doubled, r.Missing = r.Ticks+a.Ticks, r.Doubled+len(a.Doubled), r.Missing+len(a.Missing)
		r.LongestSilence = max(r.LongestSilence, millis(a.Gap))
	}
	if f := s.frozen(); len(f) > 0 {
		r.FrozenMedian, r.FrozenMax, r.Steps = middle(f), slices.Max(f), s.steps()
	}
	return r
}

// next is the node after the given one, in a ring.
func next(nodes []string, node string) string {
	return nodes[(slices.Index(nodes, node)+1)%len(nodes)]
}

// middle is the median; the upper one of two.
func middle(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// soakResult is what was seen of one kind. Times are in milliseconds.
type soakResult struct {
	Kind           string  `json:"kind"`
	Failed         bool    `json:"failed"`
	Completed      int     `json:"completedMoves"`
	Ticks          int     `json:"ticks"`
	Doubled        int     `json:"doubledTicks"`
	Missing        int     `json:"missingTicks"`
	FrozenMedian   float64 `json:"frozenMedianMs"`
	FrozenMax      float64 `json:"frozenMaxMs"`
	LongestSilence float64 `json:"longestSilenceMs"`
	// Steps are medians of the time since the step before, by the step's name.
	Steps map[string]float64 `json:"stepMedianMs,omitempty"`
}

type soakResults struct {
	Began   time.Time    `json:"began"`
	Moves   int          `json:"movesOfEach"`
	HeapMiB int          `json:"heapMiB"`
	Kinds   []soakResult `json:"kinds"`
	Left    []string     `json:"leftBehind"`

	mu sync.Mutex
}

func (r *soakResults) add(k soakResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Kinds = append(r.Kinds, k)
}

func (r *soakResults) write(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}
