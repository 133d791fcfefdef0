package handoff

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the transcripts in testdata")

// TestTranscripts plays the good path and the main bad ones, everything in the order in
// which it was asked for, and compares what was said with testdata.
func TestTranscripts(t *testing.T) {
	scenarios := map[string]struct {
		on   map[string]func(*world)
		lose string
		end  string
		opt  options
	}{
		"good": {end: "moved"},
		"abort-dump-dies": {end: "aborted", on: map[string]func(*world){
			"fence -> dump": func(w *world) { w.later("script", func() { w.killCRIU(w.nodes[0]) }) }}},
		"abort-source-deleted": {end: "aborted", on: map[string]func(*world){
			"record move4 v3: offer": func(w *world) { w.userDeletes(w.api.pods["pod1"]) }}},
		"abort-waiter-gone": {end: "aborted", on: map[string]func(*world){
			"restore: began": func(w *world) { w.vanish(w.nodes[1], w.nodes[1].waiters[0]) }}},
		"abort-source-agent-restarts": {end: "aborted", on: map[string]func(*world){
			"done fence -> dump": func(w *world) { w.crashAgent(w.nodes[0]) }}},
		"commit-answer-lost": {end: "moved", lose: "write commit"},
		"commit-then-target-agent-restarts": {end: "moved", on: map[string]func(*world){
			"record move4 v4: commit": func(w *world) { w.crashAgent(w.nodes[1]) }}},
		"commit-then-waiter-gone": {end: "returned", on: map[string]func(*world){
			"write commit": func(w *world) { w.vanish(w.nodes[1], w.nodes[1].waiters[0]) }}},
		"commit-then-target-reboots": {end: "returned", on: map[string]func(*world){
			"record move4 v4: commit": func(w *world) { w.reboot(w.nodes[1]) }}},
		"start-then-target-reboots": {end: "moved", on: map[string]func(*world){
			"record move4 v5: start": func(w *world) { w.reboot(w.nodes[1]) }}},
		"start-then-target-lost": {end: "lost", on: map[string]func(*world){
			"record move4 v5: start": func(w *world) { w.lose(w.nodes[1]) }}},
		"post-copy": {end: "moved", opt: options{postCopy: true}},
		"post-copy-source-reboots": {end: "forfeited", opt: options{postCopy: true}, on: map[string]func(*world){
			"record move4 v6: resume": func(w *world) { w.reboot(w.nodes[0]) }}},
		"post-copy-target-reboots": {end: "moved", opt: options{postCopy: true}, on: map[string]func(*world){
			"record move4 v6: resume": func(w *world) { w.reboot(w.nodes[1]) }}},
		"crash-after-move": {end: "moved", on: map[string]func(*world){
			"record move4 v7: end": func(w *world) { w.nodes[1].kill(w.nodes[1].all("pod3")[0]); w.crashed = true }}},
	}
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			s.opt.calm, s.opt.maxMoves = true, 1
			w := newWorld(1, s.opt)
			w.trace, w.loseAnswer, w.on = &strings.Builder{}, s.lose, map[string]func(){}
			for line, f := range s.on {
				w.on[line] = func() { f(w) }
			}
			w.play(func() {})
			if w.broken != "" {
				t.Error(w.broken)
			}
			if got := w.last().end(w); got != s.end {
				t.Errorf("%s, want %s", got, s.end)
			}
			golden(t, filepath.Join("testdata", name+".txt"), w.trace.String())
		})
	}
}

// play does everything in the order in which it was asked for.
func (w *world) play(each func()) {
	for turn := 0; turn < 400 && w.broken == "" && !w.quiet(); turn++ {
		for len(w.tasks) > 0 {
			t := w.tasks[0]
			w.tasks = w.tasks[1:]
			t.run()
			w.inspect()
			each()
		}
		for _, n := range w.nodes {
			w.kubelet(n)
			w.mend(n)
		}
		w.pages()
		w.controller()
		w.tick(w.nodes[turn%2])
		w.inspect()
	}
	w.inspectEnd()
}

// golden compares with a file, leaving out steps in which nothing was to be done.
func golden(t *testing.T, path, trace string) {
	t.Helper()
	var kept []string
	for _, line := range strings.Split(trace, "\n") {
		if !strings.HasSuffix(line, "tick  -> ") && !strings.HasSuffix(line, "seen  -> ") && !strings.HasSuffix(line, "refused") {
			kept = append(kept, strings.TrimRight(line, " ;"))
		}
	}
	got := strings.Join(kept, "\n")
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("transcript (-want +got), go test -run TestTranscripts -rewrite takes it over:\n%s", d)
	}
}
