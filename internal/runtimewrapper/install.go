package runtimewrapper

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/layout"
)

// InstallVerb is the hidden verb by which the program copies itself to the node.
const InstallVerb = "drover-install"

// install copies this program into a directory, whole or not at all: containerd may run
// the old one at the same moment. The action script's name is a link beside it.
func install(args []string) int {
	if len(args) != 1 {
		fmt.Fprintf(os.Stderr, "usage: drover-runc %s DIRECTORY\n", InstallVerb)
		return 2
	}
	if err := installTo(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, "drover-runc: install:", err)
		return 1
	}
	return 0
}

func installTo(dir string) error {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	program := filepath.Join(dir, "drover-runc")
	if err := durable.WriteFile(program, data, 0o755); err != nil {
		return err
	}
	_, err = layout.EnsureHook(program)
	return err
}
