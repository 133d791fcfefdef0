package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/drover-project/drover/hack/lab/cache"
)

// DefaultName is the lab's name where none is given.
const DefaultName = "drover"

// Config is what a lab is to be. The zero value, with Default, is three equal nodes.
type Config struct {
	Name  string `json:"name,omitempty"`
	Nodes []Node `json:"nodes,omitempty"`
	Links []Link `json:"links,omitempty"`
	// PodNetwork is how a node's pods are connected; "" is Bridge.
	PodNetwork PodNetwork `json:"podNetwork,omitempty"`

	// Report shows progress; nil shows nothing.
	Report cache.Report `json:"-"`
}

// PodNetwork is the CNI plugin that connects a node's pods.
type PodNetwork string

const (
	// Bridge has all pods of a node on one bridge.
	Bridge PodNetwork = "bridge"
	// PTP gives each pod a pair of devices of its own, and the node a route to it by that: pods reach
	// each other by their node alone.
	PTP PodNetwork = "ptp"
)

// Node is one worker of the cluster.
type Node struct {
	Name string `json:"name"`
	// Speed is the CPU time its pods may use, in cores; 0 is all the machine has.
	Speed  float64           `json:"speed,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Disks are folders that are file systems of their own, of so many MiB: they can be filled
	// without filling the machine.
	Disks map[string]int `json:"disks,omitempty"`
}

// Link is the one-way delay between two nodes, or between a node and the control plane ("cp");
// negative: nothing passes. Pairs that are not named have none.
type Link struct {
	A     string          `json:"a"`
	B     string          `json:"b"`
	Delay metav1.Duration `json:"delay"`
}

// ControlPlane is the name of the machine that etcd, the API server and Prometheus run on; it is
// not a node of the cluster.
const ControlPlane = "cp"

// LoadConfig reads a YAML file; keys it does not know are errors.
func LoadConfig(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read lab configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return c, fmt.Errorf("read lab configuration %s: %w", path, err)
	}
	return c, nil
}

// Default fills in what was left out.
func (c Config) Default() Config {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if len(c.Nodes) == 0 {
		c.Nodes = []Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}
	}
	if c.PodNetwork == "" {
		c.PodNetwork = Bridge
	}
	if c.Report == nil {
		c.Report = func(string, ...any) {}
	}
	return c
}

// nameRule: a DNS label, short enough for unix sockets' paths.
var nameRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?$`)

const (
	maxNodes = 100
	maxSpeed = 1024
	maxDelay = 10 * time.Second
)

// Validate tells everything that is wrong with a Config to which Default was applied.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := checkName(c.Name); err != nil {
		bad("name: %w", err)
	}
	if c.PodNetwork != Bridge && c.PodNetwork != PTP {
		bad("podNetwork %q: want %q or %q", c.PodNetwork, Bridge, PTP)
	}
	if len(c.Nodes) > maxNodes {
		bad("%d nodes: at most %d", len(c.Nodes), maxNodes)
	}
	ports := map[string]bool{ControlPlane: true}
	for i, n := range c.Nodes {
		if err := checkName(n.Name); err != nil {
			bad("nodes[%d]: name: %w", i, err)
		}
		if n.Name == ControlPlane {
			bad("nodes[%d]: name %q is the control plane's", i, n.Name)
		} else if ports[n.Name] {
			bad("nodes[%d]: name %q is taken", i, n.Name)
		}
		ports[n.Name] = true
		if err := checkSpeed(n.Speed); err != nil {
			bad("node %s: %w", n.Name, err)
		}
		for path, mib := range n.Disks {
			if !filepath.IsAbs(path) || mib < 1 {
				bad("node %s: disk %q of %d MiB: want an absolute path and at least 1 MiB", n.Name, path, mib)
			}
		}
	}
	for i, l := range c.Links {
		switch {
		case !ports[l.A]:
			bad("links[%d]: no node %q", i, l.A)
		case !ports[l.B]:
			bad("links[%d]: no node %q", i, l.B)
		case l.A == l.B:
			bad("links[%d]: from %q to itself", i, l.A)
		case l.Delay.Duration > maxDelay:
			bad("links[%d]: delay %s: at most %s", i, l.Delay.Duration, maxDelay)
		}
	}
	return errors.Join(errs...)
}

func checkName(name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("%q is not a DNS label of at most 30 characters (a-z, 0-9, -)", name)
	}
	return nil
}

func checkSpeed(cores float64) error {
	if !(cores >= 0 && cores <= maxSpeed) { // NaN too
		return fmt.Errorf("speed %g: 0 (no limit) to %d cores", cores, maxSpeed)
	}
	if cores > 0 && cores < 0.01 {
		return fmt.Errorf("speed %g: at least 0.01 cores", cores)
	}
	return nil
}
