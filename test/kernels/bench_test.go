package kernels

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/drover-project/drover/test/bench/report"
	"github.com/drover-project/drover/test/kernels/guest"
)

// benchFile is where "make bench-dirty" has the figures written.
var benchFile = flag.String("kernels.bench", "", "measure for how long a container stands still for a dump with and without dirty tracking, on Debian's 6.12, and write the figures to this file")

// goalFrozen is how long a container may stand still after rounds, as part of a dump of all.
const goalFrozen = 0.25

// TestFrozen measures. The processor is emulated, so that only the ratio says something.
func TestFrozen(t *testing.T) {
	if *benchFile == "" {
		t.Skip("it measures: make bench-dirty")
	}
	tools, disk := parts(t)
	k, err := tools.DebianKernel(t.Context(), "trixie", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	init, tests := filepath.Join(dir, "init"), filepath.Join(dir, "tests")
	goTool(t, "build", "-ldflags", "-s -w", "-o", init, "./test/kernels/guest/init")
	buildNode(t, tests)
	m := machine{
		tools: tools, kernel: k, layout: guest.V2, dir: t.TempDir(), rootDisk: disk, init: init, tests: tests, packages: []string{nodePackage}, memory: "6G",
		node: &guest.Node{Package: nodePackage, Env: inNode, Arguments: []string{"-test.run=NONE", "-test.bench=BenchmarkFrozen", "-test.benchtime=4x"}},
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("not done after %s", patience))
	defer cancel()
	got, err := m.boot(ctx, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	o := got.packages[nodePackage]
	if o == nil || o.failed != "" {
		t.Fatalf("%+v", o)
	}
	metrics := figures(o.output.String())
	if len(metrics) == 0 {
		t.Fatalf("no figures:\n%s", o.output.String())
	}
	if err := report.Print(os.Stdout, metrics); err != nil {
		t.Error(err)
	}
	if err := report.Write(*benchFile, metrics); err != nil {
		t.Error(err)
	}
}

var measured = regexp.MustCompile(`^BenchmarkFrozen/(\d+MiB)\S*\s+\d+\s+(.*)$`)

// figures reads what the benchmark has printed.
func figures(output string) (metrics []report.Metric) {
	for line := range strings.Lines(output) {
		m := measured.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil {
			continue
		}
		f, value := strings.Fields(m[2]), map[string]float64{}
		for i := 0; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				value[f[i+1]] = v
			}
		}
		name := m[1] + "/dirty-tracking/"
		metrics = append(metrics,
			report.Metric{Name: name + "frozen-whole", Value: value["full-ms"], Unit: "ms", Met: true},
			report.Metric{Name: name + "pause-of-a-round", Value: value["pause-ms"], Unit: "ms", Met: true},
			report.AtMost(name+"frozen", value["rounds-ms"], "ms", goalFrozen*value["full-ms"], value["full-ms"]),
			report.AtMost(name+"frozen-ratio", value["rounds/full"], "", goalFrozen, 1))
	}
	return metrics
}

func TestFigures(t *testing.T) {
	got := figures("noise\nBenchmarkFrozen/256MiB-2   \t       4\t 100 ns/op\t 80.5 full-ms\t 9 pause-ms\t 20 rounds-ms\t 0.2484 rounds/full\t 1 warm-ms\r\n")
	if len(got) != 4 || got[2].Value != 20 || got[2].Goal != 20.125 || !got[3].Met || got[3].Name != "256MiB/dirty-tracking/frozen-ratio" {
		t.Errorf("got %+v", got)
	}
}
