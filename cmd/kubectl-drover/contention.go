package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/health"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

func (t *tool) contentionCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "contention NODE",
		Short: "Who suffers on a node, and from whom",
		Long: `Who waits for the CPU of a node, and who ran on it meanwhile, over the last seconds.

SUFFERS is for what resource others keep it waiting, and how badly: tight is only told, severe
moves it where it may be moved. WAITS is how many seconds the threads of a container waited for
the CPU in every second, all of them together. Its parts: OWN, other threads of the container ran; QUOTA, its own CPU limit or its
pod's was used up; NODE QUOTA, one above the pods was; NODE, something in no container ran
(the kernel, daemons); STEAL, a hypervisor had the CPU; SOFTIRQ, soft interrupts were served;
IDLE, nothing ran, and the CPU was about to come to it; and each of the NEIGHBOURS that ran.

A second table has memory and IO, of those containers that waited for one of them: all their
stall, their own doing included; how near they are to their own memory limit; the pages
that they had to wait for, in a second; and how many processes were killed for want of memory.

A third table has the evidence of ill health of those containers that show any, running or not:
how often they were restarted, and how they last ended if that was in the last hour; a probe
that does not succeed; and how many lines of their log a minute match the pattern in their pod's
annotation drover.dev/log-pattern. It moves nothing by itself.`,
		Example: "  kubectl drover contention n1",
		Args:    oneNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			var r blame.Report
			return t.tell(cmd.Context(), args[0], "/v1/contention", output, &r, func(_ client.Client, out io.Writer) error {
				return printContention(out, args[0], r)
			})
		},
	}
	outputFlag(c, &output)
	return c
}

func printContention(out io.Writer, node string, r blame.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CONTAINER\tSUFFERS\tCPU USED\tWAITS\tOWN\tQUOTA\tNODE QUOTA\tNODE\tSTEAL\tSOFTIRQ\tIDLE\tNEIGHBOURS")
	for _, c := range r.Containers {
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\n", text(c.Name), suffers(c), c.Run, c.Wait,
			c.Own, c.Quota, c.NodeQuota, c.Node, c.Steal, c.SoftIRQ, c.Idle, neighbours(c.Neighbours))
	}
	if err := errors.Join(w.Flush(), printStalls(out, r), printEvidence(out, r)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nseconds per second; of %s's CPU a hypervisor took %.2f (steal), soft interrupts %.2f\n", node, r.Steal, r.SoftIRQ)
	return err
}

// suffers names the resources that are not fine. An older agent tells of no grades.
func suffers(c blame.Shares) string {
	var all []string
	for _, r := range pressure.Resources {
		if g := c.Grades[r]; g == model.Tight || g == model.Severe {
			all = append(all, fmt.Sprintf("%s %s", r, g))
		}
	}
	switch {
	case len(all) > 0:
		return strings.Join(all, ", ")
	case c.Suffering:
		return "yes"
	}
	return "no"
}

// printStalls prints memory and IO of those containers that have something to show.
func printStalls(out io.Writer, r blame.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	head := "\nCONTAINER\tMEMORY STALL\tOF ITS LIMIT\tMAJOR FAULTS\tREFAULTS\tOOM KILLS\tIO STALL\n"
	for _, c := range r.Containers {
		e := c.Evidence
		if max(e.MemoryStall, e.IOStall) < 0.005 && e.OfLimit < pressure.NearLimit && e.OOMKills == 0 {
			continue
		}
		limit := "none"
		if e.OfLimit > 0 {
			limit = fmt.Sprintf("%.0f %%", 100*e.OfLimit)
		}
		fmt.Fprintf(w, "%s%s\t%.2f\t%s\t%.0f/s\t%.0f/s\t%d\t%.2f\n", head, text(c.Name), e.MemoryStall, limit, e.MajorFaults, e.Refaults, e.OOMKills, e.IOStall)
		head = ""
	}
	return w.Flush()
}

// printEvidence prints what containers show of ill health. How one ended long ago says little of now.
func printEvidence(out io.Writer, r blame.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	head := "\nEVIDENCE OF\tRESTARTS\tLAST EXIT\tNOT READY\tLINES OF ITS LOG\n"
	for _, c := range r.Unwell {
		exit, unready := "-", cmp.Or(c.Waiting, "-")
		if e := c.LastExit; e != nil && r.At.Sub(e.At) < time.Hour {
			exit = fmt.Sprintf("%s, %s ago", e, age(r.At, e.At))
		}
		if p := c.Probe; p != nil {
			unready = fmt.Sprintf("%s probe, %s", p.Kind, age(r.At, p.Since))
		}
		if exit == "-" && unready == "-" && c.Log == nil {
			continue
		}
		fmt.Fprintf(w, "%s%s\t%d\t%s\t%s\t%s\n", head, text(c.Name), c.Restarts, exit, unready, matches(c.Log))
		head = ""
	}
	return w.Flush()
}

func age(now, then time.Time) string { return duration.HumanDuration(max(0, now.Sub(then))) }

// matches tells what was found in a log.
func matches(l *health.Log) string {
	switch {
	case l == nil:
		return "-"
	case l.Problem != "":
		return l.Problem
	case l.Skipped > 0:
		return fmt.Sprintf("%d/min, %d in all, %.1f MiB not read", l.PerMinute, l.Matches, float64(l.Skipped)/(1<<20))
	}
	return fmt.Sprintf("%d/min, %d in all", l.PerMinute, l.Matches)
}

// neighbours names those that would show in two digits.
func neighbours(all []blame.Neighbour) string {
	var named []string
	for _, n := range all {
		if n.Wait < 0.005 {
			break
		}
		named = append(named, fmt.Sprintf("%s %.2f", text(n.Name), n.Wait))
	}
	if len(named) == 0 {
		return "-"
	}
	return strings.Join(named, ", ")
}

func text(n blame.Name) string { return n.Namespace + "/" + n.Pod + "/" + n.Container }
