package chaos

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/internal/layout"
)

// fault is one way to break a move.
type fault struct {
	name string
	// from and to are the steps between which there is something to break.
	from, to step
	strike   func(context.Context, *scene) error
	cuts     bool // it cuts a link
	// heal undoes it after it has lasted; nil: it comes back by itself.
	heal  func(context.Context, *scene) error
	lasts time.Duration
}

// outage is how long what is cut off, away or full stays so: longer than the agents' pauses
// between two tries and than a lost call takes to be tried again, shorter than the minutes
// after which a move is given up.
const outage = 6 * time.Second

// What faults strike, by its name on the nodes.
var (
	agent      = program("drover-agent")
	controller = program("drover-controller")
	containerd = program("containerd")
	kubelet    = program("kubelet")
	wrapper    = program("drover-runc", "create")
)

var faults = []fault{
	{name: "source's agent killed", to: handedOver, strike: kill(onSource, agent)},
	{name: "target's agent killed", to: handedOver, strike: kill(onTarget, agent)},
	{name: "controller killed", to: handedOver, strike: kill(onThird, controller)},
	{name: "CRIU killed on the source", from: frozen, to: starting, strike: kill(onSource, criu)},
	{name: "CRIU killed on the target", from: restored, to: starting, strike: kill(onTarget, criu)},
	{name: "runc killed on the source", from: frozen, to: starting, strike: kill(onSource, program("runc", "checkpoint"))},
	{name: "runc killed on the target", from: sent, to: starting, strike: kill(onTarget, program("runc", "restore"))},
	{name: "drover-runc killed on the target", from: createWaiting, to: starting, strike: kill(onTarget, wrapper)},
	{name: "containerd killed on the source", to: handedOver, strike: kill(onSource, containerd)},
	{name: "containerd killed on the target", to: handedOver, strike: kill(onTarget, containerd)},
	{name: "kubelet killed on the source", to: handedOver, strike: kill(onSource, kubelet)},
	{name: "kubelet killed on the target", to: handedOver, strike: kill(onTarget, kubelet)},
	{name: "API server away", to: handedOver, strike: stopAPIServer, heal: startAPIServer, lasts: outage},
	{name: "no link between the nodes", to: handedOver, cuts: true, strike: cut(onSource, onTarget), heal: mend, lasts: outage},
	{name: "no link source to API server", to: handedOver, cuts: true, strike: cut(onSource, onControl), heal: mend, lasts: outage},
	{name: "no link target to API server", to: handedOver, cuts: true, strike: cut(onTarget, onControl), heal: mend, lasts: outage},
	{name: "frames lost, 1 in 20", to: handedOver, strike: lose(0.05), heal: lose(0), lasts: 2 * outage},
	{name: "source's disk full", to: handedOver, strike: fill(onSource), heal: empty(onSource), lasts: outage},
	{name: "target's disk full", to: handedOver, strike: fill(onTarget), heal: empty(onTarget), lasts: outage},
	{name: "source node restarted", to: handedOver, strike: restart(onSource), heal: ready(onSource)},
	{name: "target node restarted", to: handedOver, strike: restart(onTarget), heal: ready(onTarget)},
}

// where picks one of the scene's machines.
type where func(*scene) string

func onSource(s *scene) string { return s.source.name }
func onTarget(s *scene) string { return s.target.name }
func onThird(*scene) string    { return third }
func onControl(*scene) string  { return lab.ControlPlane }

// program picks the processes of a program, with that word among its arguments if one is given.
func program(name string, word ...string) func([]lab.Process) []lab.Process {
	return func(all []lab.Process) []lab.Process {
		return slices.DeleteFunc(slices.Clone(all), func(p lab.Process) bool {
			return p.Program() != name || len(word) > 0 && !slices.Contains(p.Args, word[0])
		})
	}
}

