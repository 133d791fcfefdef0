package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// stateRoot holds a directory for each lab: all that a lab leaves on disk.
func stateRoot() string {
	if d := os.Getenv("DROVER_LAB_DIR"); d != "" {
		return d
	}
	return "/var/lib/drover-lab"
}

// Of every network there is one for each family.
const (
	podNetworks     = "10.244.0.0/16,fd44::/48"
	serviceNetworks = "10.96.0.0/16,fd96::/112"
	apiServiceIP    = "10.96.0.1"
	apiPort         = "6443"
	prometheusPort  = "9090"
	// groupPrefix begins the names of a lab's cgroups; the lab's name follows.
	groupPrefix = "drover-lab-"
)

// machine is one of the lab's: the control plane, index 0, or a node, index 1 and up. All labs use
// the same addresses: each is a world of its own.
type machine struct {
	lab   string
	name  string
	index int
}

func (m machine) ip() string { return m.ips()[0] }

// ips are the machine's addresses: IPv4's, and IPv6's.
func (m machine) ips() []string {
	n := 2
	if m.index > 0 {
		n = 10 + m.index
	}
	return []string{fmt.Sprintf("10.77.0.%d", n), fmt.Sprintf("fd77::%d", n)}
}

// podRanges are those of the addresses of a node's pods, as ips are.
func (m machine) podRanges() []string {
	return []string{fmt.Sprintf("10.244.%d.0/24", m.index), fmt.Sprintf("fd44:0:0:%d::/64", m.index)}
}

func (m machine) mac() string  { return fmt.Sprintf("02:44:52:00:00:%02x", m.index) }
func (m machine) dir() string  { return filepath.Join(stateRoot(), m.lab, "machines", m.name) }
func (m machine) logs() string { return filepath.Join(m.dir(), "log") }
func (m machine) upper(path string) string {
	return filepath.Join(m.dir(), "upper", path)
}
func (m machine) pidFile() string { return filepath.Join(m.dir(), "pid.json") }
func (m machine) control() string { return filepath.Join(stateRoot(), m.lab, "run", m.name+".sock") }

// pods is the node's cgroupRoot, daemons the cgroup of its own programs.
func (m machine) pods() string    { return "/" + groupPrefix + m.lab + "/" + m.name }
func (m machine) daemons() string { return "/" + groupPrefix + m.lab + "/_daemons/" + m.name }

// machines are the control plane and then the nodes, in the configuration's order.
func machines(c Config) []machine {
	all := []machine{{c.Name, ControlPlane, 0}}
	for i, n := range c.Nodes {
		all = append(all, machine{c.Name, n.Name, i + 1})
	}
	return all
}
