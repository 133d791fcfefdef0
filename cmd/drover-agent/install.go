package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/drover-project/drover/internal/layout"
)

// wrapper is drover-runc in the agent's image.
const wrapper = "/drover-runc"

func installCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install DIRECTORY",
		Short: "Put drover-runc, which the container runtime's handler names, into a directory of the node",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			to := filepath.Join(args[0], filepath.Base(wrapper))
			if err := install(wrapper, to); err != nil {
				return fmt.Errorf("install %s as %s: %w", wrapper, to, err)
			}
			_, err := layout.EnsureHook(to)
			return err
		},
	}
}

// install copies a program in one step: whoever runs it meanwhile runs the old one or the
// new one, whole.
func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".install-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close())
	if err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}
