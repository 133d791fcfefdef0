package vault

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
)

// ForDump is how much a dump on this node may write.
func (v *Vault) ForDump() (model.Bytes, error) {
	free, err := v.free()
	if err != nil || v.cfg.Disk != "" {
		return free, err
	}
	available, err := available(v.cfg.Proc)
	return min(free, available), err
}

// ForCopy is how much may come from another node. The images and the pod that is restored
// from them are in memory together, so half of what is available is all there is.
func (v *Vault) ForCopy() (model.Bytes, error) {
	free, err := v.free()
	if err != nil || v.cfg.Disk != "" {
		return free, err
	}
	available, err := available(v.cfg.Proc)
	if err != nil {
		return 0, err
	}
	room := min(free, available/2)
	own, err := v.Own()
	return min(room, own), err
}

// Own is how much the agent itself may write here: what it writes is charged to it.
func (v *Vault) Own() (model.Bytes, error) {
	if v.cfg.Disk != "" {
		return math.MaxInt64, nil
	}
	left, limited, err := v.cfg.Limit()
	if err != nil {
		return 0, fmt.Errorf("ask how much memory the agent may have: %w", err)
	}
	if !limited {
		return math.MaxInt64, nil
	}
	return left, nil
}

// free is what the file system itself still takes.
func (v *Vault) free() (model.Bytes, error) {
	if err := v.usable(); err != nil {
		return 0, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(v.cfg.Dir, &st); err != nil {
		return 0, fmt.Errorf("ask how much of %s is free: %w", v.cfg.Dir, err)
	}
	return model.Bytes(st.Bavail) * model.Bytes(st.Bsize), nil
}

// available is the kernel's estimate of what can be used without swapping (proc(5),
// MemAvailable).
func available(proc string) (model.Bytes, error) {
	file := filepath.Join(proc, "meminfo")
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %q: %w", file, line, err)
			}
			return model.Bytes(kib) * model.KiB, nil
		}
	}
	return 0, fmt.Errorf("read %s: MemAvailable is missing", file)
}

// swap names a swap space that is no memory itself; empty: there is none.
func swap(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	first := true
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if !first && len(f) > 0 && !strings.HasPrefix(f[0], "/dev/zram") {
			return f[0], nil
		}
		first = false
	}
	return "", nil
}

// mount is what mountinfo says of one.
type mount struct {
	kind    string
	options []string
}

func (m *mount) has(option string) bool { return slices.Contains(m.options, option) }

// mounted gives what is mounted right on dir, the last if several are; nil: nothing.
func mounted(dir string) (*mount, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found *mount
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if ok && len(left) > 4 && len(right) > 2 && left[4] == dir {
			found = &mount{kind: right[0], options: strings.Split(right[2], ",")}
		}
	}
	return found, lines.Err()
}
