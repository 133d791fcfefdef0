package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/drover-project/drover/api/v1alpha1"
)

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress shows how far the transfer is whenever that has changed, until it is over.
func (p *printer) progress(m *v1alpha1.PodMigration) {
	t := m.Status.Transfer
	if t == nil || m.Status.Source.Offered || m.Status.Decision != v1alpha1.Undecided {
		return
	}
	line := fmt.Sprintf("           %-12s %s", m.Status.Source.Node, describe(t))
	if line == p.said {
		return
	}
	p.said = line
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		p.open = true
		return
	}
	fmt.Fprintln(p.out, line)
}

// clear takes the line away that stands on a terminal.
func (p *printer) clear() {
	if p.open {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.open = false
	}
}

// describe says it in one line.
func describe(t *v1alpha1.TransferStatus) string {
	var parts []string
	if t.AheadBytes > 0 || t.Rounds > 0 {
		parts = append(parts, fmt.Sprintf("%s before the freeze in %d rounds", mib(t.AheadBytes), t.Rounds))
	}
	switch {
	case t.TotalBytes > 0:
		parts = append(parts, fmt.Sprintf("%s of %s sent (%d %%)", mib(t.SentBytes), mib(t.TotalBytes), 100*t.SentBytes/t.TotalBytes))
	case t.SentBytes > 0:
		parts = append(parts, mib(t.SentBytes)+" sent while more is written")
	}
	if t.BytesPerSecond > 0 {
		parts = append(parts, mib(t.BytesPerSecond)+"/s")
	}
	if t.TimeLeft != nil {
		parts = append(parts, "about "+t.TimeLeft.Duration.String()+" left")
	}
	return strings.Join(append(parts, mib(t.WireBytes)+" on the link"), ", ")
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
