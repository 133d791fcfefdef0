package examine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/movable"
)

// errGone: what is left of the process is not to be read.
var errGone = errors.New("the process has ended")

// nested are the namespaces that all processes of a container have to share: CRIU dumps
// neither a second one of these kinds nor a thread that is in another than its process. A
// second mount namespace it can dump, but the target takes no mounts that are not those of
// the container's specification.
var nested = []string{"pid", "net", "ipc", "uts", "cgroup", "user", "mnt"}

// namespaces reads which namespaces a process, or a thread of it, is in.
func (p Proc) namespaces(pid int, task string) (map[string]string, error) {
	dir := filepath.Join(string(p), strconv.Itoa(pid))
	if task != "" {
		dir = filepath.Join(dir, "task", task)
	}
	found := map[string]string{}
	for _, kind := range nested {
		to, err := os.Readlink(filepath.Join(dir, "ns", kind))
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(dir); err != nil {
				return nil, errGone
			}
			continue // a zombie, or a kernel without this kind
		}
		if err != nil {
			return nil, ended(err)
		}
		found[kind] = to
	}
	return found, nil
}

// ended turns the kernel's ways of saying that a process has ended into one.
func ended(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return errGone
	}
	return err
}

// name is what people know the process by: its PID inside the container, and its name.
func (p Proc) name(pid int) (string, error) {
	data, err := os.ReadFile(filepath.Join(string(p), strconv.Itoa(pid), "status"))
	if err != nil {
		return "", ended(err)
	}
	inside, comm := strconv.Itoa(pid), "?"
	for _, line := range strings.Split(string(data), "\n") {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Name":
			comm = strings.TrimSpace(value)
		case "State":
			if v := strings.TrimSpace(value); strings.HasPrefix(v, "Z") || strings.HasPrefix(v, "X") {
				return "", errGone
			}
		case "NSpid":
			if f := strings.Fields(value); len(f) > 0 {
				inside = f[len(f)-1]
			}
		}
	}
	return fmt.Sprintf("process %s (%s)", inside, comm), nil
}

// thread examines what belongs to one thread alone.
func (s *survey) thread(pid int, task, who string, root map[string]string) error {
	dir := filepath.Join(string(s.proc), strconv.Itoa(pid), "task", task)
	data, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return ended(err)
	}
	if tracer := field(string(data), "TracerPid"); tracer != "" && tracer != "0" {
		s.saw(movable.Found(movable.ReasonTraced, "%s is traced by process %s: CRIU has to trace it itself", who, tracer).
			But("let the debugger go"))
	}
	is, err := s.proc.namespaces(pid, task)
	if err != nil {
		return err
	}
	for _, kind := range nested {
		if was := root[kind]; was != "" && is[kind] != "" && is[kind] != was {
			s.saw(movable.Found(movable.ReasonOtherNamespace, "%s is in another %s namespace than the container's first process", who, kind).
				But("programs that make namespaces of their own, such as sandboxes, cannot be moved while they use them"))
		}
	}
	return nil
}

// field is the value of a line of /proc/PID/status.
func field(status, key string) string {
	for _, line := range strings.Split(status, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && k == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
