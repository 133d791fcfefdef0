package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/drover-project/drover/bpf/contention"
	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/model"
)

func (b *bench) id(container string) uint64 {
	b.t.Helper()
	return inode(b.t, filepath.Join(b.root, "cpu", b.all()[container]))
}

// web waits 4 s a second: for batch, for its own other thread, for a sandbox and for what is in no
// container; its pod's quota takes some of it, and some nobody.
func TestBlame(t *testing.T) {
	b := newBench(t)
	tree{"cpu/" + b.podA + "/cpu.cfs_quota_us": "200000\n", "cpu/" + b.podA + "/cpu.cfs_period_us": "100000\n"}.writeTo(t, b.root)
	web, batch, sandbox := b.id("web"), b.id("batch"), b.id("sandbox")
	const kernel = 1
	wait, run := map[string]float64{"web": 4, "batch": .5}, map[string]float64{"web": .5, "batch": 3}
	b.second(nil, nil, 0, 0)
	b.meter.lost = 3
	var throttled time.Duration
	for range 6 {
		b.meter.owed = map[contention.Pair]time.Duration{
			{Waits: web, Runs: batch}: 2 * time.Second, {Waits: web, Runs: web}: 500 * time.Millisecond,
			{Waits: web, Runs: sandbox}: 100 * time.Millisecond, {Waits: web, Runs: kernel}: 200 * time.Millisecond,
			{Waits: batch, Runs: web}: 500 * time.Millisecond, {Waits: kernel, Runs: web}: time.Hour,
		}
		throttled += time.Second
		b.throttledOf = map[string]time.Duration{"web": throttled}
		b.second(wait, run, 4, 0)
	}
	batchName, webName := blame.Name{Namespace: "shop", Pod: "batch-0", Container: "batch"}, blame.Name{Namespace: "shop", Pod: "web-0", Container: "web"}
	fine := map[model.Resource]model.Grade{model.OnCPU: model.Fine, model.OnMemory: model.Fine, model.OnIO: model.Fine}
	severe := map[model.Resource]model.Grade{model.OnCPU: model.Severe, model.OnMemory: model.Fine, model.OnIO: model.Fine}
	want := []blame.Shares{
		{Name: batchName, Grades: fine, Run: 3, Wait: .5, Neighbours: []blame.Neighbour{{Name: webName, Wait: .5}}},
		// 4 = 2 + .5 + 1 + (.1 + .2) + .2
		{Name: webName, Suffering: true, Grades: severe, Run: .5, Wait: 4, Own: .5, Quota: 1, Node: .3, Idle: .2, Neighbours: []blame.Neighbour{{Name: batchName, Wait: 2}}},
	}
	report := b.Snapshot().Report()
	if !reflect.DeepEqual(report.Containers, want) || !report.At.Equal(b.now) {
		t.Errorf("got  %+v\nwant %+v", report, want)
	}
	const metrics = `
# HELP drover_contention_lost_total Times that the kernel's tables had no room to note down a wait, or a run: more than 0 means that what is told of them is too little.
# TYPE drover_contention_lost_total counter
drover_contention_lost_total 3
# HELP drover_container_run_queue_wait_cause_seconds_total The same by cause: what ran meanwhile (neighbours: other containers; own: its own threads; node: what is in no container; steal: a hypervisor; softirq: soft interrupts; idle: nothing), or a used-up CPU quota (quota: its own or its pod's; node-quota: one above the pods).
# TYPE drover_container_run_queue_wait_cause_seconds_total counter
drover_container_run_queue_wait_cause_seconds_total{cause="idle",container="batch",namespace="shop",pod="batch-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="idle",container="web",namespace="shop",pod="web-0"} 1.2
drover_container_run_queue_wait_cause_seconds_total{cause="neighbours",container="batch",namespace="shop",pod="batch-0"} 3
drover_container_run_queue_wait_cause_seconds_total{cause="neighbours",container="web",namespace="shop",pod="web-0"} 12
drover_container_run_queue_wait_cause_seconds_total{cause="node",container="batch",namespace="shop",pod="batch-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="node",container="web",namespace="shop",pod="web-0"} 1.8
drover_container_run_queue_wait_cause_seconds_total{cause="node-quota",container="batch",namespace="shop",pod="batch-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="node-quota",container="web",namespace="shop",pod="web-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="own",container="batch",namespace="shop",pod="batch-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="own",container="web",namespace="shop",pod="web-0"} 3
drover_container_run_queue_wait_cause_seconds_total{cause="quota",container="batch",namespace="shop",pod="batch-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="quota",container="web",namespace="shop",pod="web-0"} 6
drover_container_run_queue_wait_cause_seconds_total{cause="softirq",container="batch",namespace="shop",pod="batch-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="softirq",container="web",namespace="shop",pod="web-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="steal",container="batch",namespace="shop",pod="batch-0"} 0
drover_container_run_queue_wait_cause_seconds_total{cause="steal",container="web",namespace="shop",pod="web-0"} 0
`
	if err := testutil.CollectAndCompare(b.Contention, strings.NewReader(metrics), "drover_container_run_queue_wait_cause_seconds_total", "drover_contention_lost_total"); err != nil {
		t.Error(err)
	}
}

