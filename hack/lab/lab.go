// Package lab brings up a real Kubernetes of several nodes on one machine: etcd, an API server, a
// controller manager, a scheduler and a Prometheus in one place, and kubelet, containerd, runc,
// CRIU and kube-proxy on nodes that have namespaces of their own. Between them lies a switch whose
// links have delays. Nothing of it shows on the machine outside: no route, no interface, no mount.
//
// It needs root, and Go with this module's source to build what is not in the cache yet.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/hack/lab/netns"
)

// Lab is a lab that runs, or ran. It is a handle: all of its state is on disk and in processes, so
// several handles of one lab may exist, also in different programs.
type Lab struct {
	Config Config
	tree   cgroup.Tree
	layers []string
}

// ErrNotUp means that there is no lab of that name.
var ErrNotUp = errors.New("not up")

// record is what Up leaves for later calls.
type record struct {
	Config   Config
	Layers   []string
	Ports    []string // on 127.0.0.1: the API server's, Prometheus's
	Complete bool     // Up came to its end
}

func (r record) save() error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := recordPath(r.Config.Name)
	if err := writeFile(path+".tmp", b); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func recordPath(name string) string { return filepath.Join(stateRoot(), name, "lab.json") }

// Open gives a handle of a lab that was brought up before, by any program.
func Open(name string) (*Lab, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	r, err := readRecord(name)
	if err != nil {
		return nil, err
	}
	tree, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	return &Lab{Config: r.Config, tree: tree, layers: r.Layers}, nil
}

func readRecord(name string) (record, error) {
	var r record
	b, err := os.ReadFile(recordPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("lab %s is %w", name, ErrNotUp)
	}
	if err != nil {
		return r, fmt.Errorf("read lab %s: %w", name, err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read lab %s: %w", name, err)
	}
	r.Config.Report = func(string, ...any) {}
	return r, nil
}

func (l *Lab) dir() string          { return filepath.Join(stateRoot(), l.Config.Name) }
func (l *Lab) switchSocket() string { return filepath.Join(l.dir(), "run", "switch") }
func (l *Lab) switchPID() string    { return filepath.Join(l.dir(), "switch.pid.json") }

// find gives a machine by its name.
func (l *Lab) find(name string) (machine, error) {
	for _, m := range machines(l.Config) {
		if m.name == name {
			return m, nil
		}
	}
	return machine{}, fmt.Errorf("lab %s has no node %q", l.Config.Name, name)
}

// namespace is the path of one of a machine's namespaces.
func (l *Lab) namespace(name, kind string) (string, error) {
	p, err := l.running(name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/ns/%s", p.PID, kind), nil
}

// running gives a machine's process 1; an error if it does not run.
func (l *Lab) running(name string) (process, error) {
	m, err := l.find(name)
	if err != nil {
		return process{}, err
	}
	p, err := loadProcess(m.pidFile())
	if err != nil {
		return process{}, err
	}
	if !p.alive() {
		return process{}, fmt.Errorf("%s of lab %s does not run", name, l.Config.Name)
	}
	return p, nil
}

// Address is a machine's address on the switch: a node's, or the control plane's ("cp").
func (l *Lab) Address(name string) (string, error) {
	m, err := l.find(name)
	if err != nil {
		return "", err
	}
	return m.ip(), nil
}

// DialContext connects from where the control plane is: to the API server, a node, a pod. The
// address is IP:port.
func (l *Lab) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ns, err := l.namespace(ControlPlane, "net")
	if err != nil {
		return nil, err
	}
	return netns.Dial(ctx, ns, network, address)
}

// Listen listens where the control plane is, at its Address(ControlPlane): pods can connect there.
func (l *Lab) Listen(network, address string) (net.Listener, error) {
	ns, err := l.namespace(ControlPlane, "net")
	if err != nil {
		return nil, err
	}
	return netns.Listen(ns, network, address)
}

// ListenPacket is Listen for datagrams.
func (l *Lab) ListenPacket(network, address string) (net.PacketConn, error) {
	ns, err := l.namespace(ControlPlane, "net")
	if err != nil {
		return nil, err
	}
	return netns.ListenPacket(ns, network, address)
}

// Kubeconfig is the path of the administrator's kubeconfig, which leads to the API server through
// a port on 127.0.0.1.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.dir(), "kubeconfig") }

// RESTConfig is the administrator's. It leads through the port on 127.0.0.1: exec and port-forward
// do not heed a Config's Dial.
func (l *Lab) RESTConfig() (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig of lab %s: %w", l.Config.Name, err)
	}
	c.QPS, c.Burst = 500, 1000
	return c, nil
}

// Client is a client made of RESTConfig.
func (l *Lab) Client() (*kubernetes.Clientset, error) {
	c, err := l.RESTConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(c)
}
