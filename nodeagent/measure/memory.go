package measure

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/drover-project/drover/internal/model"
)

// memoryStat is what memory.stat and its neighbours tell of one group and all below it. A
// group without the memory controller has none of it.
type memoryStat struct {
	usage, held                     model.Bytes // without the file cache not used lately, and with all
	majorFaults, refaults, oomKills int64       // since it began
}

// unlimited is more than any machine has: v1 gives a limit near 2^63 where none is set.
const unlimited = 1 << 62

// MemoryStat reads what a group's memory is used for, and what went wrong with it.
func (c Cgroups) MemoryStat(g Group) (memoryStat, error) {
	usageFile, killFile := "memory.current", "memory.events"
	names := []string{"inactive_file", "pgmajfault", "workingset_refault_anon", "workingset_refault_file", "workingset_refault"}
	if c.v1 {
		usageFile, killFile = "memory.usage_in_bytes", "memory.oom_control"
		for i := range names {
			names[i] = "total_" + names[i]
		}
	}
	usage, err := readInt(c.file("memory", g, usageFile))
	if err != nil {
		return memoryStat{}, err
	}
	stat, err := readFields(c.file("memory", g, "memory.stat"), names...)
	if err != nil {
		return memoryStat{}, err
	}
	// Kernels before 4.13 do not count the killed.
	kills, err := readField(c.file("memory", g, killFile), "oom_kill")
	if err != nil && !errors.Is(err, errNoField) && !errors.Is(err, fs.ErrNotExist) {
		return memoryStat{}, err
	}
	return memoryStat{
		usage:       model.Bytes(max(0, usage-stat[names[0]])),
		held:        model.Bytes(usage),
		majorFaults: stat[names[1]],
		refaults:    stat[names[2]] + stat[names[3]] + stat[names[4]], // 5.9 split the last
		oomKills:    kills,
	}, nil
}

// ownMemoryLimit is the least at which a group's own memory is limited, or slowed down; 0
// where it is not.
func (c Cgroups) ownMemoryLimit(g Group) (model.Bytes, error) {
	names := []string{"memory.max", "memory.high"}
	if c.v1 {
		names = []string{"memory.limit_in_bytes"}
	}
	least := int64(0)
	for _, name := range names {
		text, err := readOptional(c.file("memory", g, name))
		if err != nil {
			return 0, err
		}
		if text == "" || text == "max" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s of %s: %q is no number of bytes", name, g, text)
		}
		if n < unlimited && (least == 0 || n < least) {
			least = n
		}
	}
	return model.Bytes(least), nil
}

// limited is the memory of a group beside its limit.
type limited struct {
	usage, held, limit model.Bytes // without the file cache not used lately, and with all; 0: none
}

// nearest gives, of a container's own group and its pod's, the one that holds the greater part of
// its limit.
func (c Cgroups) nearest(container Container, own memoryStat) (limited, error) {
	limit, err := c.ownMemoryLimit(container.Group)
	if err != nil {
		return limited{}, err
	}
	of := limited{own.usage, own.held, limit}
	podLimit, err := c.ownMemoryLimit(container.Pod)
	if err != nil || podLimit == 0 {
		return of, err
	}
	pod, err := c.limited(container.Pod, podLimit)
	if err != nil {
		return limited{}, err
	}
	if limit == 0 || pod.part() > of.part() {
		return pod, nil
	}
	return of, nil
}

func (l limited) part() float64 { return float64(l.held) / float64(l.limit) }

func (c Cgroups) limited(g Group, limit model.Bytes) (limited, error) {
	usage, err := c.Memory(g)
	if err != nil {
		return limited{}, err
	}
	name := "memory.current"
	if c.v1 {
		name = "memory.usage_in_bytes"
	}
	held, err := readInt(c.file("memory", g, name))
	return limited{usage, model.Bytes(held), limit}, err
}

// nodeMemory is the memory of the node: of the machine and of each group from kubepods up which
// has a limit, of that which holds the greatest part. free is the least part (0..1) of any
// that could be given to a new process.
func (c *Contention) nodeMemory() (fullest limited, free float64, err error) {
	m, err := readMemory(c.config.Proc)
	if err != nil {
		return fullest, 0, err
	}
	fullest = limited{held: m.total - m.free, limit: m.total}
	free = max(0, min(1, float64(m.available)/float64(m.total)))
	for g := c.config.Kubepods; g != "/" && g != "."; g = g.parent() {
		limit, err := c.config.Cgroups.ownMemoryLimit(g)
		if err != nil {
			return fullest, 0, err
		}
		if limit <= 0 {
			continue
		}
		l, err := c.config.Cgroups.limited(g, limit)
		if err != nil {
			return fullest, 0, err
		}
		free = min(free, max(0, 1-float64(l.usage)/float64(limit)))
		if l.part() > fullest.part() {
			fullest = l
		}
	}
	return fullest, free, nil
}
