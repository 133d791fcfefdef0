package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const head = `# Chaos: every fault at every step

A pod that ticks 50 times a second is moved between two nodes of the [lab](../hack/lab/README.md):
real kubelets, containerd, runc, CRIU and API server. At one step of the move one thing breaks;
what was broken comes back as it does in life (kubelet starts agents and the controller again, a
supervisor containerd, kubelet and the API server; links and disks are mended after %s; a node
boots). A witness on a third node hears every tick. A case is good if no tick was lost or came
twice, no two copies ran at once, the move ended as its design allows, and nothing was left behind:
processes, frozen control groups, network locks, images, dumps, mounts, waiting creates, orphan
pods, fences and notes, claims on pods ([test/remains](../test/remains)).

` + "`make test`" + ` runs a choice in which every fault and every step is met, ` + "`make chaos`" + ` all of it;
it goes on where it was interrupted, and writes this page.

The steps are those of a move's timeline ([architecture](architecture.md)). Each is struck when the
record shows it, or, for what an agent writes down only with its next change, when the node does:
Frozen when CRIU's script has run, Dumped when the source's agent has frozen the control group, Sent
when the images are whole on the target, Restored when the copy is held. Restored, Committed,
Starting and Resumed pass within milliseconds: there the link between the API server and the agent whose turn is
next is slowed to %s one way, so that the fault comes before that agent knows.

| outcome | what became of the process |
|---|---|
| moved | it goes on at the target |
| stayed | the move was aborted; it goes on at the source |
| returned | committed, then given back; it goes on at the source |
| afresh | it was lost with the node on which alone it was, or with the program that was just starting its container, and its pod has started anew |

`

const tail = `
## What is not in the table

- **Clocks apart.** The lab's nodes share one kernel and so one clock; time namespaces shift only
  monotonic clocks. No deadline compares two machines' clocks: each is kept by the clock of the one
  that set it (the create's by the target's, the source's patience by the source's, the controller's
  by its own). In the simulation of [internal/handoff](../internal/handoff) the three clocks are up
  to two hours apart in every run. In gossip a node's clock jumps by an hour, ahead or back, in virtual
  time (TestClockAnHourOff): all hold it for normal throughout, and it them.
- **A full /run.** What is filled here is the disk with fences and notes of arrivals, /var/lib/drover,
  and the tmpfs with images and dumps, /run/drover/vault; not the rest of /run.
- **Power cuts.** A node that is restarted loses its processes, its memory and its /run, but what it
  wrote to its disk without syncing is still there: the kernel lives on.
`

// writePage makes docs/chaos.md of all results that there are.
func writePage(t *testing.T) {
	t.Helper()
	all, err := readResults()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "chaos.md"), []byte(page(all)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func page(all []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, head, outage, farAway)
	b.WriteString(figures(all))
	b.WriteString("\n| fault | " + strings.Join(names(steps), " | ") + " |\n|---" + strings.Repeat("|---", len(steps)) + "|\n")
	var bad []string
	for _, f := range faults {
		row := []string{f.name}
		for _, s := range steps {
			row = append(row, cell(all, chaos{f, s}, &bad))
		}
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
	}
	b.WriteString("\nSeconds are from the fault to when nothing was left to do, the fault's own length included.\n" +
		"What watches the API server, Drover before the move holds anything and kubelet always, hears of news\n" +
		"again only when client-go next asks: 0.8 to 30 s after it failed, twice as long each time, and up to\n" +
		"as much again by chance. That is most of what a long time is, the more so as client-go forgets only\n" +
		"after two good minutes that it failed, and here one outage follows another. Until it knows of its\n" +
		"pod's end, a kubelet starts the ended containers again and again, and each is refused.\n")
	if len(bad) > 0 {
		b.WriteString("\n## What went wrong\n\n" + strings.Join(bad, "\n") + "\n")
	}
	b.WriteString(tail)
	return b.String()
}

// cell is one case; what is wrong with it is added to bad.
func cell(all []result, c chaos, bad *[]string) string {
	if c.step < c.fault.from || c.step > c.fault.to {
		return "–"
	}
	r, ok := newest(all, c, "")
	switch {
	case !ok:
		return "not run"
	case r.Missed != "":
		return "missed"
	case len(r.Wrong) > 0:
		*bad = append(*bad, fmt.Sprintf("- **%s** (%s): %s", c, r.Commit, strings.Join(r.Wrong, "; ")))
		return "**WRONG**"
	}
	return fmt.Sprintf("%s %.1f s", r.Outcome, float64(r.Settle)/1000)
}

// figures say how many cases were run, and of which state of the product.
func figures(all []result) string {
	var run, good, missed int
	var commits []string
	for _, c := range table() {
		r, ok := newest(all, c, "")
		if !ok {
			continue
		}
		run++
		switch {
		case r.Missed != "":
			missed++
		case len(r.Wrong) == 0:
			good++
		}
		if !slices.Contains(commits, r.Commit) {
			commits = append(commits, r.Commit)
		}
	}
	s := fmt.Sprintf("%d of %d cases were run: %d good, %d wrong", run, len(table()), good, run-good-missed)
	if missed > 0 {
		s += fmt.Sprintf(", %d missed (the move was past the step, or there was nothing left to break)", missed)
	}
	if len(commits) > 0 {
		s += ". State of the product: " + strings.Join(commits, ", ")
	}
	return s + ".\n"
}

func names(steps []step) []string {
	var all []string
	for _, s := range steps {
		all = append(all, s.String())
	}
	return all
}

func TestPage(t *testing.T) {
	c := chaos{faults[0], frozen}
	of := func(r result) result {
		r.Fault, r.Step, r.Commit = c.fault.name, c.step.String(), "abc"
		return r
	}
	for want, all := range map[string][]result{
		"| not run |":           nil,
		"| stayed 1.5 s |":      {of(result{Outcome: moved}), of(result{Outcome: stayed, Settle: 1500})},
		"| **WRONG** |":         {of(result{Outcome: moved, Wrong: []string{"two copies"}})},
		"at Frozen** (abc): tw": {of(result{Outcome: moved, Wrong: []string{"two copies"}})},
		"| missed |":            {of(result{Missed: "over"})},
		"1 of ":                 {of(result{Outcome: moved})},
	} {
		if got := page(all); !strings.Contains(got, want) {
			t.Errorf("the page has no %q:\n%s", want, got)
		}
	}
}
