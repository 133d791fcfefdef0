package boot

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/hack/lab/detach"
)

// argv0 is how ps shows a node, and how the init function below knows that it is one. The lab's
// name is the second argument, the node's the third.
const argv0 = "drover-lab-node"

func init() {
	if len(os.Args) != 4 || os.Args[0] != argv0 {
		return
	}
	if err := run(os.Args[3]); err != nil {
		fmt.Fprintf(os.Stderr, "node %s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Start starts the node: a process with its own mount, network, pid, uts and ipc namespaces that
// outlives the caller. specPath is where the spec is kept; it is written first. The files become
// descriptors 3, 4, ... (see Forward). The caller must Wait for the process or end before it.
func Start(s *Spec, specPath string, files ...*os.File) (*os.Process, error) {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", s.Node, err)
	}
	if err := os.WriteFile(specPath, b, 0o600); err != nil {
		return nil, fmt.Errorf("start node %s: %w", s.Node, err)
	}
	if err := os.MkdirAll(s.Logs, 0o755); err != nil {
		return nil, fmt.Errorf("start node %s: %w", s.Node, err)
	}
	log, err := os.OpenFile(filepath.Join(s.Logs, "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", s.Node, err)
	}
	defer log.Close()
	cmd, err := detach.Command(log, argv0, s.Lab, s.Node, specPath)
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", s.Node, err)
	}
	cmd.ExtraFiles = files
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node %s: %w", s.Node, err)
	}
	return cmd.Process, nil
}

// run is a node's life. It returns only if the node cannot be made.
func run(specPath string) error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	s, err := readSpec(specPath)
	if err != nil {
		return err
	}
	tree, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if err := tree.Join(s.Cgroup, s.CgroupExcept...); err != nil {
		return err
	}
	_ = os.Remove(s.Control) // left by the node's life before this one
	control, err := net.Listen("unix", s.Control)
	if err != nil {
		return fmt.Errorf("make control socket: %w", err)
	}
	control.(*net.UnixListener).SetUnlinkOnClose(false)
	plug, err := connectNetwork(s)
	if err != nil {
		return err
	}
	defer plug.Close() // the switch unplugs the node when this connection ends
	super, err := newSupervisor(s)
	if err != nil {
		return err
	}
	if err := makeRoot(s); err != nil {
		return err
	}
	for _, f := range s.Forwards {
		if err := forward(f); err != nil {
			return err
		}
	}
	go serveControl(control, super)
	super.run()
	return nil
}
