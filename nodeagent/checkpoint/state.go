package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-project/drover/internal/criu"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/netlock"
	"github.com/drover-project/drover/internal/process"
)

// state is what Drover needs of runc's state.json (libcontainer.State).
type state struct {
	InitPID int `json:"init_process_pid"`
	Config  struct {
		// Labels are the bundle's annotations as key=value, and some more.
		Labels []string `json:"labels"`
	} `json:"config"`
}

// state returns nil when runc does not know the container.
func (d *Dumps) state(id string) (*state, error) {
	if err := layout.ValidContainerID(id); err != nil {
		return nil, err
	}
	var s state
	ok, err := layout.ReadNote(filepath.Join(d.cfg.HostRoot, d.cfg.Root, id, "state.json"), &s)
	if !ok {
		return nil, err
	}
	return &s, nil
}

func (s *state) labelled(key, value string) bool {
	return slices.Contains(s.Config.Labels, key+"="+value)
}

// unlockNetwork removes what a CRIU that died has left in the container's network.
func (d *Dumps) unlockNetwork(init process.Process) error {
	if !init.Alive() {
		return nil
	}
	err := netlock.Clear("/proc/" + strconv.Itoa(init.PID) + "/ns/net")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has ended since
	}
	return err
}

// why says in one line how a dump ended that never came to its hold, or a round that failed: run is
// where it was started, log is CRIU's.
func why(run, log string, exit hosted.Exit, ok bool) string {
	var parts []string
	switch {
	case !ok:
		parts = append(parts, "runc was killed")
	case exit.Error != "":
		parts = append(parts, "runc checkpoint: "+exit.Error)
	case exit.Code == 0:
		parts = append(parts, "runc checkpoint ended without asking; is CRIU's action script installed?")
	default:
		parts = append(parts, fmt.Sprintf("runc checkpoint: exit code %d", exit.Code))
	}
	reason := criu.Errors(log)
	if reason == "" {
		reason = strings.ReplaceAll(hosted.Output(run, 400), "\n", "; ")
	}
	if reason != "" {
		parts = append(parts, reason)
	}
	return strings.Join(parts, ": ")
}
