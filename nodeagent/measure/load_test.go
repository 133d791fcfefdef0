package measure

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/drover-project/drover/internal/model"
)

// stat of 4 CPUs, busy for the given hundredths of a second: 5 parts of user..steal, with
// 1000 idle and 500 waiting for disks, which do not count, and 70 of guests, which are in
// user already.
func procStat(busy string) string {
	return "cpu  " + busy + " 0 0 1000 500 0 0 0 70 0\ncpu0 1 0 0 0 0 0 0 0 0 0\ncpu1 1 0 0 0 0 0 0 0 0 0\n" +
		"cpu2 1 0 0 0 0 0 0 0 0 0\ncpu3 1 0 0 0 0 0 0 0 0 0\nintr " + strings.Repeat("0 ", 50000) + "\nctxt 1\n"
}

func proc(busy string) tree {
	return tree{
		"stat":            procStat(busy),
		"meminfo":         "MemTotal:       8388608 kB\nMemFree:  1 kB\nMemAvailable:   6291456 kB\n",
		"pressure/cpu":    "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"pressure/memory": "some avg10=0.00 avg60=1.00 avg300=0.00 total=1\n",
		"pressure/io":     "some avg10=100.00 avg60=1.00 avg300=0.00 total=1\n",
	}
}

var (
	t0          = time.Unix(1_000_000, 0)
	allocatable = model.Resources{CPU: 4, Memory: 7 * model.GiB}
	requested   = model.Resources{CPU: 1, Memory: model.GiB}
)

// readTwice reads, applies the change, and reads again 2 s later.
func readTwice(t *testing.T, c Cgroups, kubepods Group, procDir string, change func()) (*LoadMeter, model.Load) {
	t.Helper()
	meter := NewLoadMeter(c, kubepods, procDir)
	first, err := meter.Read(t0, allocatable, requested)
	if err != nil {
		t.Fatal(err)
	}
	if !first.At.IsZero() {
		t.Errorf("the first reading is known at %v: nothing is known of the CPU yet", first.At)
	}
	change()
	load, err := meter.Read(t0.Add(2*time.Second), allocatable, requested)
	if err != nil {
		t.Fatal(err)
	}
	return meter, load
}

