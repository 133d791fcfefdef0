package layout

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// CRIU's action script calls the program by the name of Hook at the stages that matter, and hands on how it
// ends; at all others it is content. What is there of another version is written anew.
func TestActionScript(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "drover-runc")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ntest \"${0##*/}\" = "+Hook+" && exit 3\nexit 4\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, actionScript), []byte("#!/bin/sh\nexit 5\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		script, err := EnsureHook(program)
		if err != nil {
			t.Fatal(err)
		}
		for stage, want := range map[string]int{
			"pre-dump": 3, "post-dump": 3, "pre-resume": 3,
			"network-lock": 0, "pre-restore": 0, "setup-namespaces": 0, "post-setup-namespaces": 0, "post-restore": 0, "network-unlock": 0, "post-resume": 0, "": 0,
		} {
			cmd := exec.Command(script)
			cmd.Env = []string{"CRTOOLS_SCRIPT_ACTION=" + stage}
			if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
				t.Errorf("at %q: %v, want exit code %d", stage, err, want)
			}
		}
	}
}
