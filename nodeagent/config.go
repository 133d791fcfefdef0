// Package nodeagent is drover-agent: on every node it measures, tells the others, decides,
// and moves pods. The parts are packages of their own; this one wires them.
package nodeagent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"k8s.io/client-go/rest"

	"github.com/drover-project/drover/internal/filetree"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/pressure"
	"github.com/drover-project/drover/nodeagent/decide"
)

// Mode is what the agent does about contention.
type Mode string

// The modes.
const (
	// Observe: say what would be moved and why; move nothing.
	Observe Mode = "observe"
	// Act: order the move.
	Act Mode = "act"
)

// Ports of an agent, on its node's addresses. Those of gossip, transfer and probes are
// constants of their packages.
const (
	MetricsPort = 7949
	// StatusPort is on loopback alone: kubectl-drover comes by port-forward.
	StatusPort = 7950
)

// Config of an agent. All fields are wanted.
type Config struct {
	Node string
	// Namespace that Drover is installed in, and the UID of the agent's own pod.
	Namespace, PodUID string
	// Address is the node's own, by which agents reach each other.
	Address netip.Addr
	Mode    Mode
	// GossipKeyFile holds the keys that encrypt gossip's packets, CAFile the certificates of
	// Drover's CA.
	GossipKeyFile, CAFile string
	// Layout is where the node's files are, HostRoot where the host's root is seen.
	Layout   layout.Layout
	HostRoot string
	// ImageMemory is how much memory the images of moves may take ("50%", "8G"); ImageDir a
	// directory of the node, on an encrypted file system, to keep them in instead; or empty.
	ImageMemory, ImageDir string
	// LazyFrom is from how much memory on a copy runs before all of it is loaded; 0: never.
	LazyFrom model.Bytes
	// Files are the limits of each volume, and of a container's own file system, that travels.
	Files filetree.Limits
	// PinDir is a directory in a BPF file system, where what measures outlives the agent; or
	// empty.
	PinDir string
	// Program is drover-runc's path on the node, Runc the real runtime's.
	Program, Runc string

	// Precopy: memory is read and sent before a pod is frozen.
	Precopy bool
	// DirtyTracking: where the kernel tracks which pages are written to, CRIU writes memory in rounds
	// before a pod is frozen. Precopy is wanted, too.
	DirtyTracking bool
	// RouteXDP asks for probes to be turned round by XDP: docs/route-times.md says what it costs.
	RouteXDP bool

	Params     placement.Params
	Thresholds pressure.Thresholds
	Decide     decide.Config

	Kubernetes *rest.Config
	Log        *slog.Logger
}

// Validate says everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Node == "" {
		errs = append(errs, errors.New("the node's name is empty: set --node-name or NODE_NAME"))
	}
	if !c.Address.IsValid() {
		errs = append(errs, errors.New("the node's address is missing: set --address or NODE_IP"))
	}
	if c.Files.Bytes < 0 || c.Files.Entries < 1 {
		errs = append(errs, fmt.Errorf("limits of files: %d bytes and %d of them, want 0 and 1 at least: set --files-mib and --files-count", c.Files.Bytes, c.Files.Entries))
	}
	if c.Mode != Observe && c.Mode != Act {
		errs = append(errs, fmt.Errorf("mode %q: want %q or %q", c.Mode, Observe, Act))
	}
	if p := c.Params.Problem(); p != "" {
		errs = append(errs, errors.New(p))
	}
	return errors.Join(append(errs, c.Thresholds.Validate(), c.Decide.Validate())...)
}

// publishInterval is how often a node tells its state, decideInterval how often it decides.
const (
	publishInterval = time.Second
	decideInterval  = time.Second
)
