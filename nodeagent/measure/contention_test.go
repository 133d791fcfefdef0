package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/drover-project/drover/bpf/contention"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// fakeMeter gives what it is told.
type fakeMeter struct {
	groups    map[uint64]contention.Usage
	owed      map[contention.Pair]time.Duration
	forgotten map[uint64]bool
	closed    bool
	on        map[uint64][]time.Duration
	lost      uint64
	err       error
}

func (m *fakeMeter) Read() (contention.Reading, error) {
	return contention.Reading{Groups: maps.Clone(m.groups), Owed: m.owed, On: m.on, Lost: m.lost}, m.err
}
func (m *fakeMeter) Forget(id uint64) error { m.forgotten[id] = true; return nil }
func (m *fakeMeter) Close() error           { m.closed = true; return nil }

// names knows the containers by ID.
type names map[string]string

func (n names) Container(podUID, containerID string) (model.PodID, string, bool) {
	name, ok := n[containerID]
	return model.PodID{Namespace: "shop", Name: name + "-0", UID: podUID}, name, ok
}

// bench is a made-up node with two containers and a sandbox.
type bench struct {
	*Contention
	t            *testing.T
	meter        *fakeMeter
	root, proc   string
	now          time.Time
	busy         time.Duration
	wait, run    map[string]time.Duration
	throttled    time.Duration            // of pod A
	throttledOf  map[string]time.Duration // of containers' tasks
	groupA, podA string
}

