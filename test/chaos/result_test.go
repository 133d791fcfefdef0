package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// result is one line of results.jsonl.
type result struct {
	Commit  string    `json:"commit"` // that changed the product last
	Fault   string    `json:"fault"`
	Step    string    `json:"step"`
	At      time.Time `json:"at"`
	Outcome outcome   `json:"outcome,omitempty"`
	// Settle is from the fault to when nothing was left to do; Silence the longest time in
	// which the witness heard nothing. Milliseconds.
	Settle  int64 `json:"settleMillis"`
	Silence int64 `json:"silenceMillis"`
	// Reason is the record's, Wrong what should not be; Missed: the fault struck nothing.
	Reason string   `json:"reason,omitempty"`
	Wrong  []string `json:"wrong,omitempty"`
	Missed string   `json:"missed,omitempty"`
}

func (r result) of(c chaos) bool { return r.Fault == c.fault.name && r.Step == c.step.String() }

// root is the checkout's folder: tests run in their package's.
const root = "../.."

func resultsFile() string { return filepath.Join(root, "out", "chaos", "results.jsonl") }

// product is what the results are about: a change of anything else leaves them true.
var product = []string{"api", "bpf", "cmd", "controller", "internal", "manifests", "nodeagent", "plugin", "go.mod"}

// commit names the state of the product: the last commit that changed it, and a + if there
// are changes beside it.
func commit() (string, error) {
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", append(append([]string{"-C", root}, args...), append([]string{"--"}, product...)...)...)
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	name, err := git("log", "-1", "--format=%h")
	if err != nil {
		return "", err
	}
	changes, err := git("status", "--porcelain")
	if changes != "" {
		name += "+"
	}
	return name, err
}

func readResults() ([]result, error) {
	f, err := os.Open(resultsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []result
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r result
		if json.Unmarshal(lines.Bytes(), &r) == nil { // the last line may have been cut short
			all = append(all, r)
		}
	}
	return all, lines.Err()
}

func (r result) save() error {
	if err := os.MkdirAll(filepath.Dir(resultsFile()), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(resultsFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return err
}

// newest gives the last result of a case, of that commit if one is given.
func newest(all []result, c chaos, commit string) (r result, ok bool) {
	for _, o := range all {
		if o.of(c) && (commit == "" || o.Commit == commit) {
			r, ok = o, true
		}
	}
	return r, ok
}
