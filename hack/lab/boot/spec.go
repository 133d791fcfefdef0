// Package boot is what runs as process 1 of a lab's node: it gives the node its root file system,
// its network and its programs, and keeps them running.
//
// Any program that imports the package can be a node: Start starts the running executable again
// under another name in new namespaces, and the package's init function takes over there.
package boot

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Spec is all that a node is made of. Host paths are as seen before the node has its own root.
type Spec struct {
	Lab  string
	Node string // its host name

	Lower []string          // host directories, the topmost first, that make its root, read-only
	Dir   string            // host directory with upper, work and root in it
	Binds map[string]string // path in the node: host directory that is mounted there
	Disks map[string]string // path in the node: host file that holds an ext4 file system
	Logs  string            // host directory: <service>.log

	Control   string // host path of the unix socket made for Ask
	Fabric    string // host path of the switch's unix socket
	MAC       string
	Addresses []string // of eth0, with their prefix lengths
	Routes    []Route

	Cgroup       string   // joined by process 1 and its services
	CgroupExcept []string // v1 controllers whose hierarchies are not joined

	Forwards []Forward
	Services []Service
}

// Route leads to a network through one of the switch's other ports.
type Route struct {
	To  string // prefix
	Via string // address
}

// Forward carries TCP connections that come in on an inherited listening socket (of the network
// namespace the node was started from) to an address in the node.
type Forward struct {
	FD int
	To string
}

// Service is one program of a node.
type Service struct {
	Name  string
	Argv  []string
	After []Condition
	// Once: it runs to its end and is not started again.
	Once bool
}

// Condition is what a service waits for; exactly one field is set.
type Condition struct {
	Unix string // a unix socket that accepts
	TCP  string // an address that accepts
	TLS  *Probe // an HTTPS request answered with 200
	Done string // a Once service that has ended well
}

// Probe is an HTTPS GET; the files are paths in the node.
type Probe struct {
	URL           string
	CA, Cert, Key string
}

func readSpec(path string) (*Spec, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read node: %w", err)
	}
	var s Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read node %s: %w", path, err)
	}
	return &s, s.check()
}

func (s *Spec) check() error {
	for _, p := range append([]string{s.Dir, s.Logs, s.Control, s.Fabric}, s.Lower...) {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("node %s: path %q is not absolute", s.Node, p)
		}
	}
	if _, err := net.ParseMAC(s.MAC); err != nil {
		return fmt.Errorf("node %s: %w", s.Node, err)
	}
	return nil
}