func TestLoadOfAWholeMachine(t *testing.T) {
	for name, files := range map[string]tree{
		"v1": {"cpu/kubepods/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_quota_us": "-1\n", "memory/kubepods/memory.limit_in_bytes": "9223372036854771712\n"},
		"v2": {"cgroup.controllers": "cpu memory\n", "kubepods/cpu.max": "max 100000\n", "kubepods/memory.max": "max\n", "kubepods/cpuset.cpus.effective": "0-3\n"},
	} {
		t.Run(name, func(t *testing.T) {
			procDir := proc("100").write(t)
			meter, got := readTwice(t, files.open(t), "/kubepods", procDir, func() { proc("400").writeTo(t, procDir) })
			want := model.Load{
				Allocatable: allocatable,
				Requested:   requested,
				// (400-100)/100 = 3 s of CPU in 2 s; 8 GiB - 6 GiB.
				Used:     model.Resources{CPU: 1.5, Memory: 2 * model.GiB},
				Pressure: .125, Pressures: map[model.Resource]float64{model.OnCPU: .125, model.OnMemory: 0, model.OnIO: 1},
				At: t0.Add(2 * time.Second),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			const metrics = `
# HELP drover_node_cpu_used_cores CPU in use on the node by everything, mean since the previous measurement.
# TYPE drover_node_cpu_used_cores gauge
drover_node_cpu_used_cores 1.5
# HELP drover_node_pressure_ratio Share of the last ten seconds in which some task waited for the resource (PSI).
# TYPE drover_node_pressure_ratio gauge
drover_node_pressure_ratio{resource="cpu"} 0.125
drover_node_pressure_ratio{resource="io"} 1
drover_node_pressure_ratio{resource="memory"} 0
`
			if err := testutil.CollectAndCompare(meter, strings.NewReader(metrics), "drover_node_cpu_used_cores", "drover_node_pressure_ratio"); err != nil {
				t.Error(err)
			}
		})
	}
}

// Several kubelets on one machine: the node is the group above kubepods, and slower than
// the machine by a quota on one of the groups above.
func TestLoadOfANestedNode(t *testing.T) {
	for name, c := range map[string]struct {
		before, after tree
		pressure      float64
	}{
		// A quota of 150000/100000 = 1.5 on the group above the node's beats its own 2.
		"v1": {tree{
			"cpu/lab/n1/kubepods/cpu.cfs_quota_us":         "-1\n",
			"cpu/lab/n1/cpu.cfs_quota_us":                  "200000\n",
			"cpu/lab/n1/cpu.cfs_period_us":                 "100000\n",
			"cpu/lab/cpu.cfs_quota_us":                     "150000\n",
			"cpu/lab/cpu.cfs_period_us":                    "100000\n",
			"cpuacct/lab/n1/cpuacct.usage":                 "1000000000\n",
			"memory/lab/n1/memory.usage_in_bytes":          "3221225472\n",
			"memory/lab/n1/memory.stat":                    "inactive_file 1\ntotal_cache 5\ntotal_inactive_file 1073741824\n",
			"memory/lab/n1/memory.limit_in_bytes":          "4294967296\n",
			"memory/lab/n1/kubepods/memory.limit_in_bytes": "9223372036854771712\n",
		}, tree{"cpuacct/lab/n1/cpuacct.usage": "2000000000\n"}, .125},
		"hybrid, with a v2 group of its own": {tree{
			"cpu/lab/n1/kubepods/cpu.cfs_quota_us":  "150000\n",
			"cpu/lab/n1/kubepods/cpu.cfs_period_us": "100000\n",
			"cpuacct/lab/n1/cpuacct.usage":          "1000000000\n",
			"memory/lab/n1/memory.usage_in_bytes":   "2147483648\n",
			"memory/lab/n1/memory.stat":             "total_inactive_file 0\n",
			"memory/lab/memory.limit_in_bytes":      "4294967296\n",
			"unified/lab/n1/cgroup.events":          "populated 1\nfrozen 0\n",
			"unified/lab/n1/cpu.pressure":           "some avg10=50.00 avg60=1.00 avg300=0.00 total=1\n",
		}, tree{"cpuacct/lab/n1/cpuacct.usage": "2000000000\n"}, .5},
		"hybrid, whose v2 group is empty": {tree{
			"cpu/lab/n1/kubepods/cpu.cfs_quota_us":  "150000\n",
			"cpu/lab/n1/kubepods/cpu.cfs_period_us": "100000\n",
			"cpuacct/lab/n1/cpuacct.usage":          "1000000000\n",
			"memory/lab/n1/memory.usage_in_bytes":   "2147483648\n",
			"memory/lab/n1/memory.stat":             "total_inactive_file 0\n",
			"memory/lab/memory.limit_in_bytes":      "4294967296\n",
			"unified/lab/n1/cgroup.events":          "populated 0\n",
			"unified/lab/n1/cpu.pressure":           "some avg10=50.00 avg60=1.00 avg300=0.00 total=1\n",
		}, tree{"cpuacct/lab/n1/cpuacct.usage": "2000000000\n"}, .125},
		// 30000/20000 = 1.5; a cpuset of three CPUs does not bind.
		"v2": {tree{
			"cgroup.controllers":                    "cpu memory\n",
			"lab/n1/kubepods/cpu.max":               "max 100000\n",
			"lab/n1/kubepods/cpuset.cpus.effective": "0,2-3\n",
			"lab/n1/cpu.max":                        "30000 20000\n",
			"lab/n1/cpu.stat":                       "usage_usec 1000000\nnr_throttled 1\nthrottled_usec 5\n",
			"lab/n1/memory.current":                 "3221225472\n",
			"lab/n1/memory.stat":                    "anon 1\ninactive_file 1073741824\n",
			"lab/n1/memory.max":                     "4294967296\n",
			"lab/n1/cgroup.events":                  "populated 1\n",
			"lab/n1/cpu.pressure":                   "some avg10=50.00 avg60=1.00 avg300=0.00 total=1\n",
		}, tree{"lab/n1/cpu.stat": "usage_usec 2000000\n"}, .5},
	} {
		t.Run(name, func(t *testing.T) {
			cgroups := c.before.open(t)
			_, got := readTwice(t, cgroups, "/lab/n1/kubepods", proc("100").write(t), func() { c.after.writeTo(t, cgroups.root) })
			want := model.Load{
				Allocatable: model.Resources{CPU: 1.5, Memory: 4 * model.GiB},
				Requested:   requested,
				// 1 s of CPU in 2 s; 3 GiB less 1 GiB of old cache, or 2 GiB.
				Used:     model.Resources{CPU: .5, Memory: 2 * model.GiB},
				Pressure: c.pressure, Pressures: map[model.Resource]float64{model.OnCPU: c.pressure, model.OnMemory: 0, model.OnIO: 1},
				At: t0.Add(2 * time.Second),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCPUSetLowersTheLimit(t *testing.T) {
	cgroups := tree{"cgroup.controllers": "", "a/cpuset.cpus.effective": "0-1,5\n", "a/b/cpu.max": "250000 100000\n"}.open(t)
	if got, err := cgroups.CPULimit("/a/b", 8); err != nil || got != 2.5 {
		t.Errorf("quota 2.5 in a cpuset of 3: %v, %v", got, err)
	}
	if got, err := cgroups.CPULimit("/a", 8); err != nil || got != 3 {
		t.Errorf("cpuset of 3: %v, %v", got, err)
	}
	if got, err := cgroups.CPULimit("/", 8); err != nil || got != 8 {
		t.Errorf("neither: %v, %v", got, err)
	}
}

func TestLoadThatCannotBeRead(t *testing.T) {
	good := tree{"cpu/kubepods/cpu.cfs_quota_us": "-1\n"}
	for name, c := range map[string]struct {
		cgroups, proc tree
		kubepods      Group
		want          string
	}{
		"no stat":         {good, tree{}, "/kubepods", "stat"},
		"empty stat":      {good, tree{"stat": "\n"}, "/kubepods", "no CPU"},
		"bad stat":        {good, tree{"stat": "cpu x\n"}, "/kubepods", "stat"},
		"no MemAvailable": {good, tree{"stat": procStat("1"), "meminfo": "MemTotal: 1 kB\n"}, "/kubepods", "MemAvailable"},
		"nested, no such": {good, proc("1"), "/n1/kubepods", "memory"},
		"bad quota":       {tree{"cpu/kubepods/cpu.cfs_quota_us": "many\n"}, proc("1"), "/kubepods", "quota of /kubepods"},
		"bad cpuset":      {tree{"cpu/": "", "cpuset/kubepods/cpuset.effective_cpus": "3-1\n"}, proc("1"), "/kubepods", "cpuset of /kubepods"},
	} {
		t.Run(name, func(t *testing.T) {
			load, err := NewLoadMeter(c.cgroups.open(t), c.kubepods, c.proc.write(t)).Read(t0, allocatable, requested)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v: want an error that names %q", load, err, c.want)
			}
		})
	}
	if _, err := OpenCgroups(t.TempDir()); err == nil || !strings.Contains(err.Error(), "/sys/fs/cgroup") {
		t.Errorf("no control groups at all: %v", err)
	}
}

func TestKernelWithoutPSI(t *testing.T) {
	cgroups := tree{"cpu/": ""}.open(t)
	if got := cgroups.ReadPressure("/", tree{"pressure/cpu": "some avg10=junk\n"}.write(t)); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// The machine that the test runs on.
func TestLoadHere(t *testing.T) {
	cgroups, err := OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/pressure/cpu"); err == nil {
		if p := cgroups.ReadPressure("/", "/proc"); len(p) != 3 {
			t.Errorf("pressure %v, want three resources", p)
		}
	}
	huge := model.Resources{CPU: 1e6, Memory: math.MaxInt64}
	meter := NewLoadMeter(cgroups, "/kubepods", "/proc")
	began := time.Now()
	if _, err := meter.Read(began, huge, model.Resources{}); err != nil {
		t.Fatal(err)
	}
	for load := (model.Load{}); load.Used.CPU == 0; {
		if load, err = meter.Read(time.Now(), huge, model.Resources{}); err != nil {
			t.Fatal(err)
		}
		if load.Used.Memory <= 0 || load.Allocatable.CPU < 1 || load.Allocatable.CPU > 1e5 {
			t.Fatalf("load %+v makes no sense", load)
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("this loop uses no CPU")
		}
	}
}

// The limits above the pods are seldom changed: they are read once in limitPause, and then anew.
func TestLoadReadsLimitsSeldom(t *testing.T) {
	root := tree{"cgroup.controllers": "cpu memory\n", "kubepods/cpu.max": "100000 100000\n", "kubepods/memory.max": "1073741824\n"}.write(t)
	cgroups, err := OpenCgroups(root)
	if err != nil {
		t.Fatal(err)
	}
	meter := NewLoadMeter(cgroups, "/kubepods", proc("100").write(t))
	allowed := func(at time.Time, allocatable model.Resources) model.Resources {
		load, err := meter.Read(at, allocatable, requested)
		if err != nil {
			t.Fatal(err)
		}
		return load.Allocatable
	}
	before, after := model.Resources{CPU: 1, Memory: model.GiB}, model.Resources{CPU: 2, Memory: 2 * model.GiB}
	if got := allowed(t0, allocatable); got != before {
		t.Errorf("%+v, want %+v", got, before)
	}
	tree{"kubepods/cpu.max": "200000 100000\n", "kubepods/memory.max": "2147483648\n"}.writeTo(t, root)
	if got := allowed(t0.Add(limitPause-1), allocatable); got != before {
		t.Errorf("before the pause is over: %+v, want %+v", got, before)
	}
	small := model.Resources{CPU: .5, Memory: model.MiB}
	if got := allowed(t0.Add(limitPause-1), small); got != small {
		t.Errorf("what the Node says counts at once: %+v, want %+v", got, small)
	}
	if got := allowed(t0.Add(limitPause), allocatable); got != after {
		t.Errorf("after it: %+v, want %+v", got, after)
	}
}
