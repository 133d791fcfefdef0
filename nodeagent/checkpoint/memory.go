package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Memory is about how large the images of m's containers will be, and seldom less: what their
// processes have of their own in memory and in swap, unless the images leave it out. What they share is
// counted for each.
func (d *Dumps) Memory(m migrate.Move) (total model.Bytes, err error) {
	_, parts, err := d.parts(m)
	if err != nil {
		return 0, err
	}
	for _, p := range parts {
		pids, err := d.processes(p)
		if err != nil {
			return 0, err
		}
		why, err := d.whole(p, pids)
		if err != nil {
			return 0, err
		}
		if why == "" {
			continue
		}
		for _, pid := range pids {
			n, err := ownMemory(filepath.Join("/proc", strconv.Itoa(pid), "status"))
			if err != nil {
				return 0, err
			}
			total += n
		}
	}
	return total, nil
}

// Processes are those of m's containers now.
func (d *Dumps) Processes(m migrate.Move) ([]int, error) {
	_, parts, err := d.parts(m)
	if err != nil {
		return nil, err
	}
	var all []int
	for _, p := range parts {
		pids, err := d.processes(p)
		if err != nil {
			return nil, err
		}
		all = append(all, pids...)
	}
	return all, nil
}

// processes are those of one container.
func (d *Dumps) processes(p part) ([]int, error) {
	c, err := d.container(p)
	if c == nil {
		return nil, errors.Join(err, fmt.Errorf("container %s: drover-runc left no note about it", p.ID))
	}
	group, err := d.cfg.Groups.At(c.CgroupsPath)
	if err != nil {
		return nil, err
	}
	return group.Procs()
}

// Images is the directory that a dump of m's containers is written to.
func (d *Dumps) Images(m migrate.Move) (string, error) {
	dump, err := d.dir(m)
	return filepath.Join(dump, imageDir), err
}

// ownMemory reads proc(5) status. A process that is gone has none.
func ownMemory(file string) (model.Bytes, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var total model.Bytes
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "RssAnon:", "RssShmem:", "VmSwap:":
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %q: %w", file, line, err)
			}
			total += model.Bytes(kib) * model.KiB
		}
	}
	return total, nil
}
