// Command lab brings up a real Kubernetes of several nodes on one machine; see package lab.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/hack/lab/cache"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	var exit exitCode
	if errors.As(err, &exit) {
		os.Exit(int(exit))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// exitCode is that of kubectl or of a command on a node, which has said itself what was wrong.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// runThrough runs a command with this program's standard streams and passes its exit code on.
func runThrough(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitCode(exit.ExitCode())
	}
	return err
}

func report(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func command() *cobra.Command {
	var name string
	root := &cobra.Command{
		Use:           "lab",
		Short:         "A real Kubernetes of several nodes on one machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&name, "name", lab.DefaultName, "the lab's name: labs of different names can run side by side")
	root.AddCommand(
		up(&name), down(&name), status(&name), kubectl(&name), shell(&name),
		delay(&name), speed(&name), loadImage(&name), build(), prerequisites(),
	)
	return root
}

func up(name *string) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "up",
		Short: "Bring the lab up; a lab that is up stays as it is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var c lab.Config
			if file != "" {
				var err error
				if c, err = lab.LoadConfig(file); err != nil {
					return err
				}
			}
			if c.Name == "" || cmd.Flags().Changed("name") {
				c.Name = *name
			}
			c.Report = report
			begin := time.Now()
			l, err := lab.Up(cmd.Context(), c)
			if err != nil {
				return err
			}
			report("lab %s is up after %s; KUBECONFIG=%s", c.Name, time.Since(begin).Round(100*time.Millisecond), l.Kubeconfig())
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", "", "YAML file with nodes and links (see hack/lab/README.md)")
	return c
}

func down(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take the lab down and leave nothing of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Down(cmd.Context(), *name); err != nil {
				return err
			}
			report("lab %s is down", *name)
			return nil
		},
	}
}

func kubectl(name *string) *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [--name NAME] ARGS...",
		Short:              "Run kubectl as the lab's administrator",
		DisableFlagParsing: true, // they are kubectl's
		RunE: func(cmd *cobra.Command, args []string) error {
			for len(args) >= 2 && args[0] == "--name" { // before "kubectl", or right after it
				*name, args = args[1], args[2:]
			}
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			path, err := l.Kubectl()
			if err != nil {
				return err
			}
			k := exec.CommandContext(cmd.Context(), path, args...)
			k.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
			return runThrough(k)
		},
	}
}

func shell(name *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "shell [NODE [COMMAND...]]",
		Short: "Run a shell or a command on a node (without NODE: on the control plane, cp)",
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			node, argv := lab.ControlPlane, []string{"bash"}
			if len(args) > 0 {
				node = args[0]
			}
			if len(args) > 1 {
				argv = args[1:]
			}
			sh, err := l.Command(cmd.Context(), node, argv...)
			if err != nil {
				return err
			}
			return runThrough(sh)
		},
	}
	c.Flags().SetInterspersed(false) // flags after NODE are the command's
	return c
}

func speed(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "speed NODE CORES",
		Short: "Limit a node's pods to so many cores (0: no limit)",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			cores, err := strconv.ParseFloat(args[1], 64)
			if err != nil {
				return fmt.Errorf("speed %q is not a number of cores", args[1])
			}
			return l.SetSpeed(args[0], cores)
		},
	}
}

func loadImage(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "load-image TAR [NODE...]",
		Short: "Import images on the nodes (on all if none is named)",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			tar, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return l.LoadImage(cmd.Context(), tar, args[1:]...)
		},
	}
}

func build() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build what is missing in the cache, and start nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			layers, err := cache.Layers(cmd.Context(), report)
			for _, l := range layers {
				fmt.Println(l)
			}
			return err
		},
	}
}

func prerequisites() *cobra.Command {
	return &cobra.Command{
		Use:   "prerequisites",
		Short: "Install the Debian packages that building the cache needs (DROVER_NO_INSTALL=1: list them and fail)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cache.Prerequisites(cmd.Context(), report)
		},
	}
}
