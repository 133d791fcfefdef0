// Package examine looks at the processes of a container that runs, from outside and without
// stopping them, for what CRIU cannot dump: before anything is frozen, so that a pod that
// cannot be moved is never stopped for it, and so that people are told why.
//
// Each reason was seen to make CRIU 4.2.1 fail, or to be taken by it: test/checkpoint holds
// real containers with real descriptors against the verdicts of this package. It reads /proc
// alone. What CRIU would also refuse but is not listed here still aborts the move, later.
package examine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-project/drover/internal/movable"
)

// Proc is where the processes are seen, "/proc" on a node.
type Proc string

// Container examines all processes of the container with that runtime ID. No process: a
// finding.
func (p Proc) Container(id string) ([]movable.Finding, error) {
	pids, err := p.Of(id)
	if err != nil {
		return nil, err
	}
	if len(pids) == 0 {
		return []movable.Finding{movable.Found(movable.ReasonNoProcess, "container %.12s has no process on this node", id)}, nil
	}
	return p.Processes(pids)
}

// Of lists the processes whose control group is the container's or one below it, by PID.
// Every runtime names that group after the container.
func (p Proc) Of(id string) ([]int, error) {
	if len(id) < 12 || strings.ContainsAny(id, "/\n:") {
		return nil, fmt.Errorf("%q is no container's ID", id)
	}
	entries, err := os.ReadDir(string(p))
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(string(p), e.Name(), "cgroup"))
		if err != nil {
			continue // it has ended
		}
		if inGroup(string(data), id) {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found, nil
}

// inGroup tells whether a line of /proc/PID/cgroup goes through a group named after id:
// "ID", "cri-containerd-ID.scope".
func inGroup(cgroups, id string) bool {
	for _, line := range strings.Split(cgroups, "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, name := range strings.Split(parts[2], "/") {
			name = strings.TrimSuffix(name, ".scope")
			if name == id || strings.HasSuffix(name, "-"+id) {
				return true
			}
		}
	}
	return false
}

// Processes examines these processes, the container's first one first, and all their threads.
// One that ends meanwhile is left out; one that cannot be read is an error, for then nothing
// is known.
func (p Proc) Processes(pids []int) ([]movable.Finding, error) {
	s := survey{proc: p, first: map[string]sighting{}}
	root, err := p.namespaces(pids[0], "")
	if err != nil && !gone(err) {
		return nil, err
	}
	for _, pid := range pids {
		if err := s.process(pid, root); err != nil && !gone(err) {
			return nil, fmt.Errorf("examine process %d: %w", pid, err)
		}
	}
	return s.findings(), nil
}

// gone tells that a process, thread or descriptor has ended while it was looked at.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errGone)
}

// survey gathers what was seen: of many alike the first, and how many.
type survey struct {
	proc  Proc
	order []string
	first map[string]sighting
}

type sighting struct {
	finding movable.Finding
	more    int
}

func (s *survey) saw(f movable.Finding) {
	was, known := s.first[f.Reason]
	if known {
		was.more++
		s.first[f.Reason] = was
		return
	}
	s.order = append(s.order, f.Reason)
	s.first[f.Reason] = sighting{finding: f}
}

func (s *survey) findings() []movable.Finding {
	var all []movable.Finding
	for _, reason := range s.order {
		f := s.first[reason]
		if f.more > 0 {
			f.finding.Message += fmt.Sprintf(" (and %d more)", f.more)
		}
		all = append(all, f.finding)
	}
	return all
}

// process examines one process with its threads.
func (s *survey) process(pid int, root map[string]string) error {
	dir := filepath.Join(string(s.proc), strconv.Itoa(pid))
	who, err := s.proc.name(pid)
	if err != nil {
		return err
	}
	mounts, err := mountIDs(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return err
	}
	tasks, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return err
	}
	leaderFiles := ""
	for _, t := range tasks {
		if err := s.thread(pid, t.Name(), who, root); err != nil && !gone(err) {
			return err
		}
		// Threads nearly always share their descriptors; one that does not has its own table.
		files := filepath.Join(dir, "task", t.Name(), "fd")
		same := t.Name() != strconv.Itoa(pid) && leaderFiles != "" && listing(files) == leaderFiles
		if same {
			continue
		}
		if err := s.files(files, who, mounts); err != nil && !gone(err) {
			return err
		}
		if t.Name() == strconv.Itoa(pid) {
			leaderFiles = listing(files)
		}
	}
	return s.mappings(filepath.Join(dir, "maps"), who)
}

// listing is a table of descriptors in a form that can be compared.
func listing(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, e := range entries {
		to, _ := os.Readlink(filepath.Join(dir, e.Name()))
		fmt.Fprintf(&b, "%s=%s\n", e.Name(), to)
	}
	return b.String()
}
