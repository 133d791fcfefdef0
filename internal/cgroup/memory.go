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
// may have charged to them; limited is false if none of them has a limit.
func (h *Hierarchies) MemoryLeft(pid int) (left int64, limited bool, err error) {
	paths, err := h.paths(pid)
	if err != nil {
		return 0, false, err
	}
	for _, x := range h.all {
		limit, usage := "memory.max", "memory.current"
		if x.name != "" {
			if x.name != "memory" {
				continue
			}
			limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
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
			here, ok, err := memoryLeft(filepath.Join(dir, limit), filepath.Join(dir, usage))
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

func memoryLeft(limitFile, usageFile string) (left int64, limited bool, err error) {
	limit, err := readNumber(limitFile)
	if err != nil || limit >= unlimited {
		return 0, false, err
	}
	usage, err := readNumber(usageFile)
	return max(0, limit-usage), true, err
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
