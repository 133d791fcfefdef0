package checkpoint

import (
	"path/filepath"
	"testing"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/runtimeapi"
)

// TestHoldOfOthers: kubelet's checkpoint API, or ctr, on a container that Drover has once
// dumped finds CRIU's options file that names Drover's script.
func TestHoldOfOthers(t *testing.T) {
	l := layout.Layout{Run: t.TempDir(), State: t.TempDir()}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	d := New(Config{Layout: l})
	for images, want := range map[string]struct{ proceed, fails bool }{
		"/var/lib/kubelet/checkpoints/x/images":      {proceed: true},
		filepath.Join(l.Dumps(), "m-2", "images"):    {}, // undone before it came here
		filepath.Join(l.Dumps(), "m-2", "work"):      {fails: true},
		filepath.Join(l.Dumps(), "m-2", "x", "y"):    {fails: true},
		filepath.Join(l.Images(), "m-2", "images"):   {fails: true},
		filepath.Join(l.State+"-old", "m", "images"): {proceed: true},
	} {
		proceed, err := d.Hold(t.Context(), runtimeapi.Hold{ImageDir: images, InitPID: 1})
		if proceed != want.proceed || (err != nil) != want.fails {
			t.Errorf("%s: got %v, %v, want %+v", images, proceed, err, want)
		}
	}
}
