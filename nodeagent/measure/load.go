package measure

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/drover-project/drover/internal/model"
)

// LoadMeter measures what the node has and uses. It may be used by several at once.
//
// The node is the control group that holds kubelet's kubepods: the root, that is the whole
// machine, nearly always; a smaller one where several kubelets share a machine.
type LoadMeter struct {
	cgroups Cgroups
	node    Group
	pods    Group
	proc    string

	mu       sync.Mutex
	busy     time.Duration // at the last reading
	at       time.Time     // of the last reading; zero before the first
	load     model.Load
	pressure Pressure
	limit    model.Resources
	limitAt  time.Time // when it was read
}

// NewLoadMeter makes a LoadMeter for the node whose pods are in kubepods; proc is where the
// host's procfs is mounted, usually /proc.
func NewLoadMeter(cgroups Cgroups, kubepods Group, proc string) *LoadMeter {
	return &LoadMeter{cgroups: cgroups, node: kubepods.parent(), pods: kubepods, proc: proc}
}

// Read measures the load at now. allocatable is the Node's, requested the sum over the pods
// bound to it; both are for the caller to know.
//
// The CPU in use is the mean since the previous call. The first call, and one that is not
// later than the previous one, knows none yet: At is zero then, which says so.
func (l *LoadMeter) Read(now time.Time, allocatable, requested model.Resources) (model.Load, error) {
	m, err := readMachine(l.proc)
	if err != nil {
		return model.Load{}, fmt.Errorf("measure the node's load: %w", err)
	}
	usedMemory, busy, err := l.usage(m)
	if err != nil {
		return model.Load{}, fmt.Errorf("measure the node's load: %w", err)
	}
	limit, err := l.limits(now)
	if err != nil {
		return model.Load{}, err
	}
	allocatable.CPU, allocatable.Memory = min(allocatable.CPU, m.cpus, limit.CPU), min(allocatable.Memory, limit.Memory)
	pressure := l.cgroups.ReadPressure(l.node, l.proc)
	load := model.Load{
		Allocatable: allocatable,
		Requested:   requested,
		Used:        model.Resources{Memory: usedMemory},
		Pressure:    pressure[model.OnCPU],
		Pressures:   pressure,
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() && now.After(l.at) {
		load.At = now
		load.Used.CPU = model.Cores(perSecond(busy-l.busy, now.Sub(l.at)))
	}
	l.busy, l.at, l.load, l.pressure = busy, now, load, pressure
	return load, nil
}

// limits are those of kubelet's own group, which are the node's too, and of all above it. Like
// those of containers they are read once in limitPause.
func (l *LoadMeter) limits(now time.Time) (model.Resources, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if age := now.Sub(l.limitAt); !l.limitAt.IsZero() && age >= 0 && age < limitPause {
		return l.limit, nil
	}
	cpu, err := l.cgroups.CPULimit(l.pods, model.Cores(math.Inf(1)))
	if err != nil {
		return model.Resources{}, fmt.Errorf("find the node's CPU limit: %w", err)
	}
	memory, err := l.cgroups.MemoryLimit(l.pods, math.MaxInt64)
	if err != nil {
		return model.Resources{}, fmt.Errorf("find the node's memory limit: %w", err)
	}
	l.limit, l.limitAt = model.Resources{CPU: cpu, Memory: memory}, now
	return l.limit, nil
}

// usage is the node's memory in use and the CPU time it has used so far.
func (l *LoadMeter) usage(m machine) (model.Bytes, time.Duration, error) {
	if l.node == "/" {
		used, err := readMemoryUsed(l.proc)
		return used, m.all.busy, err
	}
	used, err := l.cgroups.Memory(l.node)
	if err != nil {
		return 0, 0, err
	}
	busy, err := l.cgroups.CPUTime(l.node)
	return used, busy, err
}

var (
	cpuUsedDesc = prometheus.NewDesc("drover_node_cpu_used_cores",
		"CPU in use on the node by everything, mean since the previous measurement.", nil, nil)
	cpuAllocatableDesc = prometheus.NewDesc("drover_node_cpu_allocatable_cores",
		"CPU that pods may use: the Node's allocatable, or less where a control group allows less.", nil, nil)
	memoryUsedDesc = prometheus.NewDesc("drover_node_memory_used_bytes",
		"Memory in use on the node by everything.", nil, nil)
	memoryAllocatableDesc = prometheus.NewDesc("drover_node_memory_allocatable_bytes",
		"Memory that pods may use: the Node's allocatable, or less where a control group allows less.", nil, nil)
	pressureDesc = prometheus.NewDesc("drover_node_pressure_ratio",
		"Share of the last ten seconds in which some task waited for the resource (PSI).", []string{"resource"}, nil)
)

// Describe is for prometheus.Registerer.
func (l *LoadMeter) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{cpuUsedDesc, cpuAllocatableDesc, memoryUsedDesc, memoryAllocatableDesc, pressureDesc} {
		ch <- d
	}
}

// Collect is for prometheus.Registerer: the last load that was read, nothing before one was.
func (l *LoadMeter) Collect(ch chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.load.At.IsZero() {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(cpuUsedDesc, float64(l.load.Used.CPU))
	gauge(cpuAllocatableDesc, float64(l.load.Allocatable.CPU))
	gauge(memoryUsedDesc, float64(l.load.Used.Memory))
	gauge(memoryAllocatableDesc, float64(l.load.Allocatable.Memory))
	for resource, share := range l.pressure {
		gauge(pressureDesc, share, string(resource))
	}
}
