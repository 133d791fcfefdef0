package plugin

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// crowd is eight nodes of 8 cores and 32 GiB, at 0.2 to 2 ms from n1. Each runs ten pods that
// use as much as they say.
func crowd(each model.Resources) *bench {
	b := &bench{now: t0, picture: view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{}}}
	for i, rtt := range []time.Duration{0, 300, 400, 500, 700, 1000, 1400, 2000} {
		id := model.NodeID(fmt.Sprint("n", i+1))
		b.addSized(string(id), 8, 32)
		b.use(id, model.Resources{CPU: 10 * each.CPU, Memory: 10 * each.Memory})
		n := b.picture.Nodes[id]
		for k := range 10 {
			n.State.Pods = append(n.State.Pods, model.PodID{Namespace: "ns", Name: fmt.Sprint("old-", k), UID: fmt.Sprint(id, "-", k)})
		}
		b.picture.Nodes[id] = n
		if i > 0 {
			b.route("n1", id, rtt*time.Microsecond)
		}
	}
	return b
}

// placeAll places replicas of one Deployment, which talk to what is on n1, as the scheduler
// does: the best node, then Reserve.
func (b *bench) placeAll(t *testing.T, replicas int) map[string]int {
	t.Helper()
	on := map[string]int{}
	for i := range replicas {
		p := pod(fmt.Sprint("web-", i), annotated(v1alpha1.AnnotationPeers, "app=db"), labelled("app", "web"))
		best, points := "", int64(-1)
		scores := b.scores(t, p)
		for _, n := range b.nodes {
			if s := scores[n.Name]; s > points {
				best, points = n.Name, s
			}
		}
		if s := b.framework.RunReservePluginsReserve(context.Background(), newState(), p, best); !s.IsSuccess() {
			t.Fatal(s)
		}
		on[best]++
	}
	return on
}

// over is by how many cores what will run on nodes of 8 exceeds them, when each of the pods that
// come uses so much and as much is in use already.
func over(on map[string]int, already, each float64) (sum float64) {
	for _, n := range on {
		sum += max(0, already+each*float64(n)-8)
	}
	return sum
}

// Forty pods that request nothing and use half a core and 2 GiB each, as the others on the nodes
// do, are scored on one picture. Each of eight nodes has room for six. If they did not count until
// they are measured, all would come to n1: 5 + 40 * 0.5 - 8 = 17 cores too much.
func TestFortyPodsOnOnePictureDoNotPileUp(t *testing.T) {
	b := crowd(model.Resources{CPU: .5, Memory: 2 * model.GiB})
	b.start(t, "", pod("db", on("n1"), labelled("app", "db")))
	placed := b.placeAll(t, 40)
	if b.taken != 1 {
		t.Fatalf("%d pictures were taken, want one", b.taken)
	}
	if got := over(placed, 5, .5); got > 0 {
		t.Errorf("%.1f cores more than there are, by %v", got, placed)
	}
	// When they use twice as much: all of them 40 cores, of 8 * 3 that are idle.
	if got, least := over(placed, 5, 1), 40.-8*3; got > least+1 {
		t.Errorf("%.1f cores more than there are, by %v; %.1f cannot be helped", got, placed, least)
	}
	if n := placed["n1"]; n < 5 {
		t.Errorf("%d come to the nearest, which has room for six", n)
	}
}

// A pod counts from when it is bound, by whomever, until its node's load tells of it.
func TestPodsOfOthersCountUntilTheyAreTold(t *testing.T) {
	b := newBench()
	b.start(t, "")
	ctx, pods := context.Background(), b.client.CoreV1().Pods("ns")
	coming := func(what string, want float64) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
			b.mu.Lock()
			b.now = b.now.Add(reuse) // a new picture each time
			b.mu.Unlock()
			b.plugin.look()
			got := testutil.ToFloat64(b.metrics.coming)
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v pods come, want %v", what, got, want)
			}
		}
	}
	create := func(p *corev1.Pod) {
		t.Helper()
		if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	update := func(p *corev1.Pod) {
		t.Helper()
		if _, err := pods.Update(ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pending := func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }
	create(pod("waits"))
	create(pod("p", on("n1"), pending))
	coming("one is bound", 1)
	create(pod("q", on("n2"), pending))
	coming("two are", 2)
	update(pod("waits", on("n3"), pending))
	coming("three are", 3)
	update(pod("q", on("n2"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }))
	coming("one has failed", 2)
	if err := pods.Delete(ctx, "waits", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	coming("one is gone", 1)
	if scores := b.scores(t, pod("new")); scores["n1"] >= 60 {
		t.Errorf("n1 has %d points with a pod that comes, 60 without", scores["n1"])
	}
	update(pod("p", on("n1")))
	// Only what is heard after it has run for a while tells of it.
	b.mu.Lock()
	n := b.picture.Nodes["n1"]
	n.Received = b.now.Add(time.Hour)
	b.picture = view.Snapshot{At: t0, Nodes: map[model.NodeID]view.Node{"n1": n}}
	b.mu.Unlock()
	coming("it is told", 0)
}

func TestWhatIsNotPlacedAfterAllDoesNotCount(t *testing.T) {
	b := newBench()
	b.start(t, "")
	before := b.scores(t, pod("p"))
	b.framework.RunReservePluginsReserve(context.Background(), newState(), pod("q"), "n1")
	if diff := cmp.Diff(before, b.scores(t, pod("p"))); diff == "" {
		t.Error("a pod that is placed changes nothing")
	}
	b.framework.RunReservePluginsUnreserve(context.Background(), newState(), pod("q"), "n1")
	if diff := cmp.Diff(before, b.scores(t, pod("p"))); diff != "" {
		t.Errorf("after Unreserve (-want +got):\n%s", diff)
	}
}
