package measure

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// The same container as each kind of hierarchy shows it: 300 MiB, 100 of them old cache, of its
// own 250 and its pod's 1000 MiB; 7 major faults, 20+4 refaults, 1 killed; 5 MB of IO; it
// stalled for 3 s for memory and 2 s for IO where that is told.
func stallTrees() map[string]tree {
	const pod, group = "kubepods/pod" + uidB, "kubepods/pod" + uidB + "/"
	v1 := func() tree {
		return tree{
			"cpu/" + group + idB + "/":                                            "",
			"memory/" + group + idB + "/memory.usage_in_bytes":                    fmt.Sprintln(300 << 20),
			"memory/" + group + idB + "/memory.limit_in_bytes":                    fmt.Sprintln(250 << 20),
			"memory/" + pod + "/memory.limit_in_bytes":                            fmt.Sprintln(1000 << 20),
			"memory/" + pod + "/memory.usage_in_bytes":                            fmt.Sprintln(400 << 20),
			"memory/" + pod + "/memory.stat":                                      "total_inactive_file 0\n",
			"memory/kubepods/memory.limit_in_bytes":                               "9223372036854771712\n",
			"memory/" + group + idB + "/memory.stat":                              "pgmajfault 1\ninactive_file 1\ntotal_pgmajfault 7\ntotal_workingset_refault_anon 4\ntotal_workingset_refault_file 20\ntotal_inactive_file 104857600\n",
			"memory/" + group + idB + "/memory.oom_control":                       "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
			"blkio/" + group + idB + "/blkio.throttle.io_service_bytes_recursive": "254:0 Read 4000000\n254:0 Write 1000000\n254:0 Total 5000000\nTotal 5000000\n",
		}
	}
	hybrid := v1()
	for name, content := range pressureOf(group + idB) {
		hybrid["unified/"+name] = content
	}
	v2 := tree{
		"cgroup.controllers":            "cpu io memory\n",
		group + idB + "/memory.current": fmt.Sprintln(300 << 20),
		group + idB + "/memory.max":     "max\n",
		group + idB + "/memory.high":    fmt.Sprintln(250 << 20),
		pod + "/memory.max":             fmt.Sprintln(1000 << 20),
		pod + "/memory.current":         fmt.Sprintln(400 << 20),
		pod + "/memory.stat":            "inactive_file 0\n",
		group + idB + "/memory.stat":    "anon 1\ninactive_file 104857600\npgmajfault 7\nworkingset_refault_anon 4\nworkingset_refault_file 20\n",
		group + idB + "/memory.events":  "low 0\nhigh 9\nmax 0\noom 1\noom_kill 1\noom_group_kill 0\n",
		group + idB + "/io.stat":        "254:0 rbytes=3000000 wbytes=1000000 rios=9 wios=9 dbytes=777 dios=0\n254:16 rbytes=1000000 wbytes=0 rios=9 wios=0 dbytes=0 dios=0\n",
	}
	for name, content := range pressureOf(group + idB) {
		v2[name] = content
	}
	return map[string]tree{"v1": v1(), "hybrid": hybrid, "v2": v2}
}

func pressureOf(g string) tree {
	return tree{
		g + "/cgroup.events":   "populated 1\nfrozen 0\n",
		g + "/memory.pressure": "some avg10=1.00 avg60=0.00 avg300=0.00 total=3000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
		g + "/io.pressure":     "some avg10=1.00 avg60=0.00 avg300=0.00 total=2000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
	}
}

var stalling = Container{PodUID: uidB, ID: idB, Pod: "/kubepods/pod" + uidB, Group: "/kubepods/pod" + uidB + "/" + Group(idB)}

