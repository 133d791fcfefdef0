package kernels

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/drover-project/drover/test/kernels/guest"
)

// nodePackage has tests that want a node with runc and CRIU. Those of them that need a kernel which
// tracks what is written to memory are run here; all others "make test-checkpoint" runs.
const nodePackage = "test/checkpoint"

// inNode are the variables by which the package's test program knows that it is on a node already.
var inNode = []string{"DROVER_TEST_STAGE=node", "NODE_GROUP=/drover-checkpoint"}

// withNode gives the packages of a machine, and how the one that wants a node is run: where control
// groups are v2 alone, which is what soft-dirty kernels' container runtimes use.
func withNode(layout guest.Layout, packages []string) ([]string, *guest.Node) {
	if layout != guest.V2 {
		return slices.DeleteFunc(slices.Clone(packages), func(p string) bool { return p == nodePackage }), nil
	}
	tests := *onlyTests
	if tests == "" {
		tests = "Round"
	}
	return packages, &guest.Node{Package: nodePackage, Arguments: []string{"-test.run=" + tests}, Env: inNode}
}

// buildNode makes the directory of nodePackage, with what its tests find on their node.
func buildNode(t *testing.T, dir string) {
	t.Helper()
	to := filepath.Join(dir, nodePackage)
	goTool(t, "test", "-c", "-ldflags", "-s -w", "-o", filepath.Join(to, "test"), "./"+nodePackage)
	for program, from := range map[string]string{
		"opt/drover/bin/drover-runc": "./cmd/drover-runc", "drover/counter": "./" + nodePackage + "/counter",
		"drover/odd": "./" + nodePackage + "/odd", "drover/scribe": "./" + nodePackage + "/scribe",
	} {
		goTool(t, "build", "-ldflags", "-s -w", "-o", filepath.Join(to, "root", program), from)
	}
}
