package kernels

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/drover-project/drover/test/kernels/guest"
)

// results are what a machine has told.
type results struct {
	features map[string]answer
	packages map[string]*outcome
	done     bool
}

// answer tells whether a feature is there; detail says more, or why not.
type answer struct {
	yes    bool
	detail string
}

// outcome is that of one package's tests.
type outcome struct {
	output  strings.Builder
	passed  int
	skipped []string
	took    string
	failed  string // "" if it passed
}

var verdict = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)

// read reads what a machine tells until it ends.
func read(r io.Reader) (results, error) {
	all := results{features: map[string]answer{}, packages: map[string]*outcome{}}
	var now *outcome
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if rest, ok := strings.CutPrefix(line, guest.MarkFeature); ok {
			f := strings.SplitN(rest, "\t", 3)
			if len(f) != 3 {
				return all, fmt.Errorf("feature %q: want name, answer and detail", rest)
			}
			all.features[f[0]] = answer{f[1] == "yes", f[2]}
		} else if rest, ok := strings.CutPrefix(line, guest.MarkBegin); ok {
			now = &outcome{failed: "it did not end"}
			all.packages[rest] = now
		} else if rest, ok := strings.CutPrefix(line, guest.MarkEnd); ok {
			f := strings.SplitN(rest, "\t", 3)
			if len(f) != 3 || all.packages[f[0]] != now || now == nil {
				return all, fmt.Errorf("end of %q, which had not begun", rest)
			}
			now.took, now.failed = f[1], f[2]
			now = nil
		} else if rest, ok := strings.CutPrefix(line, guest.MarkFailed); ok {
			return all, errors.New(rest)
		} else if line == guest.MarkDone {
			all.done = true
		} else if now != nil {
			now.add(line)
		}
	}
	return all, lines.Err()
}

func (o *outcome) add(line string) {
	o.output.WriteString(line + "\n")
	if m := verdict.FindStringSubmatch(line); m != nil {
		switch m[1] {
		case "PASS":
			o.passed++
		case "SKIP":
			o.skipped = append(o.skipped, m[2])
		}
	}
}
