// Package structure holds the rules of docs/architecture.md that a compiler does not.
package structure

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/drover-project/drover/"

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("go list: %s", ee.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		all = append(all, p)
	}
}

// core packages are pure: the standard library and each other, nothing that acts.
var core = []string{"model", "linkstate", "location", "deadband", "peak", "arrivals", "view", "pressure", "health", "blame", "traffic", "edges", "placement", "handoff", "spread", "lifecycle"}

func TestCoreIsPure(t *testing.T) {
	impure := []string{"log", "log/slog", "context", "net", "net/http", "os", "os/exec"}
	checked := 0
	for _, p := range list(t) {
		if !slices.Contains(core, strings.TrimPrefix(p.ImportPath, "internal/")) {
			continue
		}
		checked++
		for _, i := range p.Imports {
			own := strings.HasPrefix(i, module)
			switch {
			case own && !slices.Contains(core, strings.TrimPrefix(i, module+"internal/")):
				t.Errorf("%s imports %s, which is not core", p.ImportPath, i)
			case !own && strings.Contains(strings.Split(i, "/")[0], "."):
				t.Errorf("%s imports %s: the core needs the standard library alone", p.ImportPath, i)
			case slices.Contains(impure, i):
				t.Errorf("%s imports %s: the core does not act", p.ImportPath, i)
			}
		}
	}
	if checked != len(core) {
		t.Errorf("found %d core packages, want %d: %v", checked, len(core), core)
	}
}

// overMemberlist are gossip, the network of its tests, and what measures it against memberlist.
var overMemberlist = []string{"internal/gossip", "internal/gossip/gossiptest", "test/bench/gossip"}

// overBPF are what measures, and the ends of the tunnel for a moved pod's old address.
var overBPF = []string{"nodeagent/measure", "nodeagent/address"}

func TestImportsRunOneWay(t *testing.T) {
	sides := []string{"plugin", "controller", "nodeagent"}
	for _, p := range list(t) {
		top := strings.Split(p.ImportPath, "/")[0]
		for _, i := range p.Imports {
			own, isOwn := strings.CutPrefix(i, module)
			to := strings.Split(own, "/")[0]
			switch {
			case isOwn && slices.Contains(sides, top) && slices.Contains(sides, to) && top != to:
				t.Errorf("%s imports %s: the three sides do not know each other", p.ImportPath, own)
			case isOwn && (top == "internal" || top == "api" || top == "bpf") && (slices.Contains(sides, to) || to == "cmd" || to == "hack" || to == "test"):
				t.Errorf("%s imports %s: against the direction of flow", p.ImportPath, own)
			case isOwn && to == "bpf" && top != "bpf" && top != "test" && !slices.Contains(overBPF, p.ImportPath):
				t.Errorf("%s imports %s: only %v do", p.ImportPath, own, overBPF)
			case i == "github.com/hashicorp/memberlist" && !slices.Contains(overMemberlist, p.ImportPath):
				t.Errorf("%s imports memberlist: only %v do", p.ImportPath, overMemberlist)
			}
		}
	}
}

// drover-runc stands in front of every container of its class: it must start fast.
func TestWrapperIsThin(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != "cmd/drover-runc" {
			continue
		}
		for _, d := range p.Deps {
			if strings.HasPrefix(d, "k8s.io/") || strings.HasPrefix(d, "sigs.k8s.io/") {
				t.Errorf("cmd/drover-runc depends on %s", d)
			}
		}
		return
	}
	t.Errorf("cmd/drover-runc was not found among the packages of %s", path.Clean(module))
}
