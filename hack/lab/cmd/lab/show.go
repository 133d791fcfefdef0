package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-project/drover/hack/lab"
)

func status(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the lab's machines and their programs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "MACHINE\tADDRESS\tSTATE\tPROGRAMS")
			for _, m := range l.Status(cmd.Context()) {
				state := "stopped"
				if m.Running {
					state = "running"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.Address, state, strings.Join(programs(m), " "))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			api, prometheus, err := l.URLs()
			if err != nil {
				return err
			}
			fmt.Printf("\nAPI server  %s  (KUBECONFIG=%s)\nPrometheus  %s\n", api, l.Kubeconfig(), prometheus)
			return nil
		},
	}
}

func programs(m lab.MachineStatus) []string {
	var out []string
	for _, s := range m.Services {
		switch {
		case s.Done:
		case s.PID == 0 && !s.Wanted:
			out = append(out, s.Name+"(stopped)")
		case s.PID == 0:
			out = append(out, s.Name+"(waiting)")
		case s.Starts > 1:
			out = append(out, fmt.Sprintf("%s(started %d times)", s.Name, s.Starts))
		default:
			out = append(out, s.Name)
		}
	}
	return out
}

func delay(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "delay [A B DURATION|cut]",
		Short: "Show the links' one-way delays, or set one",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 3 {
				return fmt.Errorf("delay takes two machines and a duration (lab delay n1 n2 5ms), or nothing")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return showDelays(cmd, l)
			}
			oneWay := time.Duration(-1)
			if args[2] != "cut" {
				if oneWay, err = time.ParseDuration(args[2]); err != nil || oneWay < 0 {
					return fmt.Errorf("delay %q is not a duration like 5ms, nor \"cut\"", args[2])
				}
			}
			return l.SetDelay(cmd.Context(), args[0], args[1], oneWay)
		},
	}
}

func showDelays(cmd *cobra.Command, l *lab.Lab) error {
	delays, err := l.Delays(cmd.Context())
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, d := range delays {
		text := d.OneWay.String()
		if d.OneWay < 0 {
			text = "cut"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", d.A, d.B, text)
	}
	return w.Flush()
}