// criu picks CRIU itself, not what it has forked to become the restored processes.
func criu(all []lab.Process) []lab.Process {
	found := program("criu")(all)
	return slices.DeleteFunc(slices.Clone(found), func(p lab.Process) bool {
		return slices.ContainsFunc(found, func(o lab.Process) bool { return o.PID == p.Parent })
	})
}

// errNothing: what the fault was to strike was not there.
var errNothing = errors.New("there was nothing to strike")

func kill(on where, pick func([]lab.Process) []lab.Process) func(context.Context, *scene) error {
	return func(_ context.Context, s *scene) error {
		all, err := s.lab.Processes(on(s))
		if err != nil {
			return err
		}
		victims := pick(all)
		if len(victims) == 0 {
			return fmt.Errorf("kill on %s: %w", on(s), errNothing)
		}
		for _, p := range victims {
			if err := p.Signal(unix.SIGKILL); err != nil {
				return fmt.Errorf("%w: %w", errNothing, err)
			}
		}
		return nil
	}
}

func stopAPIServer(ctx context.Context, s *scene) error  { return s.lab.StopAPIServer(ctx) }
func startAPIServer(ctx context.Context, s *scene) error { return s.lab.StartAPIServer(ctx) }

func cut(a, b where) func(context.Context, *scene) error {
	return func(ctx context.Context, s *scene) error { return s.lab.SetDelay(ctx, a(s), b(s), -1) }
}

// links are those that a scene may cut or slow down; the witness's are left alone.
func (s *scene) links() [][2]string {
	return [][2]string{{s.source.name, s.target.name}, {s.source.name, lab.ControlPlane}, {s.target.name, lab.ControlPlane}}
}

// mend makes all links whole and quick.
func mend(ctx context.Context, s *scene) error {
	var errs []error
	for _, l := range s.links() {
		errs = append(errs, s.lab.SetDelay(ctx, l[0], l[1], 0))
	}
	return errors.Join(errs...)
}

func lose(rate float64) func(context.Context, *scene) error {
	return func(ctx context.Context, s *scene) error {
		var errs []error
		for _, l := range s.links() {
			errs = append(errs, s.lab.SetLoss(ctx, l[0], l[1], rate))
		}
		return errors.Join(errs...)
	}
}

// ballast are the files that fill what a node has for Drover: the disk with its fences and
// notes, the vault with the images.
func ballast(s *scene, on where) ([]string, error) {
	root, err := s.lab.Root(on(s))
	return []string{
		filepath.Join(root, layout.Default.State, "ballast"),
		filepath.Join(root, layout.Default.Vault(), "ballast"),
	}, err
}

// fill takes all the room that there is on the node for Drover's images, fences and notes.
func fill(on where) func(context.Context, *scene) error {
	return func(_ context.Context, s *scene) error {
		files, err := ballast(s, on)
		for _, f := range files {
			err = errors.Join(err, swell(f))
		}
		return err
	}
}

// swell makes a file that leaves no block free.
func swell(file string) error {
	fd, err := unix.Open(file, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("fill disk with %s: %w", file, err)
	}
	defer unix.Close(fd)
	size := int64(0)
	for piece := int64(1 << 30); piece >= 4<<10; {
		switch err := unix.Fallocate(fd, 0, size, piece); {
		case err == nil:
			size += piece
		case errors.Is(err, unix.ENOSPC):
			piece /= 2
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("fill disk with %s: %w", file, err)
		}
	}
	return nil
}

func empty(on where) func(context.Context, *scene) error {
	return func(_ context.Context, s *scene) error {
		files, err := ballast(s, on)
		for _, f := range files {
			err = errors.Join(err, unix.Unlink(f))
		}
		return err
	}
}

func restart(on where) func(context.Context, *scene) error {
	return func(ctx context.Context, s *scene) error {
		if err := s.lab.StopNode(ctx, on(s)); err != nil {
			return err
		}
		return s.lab.StartNode(on(s))
	}
}

func ready(on where) func(context.Context, *scene) error {
	return func(ctx context.Context, s *scene) error { return s.lab.WaitReady(ctx, on(s)) }
}
