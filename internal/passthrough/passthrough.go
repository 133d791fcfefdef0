// Package passthrough becomes runc at once when a call is none of Drover's business.
//
// Its init function does that, and that is its point: Go initialises packages in the order
// of their import paths as soon as what they import is there (Go 1.21 release notes), so
// this one, which imports next to nothing, comes before gRPC and all that it drags in. A
// call that is passed on so costs about a millisecond instead of several; kubelet makes
// such calls all the time. If the order should change, calls get slower and nothing else: main
// does the same.
package passthrough

import (
	"os"
	"slices"
	"strings"
	"syscall"
)

// Hook is the name by which CRIU calls the program as its action script.
const Hook = "drover-criu-hook"

// Runc is where the real runtime is looked for first.
var Runc = []string{"/usr/bin/runc", "/usr/local/sbin/runc", "/usr/sbin/runc"}

func init() {
	if !strings.HasSuffix(os.Args[0], "drover-runc") && !strings.HasSuffix(os.Args[0], Hook) {
		return // another program, a test above all
	}
	if strings.HasSuffix(os.Args[0], Hook) {
		if !HookMatters(os.Getenv("CRTOOLS_SCRIPT_ACTION")) {
			os.Exit(0)
		}
		return
	}
	args := os.Args[1:]
	if i := Verb(args); i < len(args) && Concerns(args[i]) {
		return
	}
	candidates := Runc
	if wanted := os.Getenv("DROVER_RUNC"); wanted != "" {
		candidates = []string{wanted}
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && !os.SameFile(info, self) {
			// Returns only if it fails; then main tries again and says why.
			_ = syscall.Exec(path, append([]string{path}, args...), os.Environ())
		}
	}
}

// Concerns tells whether a verb is one that Drover takes part in.
func Concerns(verb string) bool {
	switch verb {
	case "create", "start", "delete", "kill", "resume":
		return true
	}
	return strings.HasPrefix(verb, "drover-")
}

// Stages are those of CRIU's at which the Hook has anything to do.
var Stages = []string{"pre-dump", "post-dump", "pre-resume"}

// HookMatters tells whether CRIU's action script has anything to do at a stage.
func HookMatters(stage string) bool { return slices.Contains(Stages, stage) }

// Verb returns the index of the command among a runtime's arguments, behind its global flags.
func Verb(args []string) int {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return i + 1
		}
		if len(arg) < 2 || arg[0] != '-' {
			return i
		}
		if name, joined := strings.TrimLeft(arg, "-"), strings.Contains(arg, "="); !joined && TakesValue(name) {
			i++
		}
	}
	return len(args)
}

// TakesValue tells which flags of runc take a value; all others are switches. From runc's
// main.go, create.go, start.go and delete.go.
func TakesValue(flag string) bool {
	switch flag {
	case "root", "log", "log-format", "criu", "rootless", "bundle", "b", "pid-file",
		"console-socket", "preserve-fds", "pidfd-socket":
		return true
	}
	return false
}
