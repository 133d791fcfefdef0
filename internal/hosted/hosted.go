// Package hosted runs a command that belongs to the node and not to the container that
// started it: in the node's namespaces and in a control group of its own, so that it lives
// on when the agent's container is killed, and an agent that comes back finds out how it
// ended. CRIU must not die with the agent in the middle of a dump.
//
// Start is called by the agent; it runs drover-runc with the hidden verb of Main, which
// enters the node, runs the command, and writes down what came of it.
package hosted

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

// Verb is the hidden verb of drover-runc that leads to Main.
const Verb = "drover-hosted"

// files in the command's directory.
const (
	pidFile     = "pid"
	guardedFile = "guarded"
	exitFile    = "exit"
	outputFile  = "output"
)

// path is where a node's programs are.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment of every command: nothing of the caller's.
var environment = []string{"PATH=" + path}

// Command is what to run.
type Command struct {
	// Program is drover-runc as the caller reaches it.
	Program string `json:"-"`
	// Dir is a directory for this command alone, the same for the caller and the node. It
	// must exist and hold no earlier command.
	Dir string
	// Cgroup is the path of the control group to run in.
	Cgroup string `json:"-"`
	// Guard is the linux.cgroupsPath of a container that must not live on when the command fails;
	// or empty. Such a command says that it is ready by a byte on its descriptor 3, and Start
	// returns then. See guard.
	Guard string
	// Beside is the command line of a process that runs beside a guarded one, and is to end with it; or
	// empty. The two have a pair of sockets: it on its descriptor 3, the guarded one on 4.
	Beside []string
	// Args is the command line; the program is looked up on the node.
	Args []string
}

// Exit is how a command ended.
type Exit struct {
	Code int `json:"code"`
	// Error is set when the command could not be run.
	Error string `json:"error,omitempty"`
}

// Running tells whether the command that was started in dir still runs.
func Running(dir string) (bool, error) {
	p, err := noted(dir)
	return p.Alive(), err
}

// Wait returns how the command in dir ended, now or already. ok is false when nothing was
// started there, or when it was killed before it could write that down. An error is ctx's.
func Wait(ctx context.Context, dir string) (exit Exit, ok bool, err error) {
	p, err := noted(dir)
	if err != nil {
		return Exit{}, false, err
	}
	if err := p.Wait(ctx); err != nil {
		return Exit{}, false, err
	}
	return Noted(dir)
}

// Noted returns how the command in dir ended, if that is noted already: for a guarded one that
// failed, before its container is ended.
func Noted(dir string) (exit Exit, ok bool, err error) {
	ok, err = layout.ReadNote(filepath.Join(dir, exitFile), &exit)
	return exit, ok, err
}

// noted returns the process that runs the command in dir.
func noted(dir string) (p process.Process, err error) {
	_, err = layout.ReadNote(filepath.Join(dir, pidFile), &p)
	return p, err
}

// Output returns the end of what the command wrote, for a message: at most limit bytes.
func Output(dir string, limit int) string {
	data, err := os.ReadFile(filepath.Join(dir, outputFile))
	if err != nil {
		return ""
	}
	if len(data) > limit {
		data = data[len(data)-limit:]
	}
	return strings.TrimSpace(string(data))
}
