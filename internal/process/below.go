package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/drover-project/drover/internal/kernelfile"
)

// Below lists p's descendants that have not ended, parents before children. One that is
// started meanwhile may be missed; one whose parent has ended belongs to its subreaper.
func (p Process) Below() ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]Process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		f, err := stat(pid)
		if err != nil {
			continue
		}
		start, err := started(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("start of process %d: %w", pid, err)
		}
		parent, err := strconv.Atoi(f[1])
		if err != nil {
			return nil, fmt.Errorf("parent of process %d: %w", pid, err)
		}
		children[parent] = append(children[parent], Process{PID: pid, Start: start})
	}
	if !p.Alive() { // looked at last: none of the children is another's who has the PID now
		return nil, nil
	}
	below := children[p.PID]
	for i := 0; i < len(below); i++ {
		below = append(below, children[below[i].PID]...)
	}
	return below, nil
}

// Where tells what the process is doing, for a message: its name, its state, what it waits for
// in the kernel, and the kernel's stack where that may be read.
func (p Process) Where() string {
	dir := "/proc/" + strconv.Itoa(p.PID)
	var said [3]string
	for i, file := range []string{"comm", "wchan", "stack"} {
		said[i], _ = kernelfile.Read(dir + "/" + file)
	}
	f, err := stat(p.PID)
	if err != nil || f[19] != strconv.FormatUint(p.Start, 10) {
		return fmt.Sprintf("%d: has ended", p.PID)
	}
	where := fmt.Sprintf("%d %s: state %s in %s", p.PID, strings.TrimSpace(said[0]), f[0], said[1])
	if stack := strings.ReplaceAll(strings.TrimSpace(said[2]), "[<0>] ", ""); stack != "" {
		where += " (" + strings.ReplaceAll(stack, "\n", " < ") + ")"
	}
	return where
}