func newBench(t *testing.T) *bench {
	b := &bench{
		t:      t,
		meter:  &fakeMeter{groups: map[uint64]contention.Usage{}, forgotten: map[uint64]bool{}},
		proc:   proc("0").write(t),
		now:    time.Now().Round(0), // not long before a collector's
		wait:   map[string]time.Duration{},
		run:    map[string]time.Duration{},
		podA:   "kubepods/burstable/pod" + uidA,
		groupA: "kubepods/burstable/pod" + uidA + "/" + idA,
	}
	files := tree{"cpu/" + b.groupA + "/tasks": "11\n12\n"}
	for _, g := range b.all() {
		files["cpuacct/"+g+"/cpuacct.usage"] = "0\n"
		files["cpu/"+g+"/cpu.stat"] = "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"
		files["memory/"+g+"/memory.usage_in_bytes"] = "4096\n"
		files["memory/"+g+"/memory.stat"] = "total_inactive_file 96\n"
	}
	cgroups := files.open(t)
	b.root = cgroups.root
	b.Contention = NewContention(ContentionConfig{
		Cgroups: cgroups, Kubepods: "/kubepods", Proc: b.proc, Interval: time.Second, Thresholds: pressure.Default(),
		Attach:   func(h contention.Hierarchy) (WaitMeter, error) { return b.meter, nil },
		Triggers: func(map[string]float64) (PressureTriggers, error) { return nil, errors.New("none here") },
		Names:    names{idA: "web", idB: "batch"},
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return b
}

// all are the groups of the containers: web, batch and a sandbox.
func (b *bench) all() map[string]string {
	return map[string]string{"web": b.groupA, "batch": "kubepods/pod" + uidB + "/" + idB, "sandbox": b.podA + "/" + idS}
}

// second lets one second go by, in which containers waited and ran, the whole machine was
// busy and pod A was throttled for the given seconds.
func (b *bench) second(wait, run map[string]float64, busy, throttled float64) {
	b.t.Helper()
	seconds := func(s float64) time.Duration { return time.Duration(math.Round(s * 1e9)) }
	b.now = b.now.Add(time.Second)
	b.busy += seconds(busy)
	b.throttled += seconds(throttled)
	files := tree{"cpu/" + b.podA + "/cpu.stat": fmt.Sprintf("throttled_time %d\n", b.throttled)}
	for name, g := range b.all() {
		b.wait[name] += seconds(wait[name])
		b.run[name] += seconds(run[name])
		files["cpuacct/"+g+"/cpuacct.usage"] = fmt.Sprintf("%d\n", b.run[name])
		b.meter.groups[inode(b.t, filepath.Join(b.root, "cpu", g))] = contention.Usage{Wait: b.wait[name], Throttled: b.throttledOf[name]}
	}
	files.writeTo(b.t, b.root)
	tree{"stat": procStat(fmt.Sprint(b.busy.Milliseconds() / 10))}.writeTo(b.t, b.proc)
	if err := b.read(b.now, b.meter); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) of(container string) ContainerWait {
	b.t.Helper()
	for _, c := range b.Snapshot().Containers {
		if c.Container == container {
			return c
		}
	}
	b.t.Fatalf("%s is not in %+v", container, b.Snapshot())
	return ContainerWait{}
}

// 4 CPUs. web has one thread that gets a fifth of a CPU, batch takes the rest.
func TestContention(t *testing.T) {
	b := newBench(t)
	wait, run := map[string]float64{"web": .8, "batch": .1, "sandbox": 9}, map[string]float64{"web": .2, "batch": 3.8}
	b.second(nil, nil, 0, 0)
	if got := b.Snapshot(); !got.At.IsZero() {
		t.Errorf("one reading gives no rates: %+v", got)
	}
	began := b.now
	for range 5 {
		b.second(wait, run, 4, 0)
	}
	snapshot := b.Snapshot()
	if len(snapshot.Containers) != 2 || !snapshot.At.Equal(b.now) {
		t.Fatalf("%+v: want batch and web, not the sandbox", snapshot)
	}
	web := b.of("web")
	// 0.8 * 3.8/4.0 = 0.76 of the 0.8+0.2 s that it could run, and the mean of 4.5 s that all
	// were like it; the limit is 4 CPUs.
	if web.Total != 4*time.Second || !near(web.Wait, .8) || !near(web.States[model.OnCPU].Mean, .76) || !near(float64(web.Run), .2) || web.Memory != 4000 {
		t.Errorf("web: %+v", web)
	}
	// 0.1 * 0.2/4.0 = 0.005.
	if batch := b.of("batch"); !near(batch.Wait, .1) || !near(batch.Sample.CPU.External(), .005) || batch.States[model.OnCPU].Grade != model.Fine {
		t.Errorf("batch: %+v", batch)
	}
	want := model.Contention{Pod: model.PodID{Namespace: "shop", Name: "web-0", UID: uidA}, Container: "web", Resource: model.OnCPU, Grade: model.Severe, Since: began.Add(time.Second / 2)}
	got := snapshot.Suffering()
	if len(got) != 1 || !near(got[0].Wait, .76) {
		t.Fatalf("suffering: %+v, want web at 0.76", got)
	}
	if got[0].Wait = 0; got[0] != want {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	const metrics = `
# HELP drover_container_run_queue_wait_seconds_total Time the container's threads were runnable but not on a CPU, whatever the cause, since it was first seen.
# TYPE drover_container_run_queue_wait_seconds_total counter
drover_container_run_queue_wait_seconds_total{container="batch",namespace="shop",pod="batch-0"} 0.5
drover_container_run_queue_wait_seconds_total{container="web",namespace="shop",pod="web-0"} 4
# HELP drover_container_suffering 1 while contention for the resource has that grade, else 0. Severe is what moves a pod.
# TYPE drover_container_suffering gauge
drover_container_suffering{container="batch",grade="severe",namespace="shop",pod="batch-0",resource="cpu"} 0
drover_container_suffering{container="batch",grade="severe",namespace="shop",pod="batch-0",resource="io"} 0
drover_container_suffering{container="batch",grade="severe",namespace="shop",pod="batch-0",resource="memory"} 0
drover_container_suffering{container="batch",grade="tight",namespace="shop",pod="batch-0",resource="cpu"} 0
drover_container_suffering{container="batch",grade="tight",namespace="shop",pod="batch-0",resource="io"} 0
drover_container_suffering{container="batch",grade="tight",namespace="shop",pod="batch-0",resource="memory"} 0
drover_container_suffering{container="web",grade="severe",namespace="shop",pod="web-0",resource="cpu"} 1
drover_container_suffering{container="web",grade="severe",namespace="shop",pod="web-0",resource="io"} 0
drover_container_suffering{container="web",grade="severe",namespace="shop",pod="web-0",resource="memory"} 0
drover_container_suffering{container="web",grade="tight",namespace="shop",pod="web-0",resource="cpu"} 0
drover_container_suffering{container="web",grade="tight",namespace="shop",pod="web-0",resource="io"} 0
drover_container_suffering{container="web",grade="tight",namespace="shop",pod="web-0",resource="memory"} 0
`
	if err := testutil.CollectAndCompare(b.Contention, strings.NewReader(metrics), "drover_container_run_queue_wait_seconds_total", "drover_container_suffering"); err != nil {
		t.Error(err)
	}
	for range 5 {
		b.second(nil, run, 4, 0)
	}
	if got := b.Snapshot().Suffering(); len(got) != 0 {
		t.Errorf("suffering is over: %+v", got)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6 }

// Nobody suffers who is only busy, or only throttled.
func TestNoContention(t *testing.T) {
	for name, c := range map[string]struct {
		wait, run       map[string]float64
		busy, throttled float64
		quota           string
	}{
		"twelve threads on four idle CPUs":                       {map[string]float64{"web": 8}, map[string]float64{"web": 4}, 4.01, 0, "-1"},
		"the same in bursts":                                     {map[string]float64{"web": 4}, map[string]float64{"web": 2}, 2.01, 0, "-1"},
		"two threads throttled by a quota of 0.5":                {map[string]float64{"web": 1.5}, map[string]float64{"web": .5}, 4, .75, "50000"},
		"two threads throttled in bursts, quota 2, busy machine": {map[string]float64{"web": 1}, map[string]float64{"web": .5}, 4, .5, "200000"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			tree{"cpu/" + b.podA + "/cpu.cfs_quota_us": c.quota + "\n", "cpu/" + b.podA + "/cpu.cfs_period_us": "100000\n"}.writeTo(t, b.root)
			for range 12 {
				b.second(c.wait, c.run, c.busy, c.throttled)
			}
			if web := b.of("web"); !near(web.Wait, c.wait["web"]) || web.States[model.OnCPU].Mean > .1 || web.States[model.OnCPU].Grade != model.Fine {
				t.Errorf("%+v", web)
			}
		})
	}
}

// A quota that is set while the container runs counts from the next look at the limits on, and what
// it had throttled before does not.
func TestAQuotaThatIsNew(t *testing.T) {
	b := newBench(t)
	b.second(nil, nil, 0, 0)
	tree{"cpu/" + b.podA + "/cpu.cfs_quota_us": "50000\n", "cpu/" + b.podA + "/cpu.cfs_period_us": "100000\n"}.writeTo(t, b.root)
	b.second(nil, nil, 4, 500)
	if got := b.of("web").Sample.CPU; got.Limit != 4 || got.Throttled != 0 {
		t.Errorf("%+v, want the limits of before", got)
	}
	for range 10 {
		b.second(nil, nil, 4, .25)
		if got := b.of("web").Sample.CPU; got.Throttled > .25 {
			t.Fatalf("throttled for %v s in a second, want 0.25 at most", got.Throttled)
		}
	}
	if got := b.of("web").Sample.CPU; got.Limit != .5 || !near(got.Throttled, .25) {
		t.Errorf("%+v, want a limit of 0.5 and 0.25 s throttled", got)
	}
}

// What was severe when it could last be read is no reason to move anything now.
func TestOldContentionIsNotKnown(t *testing.T) {
	b := newBench(t)
	for range 9 {
		b.second(map[string]float64{"web": 1}, map[string]float64{"web": .1}, 2, 0)
	}
	if s := b.Current(b.now.Add(time.Second)); len(s.Suffering()) == 0 {
		t.Fatalf("%+v: nothing suffers", s)
	}
	b.meter.err = errors.New("no more")
	b.now = b.now.Add(pressure.Default().Window() + time.Second)
	if err := b.read(b.now, b.meter); err == nil {
		t.Fatal("no error")
	}
	if s := b.Current(b.now); len(s.Containers) > 0 || s.At.IsZero() {
		t.Errorf("%+v, want nothing known since a while", s)
	}
}

// Nor is it told to a collector of metrics, which hears that it could not be read.
func TestOldContentionLeavesTheMetrics(t *testing.T) {
	b := newBench(t)
	b.now = time.Now().Add(-pressure.Default().Window() - time.Hour)
	for range 9 {
		b.second(map[string]float64{"web": 1}, map[string]float64{"web": .1}, 2, 0)
	}
	b.meter.err = errors.New("no more")
	b.round(b.now.Add(time.Second), b.meter)
	for metric, want := range map[string]int{
		"drover_container_suffering": 0, "drover_container_contention_ratio": 0, "drover_container_run_queue_wait_seconds_total": 0,
		"drover_container_memory_limit_ratio": 0, "drover_container_oom_kills_total": 0, "drover_contention_lost_total": 1,
	} {
		if got := testutil.CollectAndCount(b.Contention, metric); got != want {
			t.Errorf("%d of %s, want %d", got, metric, want)
		}
	}
	const metrics = `
# HELP drover_contention_measured 1 while contention is known, 0 once the last reading is older than every window: then nothing is told of any container.
# TYPE drover_contention_measured gauge
drover_contention_measured %d
# HELP drover_contention_reading_failures_total Readings of contention that failed, as a whole or for some container; the agent's log says why.
# TYPE drover_contention_reading_failures_total counter
drover_contention_reading_failures_total 1
`
	told := func(measured int) {
		t.Helper()
		if err := testutil.CollectAndCompare(b.Contention, strings.NewReader(fmt.Sprintf(metrics, measured)),
			"drover_contention_measured", "drover_contention_reading_failures_total"); err != nil {
			t.Error(err)
		}
	}
	told(0)
	b.meter.err = nil
	b.now = time.Now().Add(-2 * time.Second)
	b.second(nil, nil, 2, 0)
	told(1)
	if got := testutil.CollectAndCount(b.Contention, "drover_container_suffering"); got == 0 {
		t.Error("nothing is told of containers that are read again")
	}
}

func TestContainersComeAndGo(t *testing.T) {
	b := newBench(t)
	b.second(nil, nil, 0, 0)
	b.second(nil, nil, 0, 0)
	gone := filepath.Join(b.root, "cpu", b.groupA)
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(time.Second)
	if err := b.read(b.now, b.meter); err != nil {
		t.Fatal(err)
	}
	if got := b.Snapshot().Containers; len(got) != 1 || got[0].Container != "batch" {
		t.Errorf("after web is gone: %+v", got)
	}
	if len(b.known) != 2 {
		t.Errorf("still followed: %v", b.known)
	}
	b.meter.err = errors.New("no more")
	if err := b.read(b.now.Add(time.Second), b.meter); !errors.Is(err, b.meter.err) {
		t.Errorf("the meter's error: %v", err)
	}
}

// One container whose figures cannot be read is reported and keeps back no other.
func TestUnreadableContainer(t *testing.T) {
	b := newBench(t)
	b.second(nil, nil, 0, 0)
	b.second(nil, nil, 0, 0)
	tree{"cpuacct/" + b.groupA + "/cpuacct.usage": "junk\n"}.writeTo(t, b.root)
	b.now = b.now.Add(time.Second)
	if err := b.read(b.now, b.meter); err == nil || !strings.Contains(err.Error(), idA) {
		t.Errorf("error %v, want one that names the container", err)
	}
	b.of("batch")
}

func TestMakeRoom(t *testing.T) {
	b := newBench(t)
	for id := range uint64(2000) {
		b.meter.groups[1<<40+id] = contention.Usage{Wait: 1}
	}
	b.second(nil, nil, 0, 0)
	if len(b.meter.forgotten) != 2000 {
		t.Errorf("forgot %d groups, want the 2000 that do not exist", len(b.meter.forgotten))
	}
	for _, g := range b.all() {
		if b.meter.forgotten[inode(t, filepath.Join(b.root, "cpu", g))] {
			t.Errorf("forgot %s, which exists", g)
		}
	}
}

func TestRunEnds(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil || !b.meter.closed {
		t.Errorf("%v, closed %v", err, b.meter.closed)
	}
	refused := errors.New("operation not permitted")
	b.config.Attach = func(contention.Hierarchy) (WaitMeter, error) { return nil, refused }
	if err := b.Run(t.Context()); !errors.Is(err, refused) {
		t.Errorf("programs that cannot be loaded: %v", err)
	}
	b.config.Thresholds = pressure.Thresholds{}
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no thresholds") {
		t.Errorf("bad thresholds: %v", err)
	}
}
