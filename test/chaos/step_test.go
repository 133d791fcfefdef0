package chaos

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/layout"
)

// step is a point of a move at which a fault strikes.
type step int

// The steps of a good move, in their order.
const (
	accepted step = iota
	reserved
	createWaiting
	frozen
	dumped
	sent
	restored
	committed
	starting
	resumed
	sourceEnded
	handedOver
)

var steps = []step{accepted, reserved, createWaiting, frozen, dumped, sent, restored, committed, starting, resumed, sourceEnded, handedOver}

func (s step) String() string {
	return [...]string{"Accepted", "Reserved", "CreateWaiting", "Frozen", "Dumped", "Sent", "Restored",
		"Committed", "Starting", "Resumed", "SourceEnded", "HandedOver"}[s]
}

// recorded tells whether the record shows the step. What the agents write down later, with the
// next change of the record, the nodes show at once: see shown.
func (s step) recorded(m *v1alpha1.PodMigration) bool {
	st := &m.Status
	switch s {
	case accepted:
		return st.Epoch > 0
	case reserved:
		return st.Target.Node != ""
	case createWaiting:
		return st.Target.Waiting
	case committed:
		return st.Decision == v1alpha1.Commit
	case starting:
		return st.Target.Starting
	case resumed:
		return st.Target.Resumed
	case sourceEnded:
		return st.Source.Ended
	case handedOver:
		return st.HandedOver
	}
	return false
}

// shown tells whether the nodes show the step: CRIU's script has made the file that says so,
// the agent has frozen the control group, the images are whole, the copy is held.
func (s step) shown(c *scene) bool {
	switch s {
	case frozen:
		return exists(c.source.root, layout.Default.Dumps(), "*", layout.FrozenFile)
	case dumped:
		// CRIU thaws what it froze before it makes that file.
		return frozen.shown(c) && c.source.holds(string(c.pod.UID))
	case sent:
		for _, dir := range glob(c.target.root, layout.Default.Images(), "*") {
			if !strings.HasSuffix(dir, ".partial") {
				return true
			}
		}
	case restored:
		for _, f := range glob(c.target.root, layout.Default.Run, "restores", "*.json") {
			var note struct{ Stage string }
			if ok, err := layout.ReadNote(f, &note); ok && err == nil && note.Stage == "held" {
				return true
			}
		}
	}
	return false
}

func glob(path ...string) []string {
	found, _ := filepath.Glob(filepath.Join(path...)) // the pattern is ours
	return found
}

func exists(path ...string) bool { return len(glob(path...)) > 0 }

// holds tells whether a control group of the pod is frozen.
func (n place) holds(podUID string) bool {
	for file, state := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
		for _, h := range []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup"} {
			// kubepods, then the class unless it is "guaranteed", then pod, then container
			for _, class := range []string{"kubepods", "kubepods/*"} {
				for _, f := range glob(h, n.pods, class, "pod"+podUID, "*", file) {
					if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == state {
						return true
					}
				}
			}
		}
	}
	return false
}
