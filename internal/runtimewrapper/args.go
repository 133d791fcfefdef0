package runtimewrapper

import (
	"strings"

	"github.com/drover-project/drover/internal/passthrough"
)

// invocation is one call of an OCI runtime, as containerd's go-runc and conmon make it.
type invocation struct {
	// verb is the command, "" when there is none (only flags).
	verb string
	// global are runc's global flags as they were given, rest all that follows the verb.
	global, rest []string
	// Global flags that Drover needs.
	root, log, logFormat string
	systemdCgroup        bool
	// Flags of create and the container's ID.
	bundle, pidFile, consoleSocket string
	noPivot                        bool
	id                             string
}

// parse reads an argument list without the program's name. It never fails: what it does
// not know is left to runc, which says so in its own words.
func parse(args []string) invocation {
	in := invocation{root: "/run/runc", bundle: "."}
	i := in.flags(args, 0)
	in.global = args[:i]
	if i == len(args) {
		return in
	}
	in.verb, in.rest = args[i], args[i+1:]
	if passthrough.Concerns(in.verb) {
		if i := in.flags(in.rest, 0); i < len(in.rest) {
			in.id = in.rest[i]
		}
	}
	return in
}

// flags reads flags from args[i:] and returns the index of the first argument.
func (in *invocation) flags(args []string, i int) int {
	for ; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return i + 1
		}
		if len(arg) < 2 || arg[0] != '-' {
			return i
		}
		name, value, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if passthrough.TakesValue(name) && !joined {
			if i++; i == len(args) {
				return i
			}
			value = args[i]
		}
		in.set(name, value, joined)
	}
	return i
}

func (in *invocation) set(name, value string, joined bool) {
	on := !joined || value == "true"
	switch name {
	case "root":
		in.root = value
	case "log":
		in.log = value
	case "log-format":
		in.logFormat = value
	case "systemd-cgroup":
		in.systemdCgroup = on
	case "bundle", "b":
		in.bundle = value
	case "pid-file":
		in.pidFile = value
	case "console-socket":
		in.consoleSocket = value
	case "no-pivot":
		in.noPivot = on
	}
}

// restoreArgs are the arguments by which runc restores what "create" asked for: the
// container's standard streams are those of this process, as with create.
func (in invocation) restoreArgs(b *bundle, images, work string) []string {
	args := append([]string{}, in.global...)
	args = append(args, "restore", "--detach",
		"--bundle", in.bundle, "--image-path", images, "--work-path", work,
		// The copy lives in its own pod's groups and knows nothing of the old ones.
		"--manage-cgroups-mode", "ignore")
	// Each pod has a label of SELinux's of its own; the images have the source's.
	if b.processLabel != "" {
		args = append(args, "--lsm-profile", "selinux:"+b.processLabel)
	}
	if b.mountLabel != "" {
		args = append(args, "--lsm-mount-context", b.mountLabel)
	}
	if in.pidFile != "" {
		args = append(args, "--pid-file", in.pidFile)
	}
	if in.consoleSocket != "" {
		args = append(args, "--console-socket", in.consoleSocket)
	}
	if in.noPivot {
		args = append(args, "--no-pivot")
	}
	return append(args, in.id)
}
