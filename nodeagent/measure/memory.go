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
	usage                           model.Bytes // without the file cache not used lately
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

// nearest gives, of a container's own group and its pod's, the usage and the limit of the one
// that is nearer to its limit; limit 0 where neither has one. own is the container's usage.
func (c Cgroups) nearest(container Container, own model.Bytes) (usage, limit model.Bytes, err error) {
	if limit, err = c.ownMemoryLimit(container.Group); err != nil {
		return 0, 0, err
	}
	podLimit, err := c.ownMemoryLimit(container.Pod)
	if err != nil || podLimit == 0 {
		return own, limit, err
	}
	podUsage, err := c.Memory(container.Pod)
	if err != nil {
		return 0, 0, err
	}
	if limit == 0 || float64(podUsage)/float64(podLimit) > float64(own)/float64(limit) {
		return podUsage, podLimit, nil
	}
	return own, limit, nil
}

// freeMemory is the part of the node's memory that could be given to a new process, 0..1: the
// least of the machine's and that of each group from kubepods up which has a limit.
func (c *Contention) freeMemory() (float64, error) {
	free, err := readMemoryFree(c.config.Proc)
	if err != nil {
		return 0, err
	}
	for g := c.config.Kubepods; g != "/" && g != "."; g = g.parent() {
		limit, err := c.config.Cgroups.ownMemoryLimit(g)
		if err != nil {
			return 0, err
		}
		if limit <= 0 {
			continue
		}
		used, err := c.config.Cgroups.Memory(g)
		if err != nil {
			return 0, err
		}
		free = min(free, max(0, 1-float64(used)/float64(limit)))
	}
	return free, nil
}
