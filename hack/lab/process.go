package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is a pid that cannot be taken for another that came later: with its start time, and the
// boot of the machine it was started in.
type process struct {
	PID   int
	Start uint64 // clock ticks since boot
	Boot  string
}

// identify gives the identity of a running process.
func identify(pid int) (process, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, err
	}
	start, state, err := readStat(pid)
	if err != nil {
		return process{}, err
	}
	if state == "Z" {
		return process{}, fmt.Errorf("process %d has ended", pid)
	}
	return process{pid, start, strings.TrimSpace(string(boot))}, nil
}

// readStat reads the start time and the state from /proc/PID/stat (proc(5)), whose second field
// may hold anything, in parentheses.
func readStat(pid int) (start uint64, state string, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return 0, "", fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0], err
}

func (p process) alive() bool {
	now, err := identify(p.PID)
	return err == nil && now == p
}

// kill ends the process if it is still the same one.
func (p process) kill() {
	if p.alive() {
		_ = unix.Kill(p.PID, unix.SIGKILL) // ended meanwhile
	}
}

func (p process) save(path string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// loadProcess reads what save wrote; a file that is not there or was half written is no process.
func loadProcess(path string) (process, error) {
	var p process
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	if json.Unmarshal(b, &p) != nil {
		return process{}, nil
	}
	return p, nil
}

// strays are the lab's processes by their command lines, also those whose pid was never saved.
func strays(lab string) []process {
	var out []process
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		argv := strings.Split(string(b), "\x00")
		if err != nil || len(argv) < 2 || !strings.HasPrefix(argv[0], groupPrefix) || argv[1] != lab {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			continue
		}
		if p, err := identify(pid); err == nil {
			out = append(out, p)
		}
	}
	return out
}