// Where neither the container nor its pod has a quota, it is one above the pods that was used up.
func TestNodeQuota(t *testing.T) {
	b := newBench(t)
	b.second(nil, nil, 0, 0)
	b.throttledOf = map[string]time.Duration{"web": time.Second}
	b.second(map[string]float64{"web": 2}, nil, 4, 0)
	if got := b.of("web").Shares; !near(got.NodeQuota, 1) || got.Quota != 0 || !near(got.Idle, 1) {
		t.Errorf("%+v", got)
	}
}

// What a container ran before it ended is owed by it, and not by the node.
func TestBlameOfOneThatIsGone(t *testing.T) {
	b := newBench(t)
	batch := b.id("batch")
	b.second(nil, nil, 0, 0)
	b.second(nil, nil, 0, 0)
	b.meter.owed = map[contention.Pair]time.Duration{{Waits: b.id("web"), Runs: batch}: time.Second}
	if err := os.RemoveAll(filepath.Join(b.root, "cpu", b.all()["batch"])); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(time.Second)
	if err := b.read(b.now, b.meter); err != nil {
		t.Fatal(err)
	}
	if got := b.of("web").Shares; len(got.Neighbours) != 1 || got.Neighbours[0].Container != "batch" || got.Node != 0 {
		t.Errorf("%+v, want batch to owe it", got)
	}
}

func TestStealAndSoftIRQ(t *testing.T) {
	b := newBench(t)
	for second := range 12 {
		// 0.5 s of soft interrupts and 0.25 s of steal a second; a burst before the window.
		burst := 0
		if second > 2 {
			burst = 1000
		}
		b.now = b.now.Add(time.Second)
		line := fmt.Sprintf("cpu  0 0 0 0 0 0 %d %d 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n", 50*second+burst, 25*second)
		tree{"stat": line}.writeTo(t, b.proc)
		if err := b.read(b.now, b.meter); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.Snapshot().Report(); !near(got.SoftIRQ, .5) || !near(got.Steal, .25) {
		t.Errorf("%+v, want 0.5 s of soft interrupts and 0.25 s of steal a second", got)
	}
}

// Of the time that CPU 1 was busy a fifth was stolen and a tenth went to soft interrupts, of CPU 0's
// nothing. web was on CPU 1 three times as long as on CPU 0: 0.15 and 0.075 of what is owed to it.
func TestStealAndSoftIRQOfAContainer(t *testing.T) {
	b := newBench(t)
	web, batch := b.id("web"), b.id("batch")
	for second := range 3 {
		b.now = b.now.Add(time.Second)
		ticks := 100 * second
		tree{"stat": fmt.Sprintf("cpu  0 0 %d 0 0 0 0 0 0 0\ncpu0 0 0 %d 0 0 0 0 0 0 0\ncpu1 0 0 %d 0 0 0 %d %d 0 0\n",
			2*ticks, ticks, 70*second, 10*second, 20*second)}.writeTo(t, b.proc)
		b.meter.groups[web] = contention.Usage{Wait: time.Duration(second) * time.Second}
		b.meter.on = map[uint64][]time.Duration{web: {time.Duration(second) * time.Second, time.Duration(3*second) * time.Second}}
		b.meter.owed = map[contention.Pair]time.Duration{{Waits: web, Runs: batch}: 800 * time.Millisecond}
		if err := b.read(b.now, b.meter); err != nil {
			t.Fatal(err)
		}
	}
	got := b.of("web").Shares
	// 0.8*0.15 = 0.12, 0.8*0.075 = 0.06, 0.8-0.18 = 0.62; the rest of the wait is idle.
	if !near(got.Steal, .12) || !near(got.SoftIRQ, .06) || !near(got.Neighbours[0].Wait, .62) || !near(got.Idle, .2) {
		t.Errorf("%+v", got)
	}
}

// What the kernel saw goes before what the shares of the CPU suggest, unless some of it was lost.
func TestTheMeasuredGoesBeforeTheEstimate(t *testing.T) {
	b := newBench(t)
	wait, run := map[string]float64{"web": .8}, map[string]float64{"web": .2, "batch": 3.8}
	b.meter.owed = map[contention.Pair]time.Duration{{Waits: b.id("web"), Runs: b.id("web")}: 800 * time.Millisecond}
	b.second(nil, nil, 0, 0)
	b.second(wait, run, 4, 0)
	if got := b.of("web").Sample.CPU.External(); got != 0 {
		t.Errorf("it waited for itself alone, and %v for others", got)
	}
	b.meter.lost++
	b.second(wait, run, 4, 0)
	if got := b.of("web").Sample.CPU; got.Owed != nil || !near(got.External(), .76) {
		t.Errorf("some was lost: %+v, want the estimate, 0.76", got)
	}
	b.second(wait, run, 4, 0)
	if got := b.of("web").Sample.CPU; got.Owed == nil {
		t.Error("no more was lost, and it is not measured")
	}
}
