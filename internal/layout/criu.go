package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/passthrough"
)

// FrozenFile, in a dump's directory, is made by the action script when the
// processes have been stopped; its time is the beginning of the frozen time.
const FrozenFile = "frozen"

// PartNote is the file about the container of a dump, of which the images are in the directory images.
func PartNote(images string) string {
	return filepath.Join(filepath.Dir(filepath.Dir(images)), "parts", filepath.Base(images), "container")
}

// GhostLimit is how large an open file without a name may be, in bytes: CRIU carries its content
// in the images.
const GhostLimit = 64 << 20

// Connections says what becomes of a container's established TCP connections.
type Connections bool

// Close is for pods whose address does not travel; Keep needs a network that is held
// throughout, and at a restore the address.
const (
	Close Connections = false
	Keep  Connections = true
)

// Lazily is an option of CRIU's for a restore that leaves memory to the daemon behind LazySocket.
const Lazily = "lazy-pages"

// WriteCriuConfig writes the options with which runc calls CRIU for this container, for a
// dump and for a restore, and more of them. hook is the action script's path on the node.
func (l Layout) WriteCriuConfig(id, hook string, c Connections, more ...string) error {
	if err := ValidContainerID(id); err != nil {
		return err
	}
	if err := os.MkdirAll(l.criu(), 0o700); err != nil {
		return err
	}
	connections := "tcp-close\n"
	if c == Keep {
		connections = "tcp-established\n"
	}
	options := "action-script " + hook + "\n" + connections +
		// Closed are in any case those that wait in a listening socket's queue: a busy process has some.
		"skip-in-flight\n" +
		// The lock would keep packets from connections that travel. Where they do, the address is
		// held (package address); else it would only drop those of processes that go on because
		// CRIU was killed in the middle of a dump.
		"network-lock skip\n" +
		// Locks are held by the container's own processes, all of which travel.
		"file-locks\n" +
		// A file that is open by a name that it has lost, and has another, gets one for the time of
		// the move, which CRIU takes away again.
		"link-remap\n" +
		fmt.Sprintf("ghost-limit %d\n", GhostLimit)
	for _, o := range more {
		options += o + "\n"
	}
	if err := os.WriteFile(l.CriuConfig(id), []byte(options), 0o600); err != nil {
		return fmt.Errorf("write CRIU's options: %w", err)
	}
	return nil
}

// NoteConnections notes for drover-runc what becomes of connections at the restore of a
// container. It is the agent's word, for the images come from elsewhere.
func (l Layout) NoteConnections(id string, c Connections) error {
	if err := ValidContainerID(id); err != nil {
		return err
	}
	if c == Keep {
		if err := os.WriteFile(l.keeps(id), nil, 0o600); err != nil {
			return fmt.Errorf("note that connections are kept: %w", err)
		}
		return nil
	}
	if err := os.Remove(l.keeps(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note that connections are closed: %w", err)
	}
	return nil
}

// NotedConnections is what was noted. An error: it is not known.
func (l Layout) NotedConnections(id string) (Connections, error) {
	if err := ValidContainerID(id); err != nil {
		return Close, err
	}
	_, err := os.Stat(l.keeps(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Close, nil
	}
	return Keep, err
}

// EnsureHook makes sure that drover-runc can be called by the name of Hook, a link beside the program, and
// that CRIU's action script is there, which calls it so; it returns the script's path. CRIU runs it at every
// stage, and waits, with a pod that stands still: at most of them there is nothing to do, which a shell finds
// out sooner than the program begins.
func EnsureHook(program string) (string, error) {
	dir := filepath.Dir(program)
	err := os.Symlink(filepath.Base(program), filepath.Join(dir, Hook))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("install CRIU's action script: %w", err)
	}
	script := filepath.Join(dir, actionScript)
	if is, err := os.ReadFile(script); err == nil && string(is) == stages {
		return script, nil
	}
	if err := durable.WriteFile(script, []byte(stages), 0o755); err != nil {
		return "", fmt.Errorf("install CRIU's action script: %w", err)
	}
	return script, nil
}

// actionScript is beside the program.
const actionScript = "drover-criu-script"

// stages calls the Hook at those stages that matter.
var stages = fmt.Sprintf(`#!/bin/sh
case "$CRTOOLS_SCRIPT_ACTION" in
%s) exec "${0%%/*}/%s" ;;
esac
`, strings.Join(passthrough.Stages, " | "), Hook)

// OwnImages tells whether dir, an absolute path without symbolic links, is where Drover keeps
// images. CRIU also calls Drover's action script when somebody else checkpoints a container
// that Drover has once dumped or restored (kubelet's checkpoint API, ctr): such a dump is
// never held. An error: it is not known.
func (l Layout) OwnImages(dir string) (bool, error) {
	for _, own := range []string{l.Vault(), l.Images(), l.Dumps()} {
		own, err := filepath.EvalSymlinks(own)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("tell whether the images in %s are Drover's: %w", dir, err)
		}
		if own, err = filepath.Abs(own); err != nil {
			return false, fmt.Errorf("tell whether the images in %s are Drover's: %w", dir, err)
		}
		if dir == own || strings.HasPrefix(dir, own+string(filepath.Separator)) {
			return true, nil
		}
	}
	return false, nil
}

// RoundDir is the directory of a round that CRIU writes of a container's memory while it runs, counted
// from 1: beside that of the container's images.
func RoundDir(images string, n int) string { return images + "." + strconv.Itoa(n) }

// MostRounds is how many rounds a container may have.
const MostRounds = 8

// Round tells which container's a directory is, and which of its rounds, if it is that of one.
func Round(name string) (container string, n int, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return "", 0, false
	}
	n, err := strconv.Atoi(name[i+1:])
	if err != nil || n < 1 || n > MostRounds || RoundDir(name[:i], n) != name {
		return "", 0, false
	}
	return name[:i], n, true
}

// LackingImage is written beside CRIU's images where those may lack memory, with a word in it if they lack none:
// agents that know nothing of that, and so never say that a copy is loaded, refuse a dump with an image of this name.
const LackingImage = "lacking.img"

// Lack tells whether images lack memory, by what their directory says.
func Lack(images string) (bool, error) {
	info, err := os.Stat(filepath.Join(images, LackingImage))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Size() == 0, err
}
