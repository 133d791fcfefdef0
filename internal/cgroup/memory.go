package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryLeft tells how many more bytes the process's control group, and every group above it,
// may have charged to them; limited is false if none of them has a limit. What is cached of files and
// not in use is not counted as taken: the kernel gives it back before it kills anybody.
func (h *Hierarchies) MemoryLeft(pid int) (left int64, limited bool, err error) {
	paths, err := h.paths(pid)
	if err != nil {
		return 0, false, err
	}
	for _, x := range h.all {
		limit, usage, cached := "memory.max", "memory.current", "inactive_file"
		if x.name != "" {
			if x.name != "memory" {
				continue
			}
			limit, usage, cached = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
		}
		path, ok := paths[x.name]
		if !ok {
			continue
		}
		g, err := group(x, x.name == "", path)
		if err != nil {
			return 0, false, err
		}
		for dir := g.dir; strings.HasPrefix(dir, x.dir); dir = filepath.Dir(dir) {
			here, ok, err := memoryLeft(dir, limit, usage, cached)
			if err != nil {
				return 0, false, fmt.Errorf("read the memory limit of %s: %w", dir, err)
			}
			if ok && (!limited || here < left) {
				left, limited = here, true
			}
		}
	}
	return left, limited, nil
}

// unlimited is what v1 shows, rounded to pages, for a group without a limit.
const unlimited = 1 << 62

func memoryLeft(dir, limitFile, usageFile, cached string) (left int64, limited bool, err error) {
	limit, err := readNumber(filepath.Join(dir, limitFile))
	if err != nil || limit >= unlimited {
		return 0, false, err
	}
	usage, err := readNumber(filepath.Join(dir, usageFile))
	if err != nil {
		return 0, false, err
	}
	free, err := readStat(filepath.Join(dir, "memory.stat"), cached)
	return max(0, limit-max(0, usage-free)), true, err
}

// readStat gives a number of memory.stat; zero: it is not there.
func readStat(file, name string) (int64, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, nil
}

// readNumber gives unlimited for "max", and for a file that is not there: v2's root group and
// groups without the controller have none.
func readNumber(file string) (int64, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return unlimited, nil
	}
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return unlimited, nil
	}
	return strconv.ParseInt(text, 10, 64)
}