func TestReadStalls(t *testing.T) {
	of := func(d time.Duration) *time.Duration { return &d }
	for name, files := range stallTrees() {
		want := stallCounters{
			memoryStalled: of(3 * time.Second), ioStalled: of(2 * time.Second),
			memory:  memoryStat{usage: 200 * model.MiB, held: 300 * model.MiB, majorFaults: 7, refaults: 24, oomKills: 1},
			nearest: limited{200 * model.MiB, 300 * model.MiB, 250 * model.MiB}, io: 5000000,
		}
		if name == "v1" {
			want.memoryStalled, want.ioStalled = nil, nil
		}
		got, err := files.open(t).readStalls(stalling, "/proc", nil)
		if err != nil {
			t.Fatal(name, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(stallCounters{}, memoryStat{}, limited{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Where the kernel keeps nothing, nothing is known, and that is no error; what makes no sense is.
func TestReadStallsOfLittle(t *testing.T) {
	got, err := tree{"cgroup.controllers": "cpu\n", "kubepods/pod" + uidB + "/" + idB + "/": ""}.open(t).readStalls(stalling, "/proc", nil)
	if err != nil || !reflect.DeepEqual(got, stallCounters{}) {
		t.Errorf("no controllers: %+v, %v", got, err)
	}
	for _, name := range []string{"memory.current", "memory.stat", "memory.high", "io.stat"} {
		files := stallTrees()["v2"]
		files["kubepods/pod"+uidB+"/"+idB+"/"+name] = map[string]string{"memory.stat": "pgmajfault junk\n", "io.stat": "8:0 rbytes=junk\n"}[name] + "junk\n"
		if _, err := files.open(t).readStalls(stalling, "/proc", nil); err == nil {
			t.Errorf("junk in %s: no error", name)
		}
	}
	for file, name := range map[string]string{"io.max": "v2", "blkio.throttle.write_iops_device": "v1"} {
		files, dir := stallTrees()[name], ""
		if name == "v1" {
			dir = "blkio/"
		}
		files[dir+"kubepods/pod"+uidB+"/"+file] = "254:0 wiops=100\n"
		if got, err := files.open(t).readStalls(stalling, "/proc", nil); err != nil || !got.ioLimited {
			t.Errorf("%s of the pod: %+v, %v, want limited", file, got, err)
		}
	}
}

// Limits of IO are looked at once in ten seconds.
func TestALimitOfIOThatIsNew(t *testing.T) {
	b := newStallBench(t)
	b.stallUntil = b.now.Add(time.Hour)
	b.second(0, .4, .03)
	tree{"kubepods/pod" + uidB + "/io.max": "254:0 wiops=100\n"}.writeTo(t, b.root)
	for i := range 10 {
		if b.second(i, .4, .03); b.stalls.containers[idB].ioLimited != (i == 9) {
			t.Errorf("limited after %d s: %v", i+1, b.stalls.containers[idB].ioLimited)
		}
	}
}

// The pod's limit counts when that is nearer.
func TestNearestLimit(t *testing.T) {
	files := stallTrees()["v2"]
	files["kubepods/pod"+uidB+"/memory.max"] = fmt.Sprintln(410 << 20) // of which it holds less than its container of 250
	files["kubepods/pod"+uidB+"/"+idB+"/memory.high"] = fmt.Sprintln(1000 << 20)
	got, err := files.open(t).readStalls(stalling, "/proc", nil)
	if err != nil || got.nearest != (limited{400 * model.MiB, 400 * model.MiB, 410 * model.MiB}) {
		t.Errorf("%+v, %v, want 400 of 410 MiB", got, err)
	}
}

// With v1 most groups have no account of their IO: their processes have.
func TestIOOfProcesses(t *testing.T) {
	files := stallTrees()["v1"]
	g := "kubepods/pod" + uidB + "/" + idB
	files["blkio/"+g+"/blkio.throttle.io_service_bytes_recursive"] = "Total 0\n"
	files["cpu/"+g+"/cgroup.procs"], files["cpu/"+g+"/init/cgroup.procs"] = "7\n9\n", "8\n"
	cgroups := files.open(t)
	proc := tree{"7/io": "rchar: 9\nread_bytes: 100\nwrite_bytes: 20\ncancelled_write_bytes: 3\n", "8/io": "read_bytes: 1\nwrite_bytes: 2\n"}.write(t)
	was, err := cgroups.readStalls(stalling, proc, nil)
	if err != nil || !reflect.DeepEqual(was.ioBy, map[int]int64{7: 120, 8: 3}) {
		t.Fatalf("%+v, %v: want 120 and 3 bytes, none of 9, which has ended", was.ioBy, err)
	}
	// 7 does 30 more, 8 ends, 10 is new and did 5.
	if got := (stallCounters{ioBy: map[int]int64{7: 150, 10: 5}}).ioSince(was); got != 35 {
		t.Errorf("%v bytes since, want 35", got)
	}
}

func TestDiskBytes(t *testing.T) {
	proc := tree{"diskstats": `   8       0 sda 10 0 100 5 20 0 200 5 0 5 5 0 0 0 0 0 0
   8       1 sda1 10 0 90 5 20 0 190 5 0 5 5 0 0 0 0 0 0
 259       0 nvme0n1 1 0 7 5 2 0 0 5 0 5 5 0 0 0 0 0 0
 259       1 nvme0n1p1 1 0 7 5 2 0 0 5 0 5 5 0 0 0 0 0 0
 253       0 dm-0 1 0 3 5 2 0 0 5 0 5 5 0 0 0 0 0 0
`}.write(t)
	if got, err := readDiskBytes(proc); err != nil || got != (300+7+3)*512 {
		t.Errorf("got %d, %v, want 310 sectors", got, err)
	}
	if _, err := readDiskBytes(tree{"diskstats": "8 0 sda 1 0 junk 5 20 0 200 5\n"}.write(t)); err == nil {
		t.Error("junk: no error")
	}
}

// stallBench is a node with one container on v2, all of whose stalls are set.
type stallBench struct {
	*Contention
	t     *testing.T
	now   time.Time
	root  string
	files tree
}

func newStallBench(t *testing.T) *stallBench {
	files := stallTrees()["v2"]
	files["kubepods/pod"+uidB+"/"+idB+"/cpu.stat"] = "usage_usec 0\n"
	files["kubepods/pod"+uidB+"/cpu.stat"] = "usage_usec 0\n"
	files["kubepods/pod"+uidB+"/"+idB+"/memory.high"] = "max\n"
	cgroups := files.open(t)
	b := &stallBench{t: t, now: t0, root: cgroups.root}
	b.Contention = NewContention(ContentionConfig{
		Cgroups: cgroups, Kubepods: "/kubepods", Proc: proc("0").write(t), Interval: time.Second,
		Thresholds: pressure.Default(), Names: names{idB: "web"}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return b
}

// second lets one second go by in which the container and the node stalled for a share of it,
// with the given part of the memory free. It is the i-th one.
func (b *stallBench) second(i int, stalled, free float64) {
	b.t.Helper()
	b.goBy(time.Second, time.Duration(i)*time.Second, stalled, free)
}

// goBy lets some time go by, after which all is as if they had stalled like that for so long.
func (b *stallBench) goBy(wall, all time.Duration, stalled, free float64) {
	b.t.Helper()
	b.now = b.now.Add(wall)
	some := fmt.Sprintf("some avg10=0.00 avg60=0.00 avg300=0.00 total=%.0f\n", 1e6*all.Seconds()*stalled)
	tree{"kubepods/pod" + uidB + "/" + idB + "/memory.pressure": some}.writeTo(b.t, b.root)
	tree{
		"pressure/memory": some,
		"meminfo":         fmt.Sprintf("MemTotal: 1000000000 kB\nMemFree: %.0f kB\nMemAvailable: %.0f kB\n", free*1e9, free*1e9),
	}.writeTo(b.t, b.config.Proc)
	if err := b.read(b.now, &fakeMeter{}); err != nil {
		b.t.Fatal(err)
	}
}

// A node that is short of memory makes its containers suffer; one that stalls with plenty free
// does not, and what it is told of is evidence.
func TestMemoryContention(t *testing.T) {
	for name, c := range map[string]struct {
		stalled, free float64
		want          model.Grade
	}{
		"short and stalled":   {.4, .03, model.Severe},
		"short, a little":     {.1, .03, model.Tight},
		"short, not stalled":  {0, .03, model.Fine},
		"stalled with plenty": {.4, .5, model.Fine},
	} {
		b := newStallBench(t)
		for i := range 20 {
			b.second(i, c.stalled, c.free)
		}
		w := b.Snapshot().Containers[0]
		if got := w.States[model.OnMemory]; got.Grade != c.want {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
		if e := w.Shares.Evidence; !near(e.MemoryStall, c.stalled) || e.OOMKills != 1 || !near(e.OfLimit, .4) {
			t.Errorf("%s: evidence %+v, want a stall of %v", name, e, c.stalled)
		}
	}
}

// An agent that thrashes along with its node reads late, and its alarm is wanted all the more.
func TestMemoryContentionOfANodeThatReadsLate(t *testing.T) {
	const late = 2 * time.Second
	b := newStallBench(t)
	for i := range time.Duration(10) {
		b.goBy(late, i*late, .4, .03)
	}
	if got := b.Snapshot().Containers[0].States[model.OnMemory]; got.Grade != model.Severe {
		t.Errorf("read every %v: %+v, want severe", late, got)
	}
}

// Without triggers the node's own stalls are asked for; while there are none, the containers'
// are read every ten seconds, and at every reading while there are some.
func TestStallsAreReadWhenTheNodeStalls(t *testing.T) {
	b := newStallBench(t)
	reads := func(from, to int, stalled float64) (n int) {
		for i := from; i < to; i++ {
			before := b.stalls.at
			b.second(i, stalled, .5)
			if !b.stalls.at.Equal(before) {
				n++
			}
		}
		return n
	}
	if n := reads(0, 40, 0); n != 4 {
		t.Errorf("read %d times in 40 s without stall, want 4", n)
	}
	if n := reads(40, 50, .2); n != 10 {
		t.Errorf("read %d times in 10 s with stall, want every time", n)
	}
	b.triggered = true
	for b.now.Before(b.stallUntil) || b.now.Sub(b.stalls.at) < stallPause-time.Second {
		b.second(50, .2, .5)
	}
	b.stallUntil = b.now.Add(5 * time.Second) // as if one had fired
	if n := reads(50, 55, .2); n != 4 {
		t.Errorf("read %d times in the 5 s of a trigger, want 4", n)
	}
}

// Real stalls of this machine fire a real trigger.
func TestTriggersFire(t *testing.T) {
	got, err := OpenTriggers(map[string]float64{"/proc/pressure/io": .001, "/proc/pressure/memory": .05})
	if err != nil {
		t.Fatalf("a kernel with PSI takes a trigger with a window of 2 s: %v", err)
	}
	f, err := os.Create(filepath.Join("/var/tmp", fmt.Sprintf("drover-trigger-%d", os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 1<<20)
	for end := time.Now().Add(patience); ; {
		if time.Now().After(end) {
			t.Fatal("never fired, for all that was written to a disk")
		}
		if _, err := f.WriteAt(block, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		select {
		case _, ok := <-got.Fired():
			if !ok {
				t.Fatal("closed by itself")
			}
			if err := errors.Join(got.Close(), got.Close()); err != nil {
				t.Error(err)
			}
			for range got.Fired() { // ends: closed, after one more at most
			}
			return
		default:
		}
	}
}

func TestTriggersRefused(t *testing.T) {
	if _, err := OpenTriggers(map[string]float64{"/proc/pressure/io": .1, filepath.Join(t.TempDir(), "none"): .1}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a kernel without PSI: %v", err)
	}
	// The kernel refuses more than the window.
	if _, err := OpenTriggers(map[string]float64{"/proc/pressure/io": 7}); err == nil {
		t.Error("700 % of a window: no error")
	}
}
