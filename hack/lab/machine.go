package lab

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/drover-project/drover/hack/lab/boot"
	"github.com/drover-project/drover/hack/lab/cache"
)

const containerdSocket = "/run/containerd/containerd.sock"

// spec is what all machines have in common.
func (m machine) spec(all []machine, layers []string, switchSocket string) *boot.Spec {
	s := &boot.Spec{
		Lab: m.lab, Node: m.name, Lower: layers, Dir: m.dir(), Logs: m.logs(),
		Control: m.control(), Fabric: switchSocket,
		MAC: m.mac(), Addresses: []string{m.ips()[0] + "/24", m.ips()[1] + "/64"},
		Cgroup: m.daemons(),
		// In cgroup v1 the daemons' memory stays accounted to whoever started the lab.
		CgroupExcept: []string{"memory"},
		Binds:        map[string]string{"/var/log/drover-lab": m.logs()},
	}
	for _, other := range all {
		if other.index == 0 || other == m {
			continue
		}
		for i, pods := range other.podRanges() {
			s.Routes = append(s.Routes, boot.Route{To: pods, Via: other.ips()[i]})
		}
	}
	return s
}

// everywhere are all addresses, by family.
var everywhere = []string{"0.0.0.0/0", "::/0"}

// realDirs are those of a node that cannot lie on an overlay: containerd and kubelet put overlays
// and mounts into them.
var realDirs = []string{"/var/lib/containerd", "/var/lib/kubelet", "/var/log/pods"}

func nodeSpec(m machine, pods PodNetwork, all []machine, layers []string, switchSocket string) *boot.Spec {
	s := m.spec(all, layers, switchSocket)
	for _, d := range realDirs {
		s.Binds[d] = filepath.Join(m.dir(), "disk", strings.ReplaceAll(d[1:], "/", "-"))
	}
	s.Disks = m.disks()
	conf := func(name string) string { return filepath.Join(kubernetesDir, name) }
	ready := boot.Condition{TLS: &boot.Probe{
		URL: serverOf(all[0]) + "/readyz", CA: conf("ca.crt"), Cert: conf("kubelet.crt"), Key: conf("kubelet.key"),
	}}
	// Only what has a route gets as far as kube-proxy's rules; the control plane then says of all
	// that is not in the lab that it cannot be reached, at once.
	for i, to := range everywhere {
		s.Routes = append(s.Routes, boot.Route{To: to, Via: all[0].ips()[i]})
	}
	s.Services = []boot.Service{
		{Name: "containerd", Argv: []string{"containerd"}},
		{
			Name: "pause-image", Once: true,
			// By its digest, too: Drover holds addresses with it.
			Argv:  []string{"ctr", "-n", "k8s.io", "images", "import", "--local", "--base-name", cache.PauseName, "--digests", cache.PauseTar},
			After: []boot.Condition{{Unix: containerdSocket}},
		},
		{
			Name: "kubelet",
			Argv: []string{"kubelet", "--config", conf("kubelet.yaml"), "--kubeconfig", conf("kubelet.conf"),
				"--hostname-override", m.name, "--node-ip", strings.Join(m.ips(), ",")},
			After: []boot.Condition{{Done: "pause-image"}, ready},
		},
		{
			Name:  "kube-proxy",
			Argv:  []string{"kube-proxy", "--config", conf("kube-proxy.yaml")},
			After: []boot.Condition{ready},
		},
	}
	if _, err := os.Stat("/proc/sys/net/bridge"); pods == Bridge && err != nil {
		s.Services = append(s.Services, sameNodeServices(m)...)
	}
	return s
}

// sameNodeServices is for kernels without br_netfilter: there the answer of a pod to another on its
// own node would pass the bridge only, not the rules that undo a Service's address.
func sameNodeServices(m machine) (all []boot.Service) {
	for i, iptables := range []string{"iptables", "ip6tables"} {
		pods := m.podRanges()[i]
		all = append(all, boot.Service{Name: "same-node-services-" + iptables, Once: true, Argv: []string{
			iptables, "-w", "-t", "nat", "-A", "POSTROUTING", "-s", pods, "-d", pods,
			"-m", "conntrack", "--ctstate", "DNAT", "-j", "MASQUERADE",
		}})
	}
	return all
}

func controlPlaneSpec(m machine, all []machine, layers []string, switchSocket string) *boot.Spec {
	s := m.spec(all, layers, switchSocket)
	s.Binds["/var/lib/etcd"] = filepath.Join(m.dir(), "disk", "etcd")
	s.Binds["/var/lib/prometheus"] = filepath.Join(m.dir(), "disk", "prometheus")
	conf := func(name string) string { return filepath.Join(kubernetesDir, name) }
	api := net.JoinHostPort(m.ip(), apiPort)
	ready := boot.Condition{TLS: &boot.Probe{
		URL: "https://" + api + "/readyz", CA: conf("ca.crt"), Cert: conf("kubelet-client.crt"), Key: conf("kubelet-client.key"),
	}}
	s.Forwards = []boot.Forward{
		{FD: 3, To: api},
		{FD: 4, To: net.JoinHostPort(m.ip(), prometheusPort)},
	}
	s.Services = []boot.Service{
		{Name: "etcd", Argv: []string{"etcd", "--data-dir", "/var/lib/etcd/data", "--unsafe-no-fsync", "--log-level", "warn"}},
		{Name: "kube-apiserver", Argv: apiserverArgs(m, conf), After: []boot.Condition{{TCP: "127.0.0.1:2379"}}},
		{
			Name: "kube-controller-manager",
			Argv: []string{"kube-controller-manager", "--kubeconfig", conf("controller-manager.conf"),
				"--authentication-kubeconfig", conf("controller-manager.conf"), "--authorization-kubeconfig", conf("controller-manager.conf"),
				"--service-account-private-key-file", conf("service-accounts.key"), "--root-ca-file", conf("ca.crt"),
				"--use-service-account-credentials", "--leader-elect=false", "--bind-address", "127.0.0.1",
				"--tls-cert-file", conf("apiserver.crt"), "--tls-private-key-file", conf("apiserver.key"), // making its own takes a second
				// It asks for a token for each controller before it starts any.
				"--kube-api-qps", "500", "--kube-api-burst", "1000"},
			After: []boot.Condition{ready},
		},
		{
			Name: "kube-scheduler",
			Argv: []string{"kube-scheduler", "--kubeconfig", conf("scheduler.conf"),
				"--authentication-kubeconfig", conf("scheduler.conf"), "--authorization-kubeconfig", conf("scheduler.conf"),
				"--leader-elect=false", "--bind-address", "127.0.0.1",
				"--tls-cert-file", conf("apiserver.crt"), "--tls-private-key-file", conf("apiserver.key")},
			After: []boot.Condition{ready},
		},
		{
			Name: "prometheus",
			Argv: []string{"prometheus", "--config.file", conf("prometheus.yaml"), "--storage.tsdb.path", "/var/lib/prometheus/data",
				"--web.listen-address", net.JoinHostPort(m.ip(), prometheusPort), "--log.level", "warn"},
			After: []boot.Condition{ready},
		},
	}
	return s
}

func apiserverArgs(m machine, conf func(string) string) []string {
	return []string{"kube-apiserver",
		"--etcd-servers", "http://127.0.0.1:2379",
		"--advertise-address", m.ip(), "--bind-address", m.ip(), "--secure-port", apiPort,
		"--service-cluster-ip-range", serviceNetworks,
		"--client-ca-file", conf("ca.crt"), "--tls-cert-file", conf("apiserver.crt"), "--tls-private-key-file", conf("apiserver.key"),
		"--kubelet-certificate-authority", conf("ca.crt"),
		"--kubelet-client-certificate", conf("kubelet-client.crt"), "--kubelet-client-key", conf("kubelet-client.key"),
		"--kubelet-preferred-address-types", "InternalIP",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", conf("service-accounts.crt"), "--service-account-signing-key-file", conf("service-accounts.key"),
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--anonymous-auth=false", "--allow-privileged", "--profiling=false",
		// Nobody has that name: there is no aggregated API. Without these, controller manager and
		// scheduler log errors for ever.
		"--requestheader-client-ca-file", conf("ca.crt"), "--requestheader-allowed-names", "drover-lab-nobody",
		// No kube-proxy runs beside the API server: it reaches webhooks by their pods' addresses.
		"--enable-aggregator-routing",
	}
}

// prepareNode writes a node's own files.
func prepareNode(m machine, n Node, pods PodNetwork, all []machine, c *credentials) error {
	if err := prepareMachine(m, all); err != nil {
		return err
	}
	if err := c.forNode(m, all[0]); err != nil {
		return err
	}
	for path, mib := range n.Disks {
		if err := m.makeDisk(path, mib); err != nil {
			return fmt.Errorf("prepare node %s: %w", m.name, err)
		}
	}
	data := map[string]any{
		"PauseImage": cache.PauseImage, "PodRanges": m.podRanges(), "PodNetworks": podNetworks, "Everywhere": everywhere,
		"Node": m.name, "CgroupRoot": m.pods(), "Reserved": reserved(n.Speed, runtime.NumCPU()),
	}
	for name, path := range map[string]string{
		"containerd.toml":          "/etc/containerd/config.toml",
		string(pods) + ".conflist": "/etc/cni/net.d/10-lab.conflist",
		"kubelet.yaml":             kubernetesDir + "/kubelet.yaml",
		"kube-proxy.yaml":          kubernetesDir + "/kube-proxy.yaml",
	} {
		b, err := render(name, data)
		if err != nil {
			return err
		}
		if err := writeFile(m.upper(path), b); err != nil {
			return fmt.Errorf("prepare node %s: %w", m.name, err)
		}
	}
	return nil
}

// reserved is what kubelet has to hold back so that a node with that speed offers no more than it.
func reserved(speed float64, cpus int) string {
	if speed <= 0 || speed >= float64(cpus) {
		return ""
	}
	return fmt.Sprintf("%dm", int((float64(cpus)-speed)*1000))
}

func prepareControlPlane(m machine, all []machine, c *credentials) error {
	if err := prepareMachine(m, all); err != nil {
		return err
	}
	if err := c.forControlPlane(m); err != nil {
		return err
	}
	b, err := render("prometheus.yaml", nil)
	if err != nil {
		return err
	}
	return m.write("prometheus.yaml", b)
}

// prepareMachine writes what every machine has in /etc.
func prepareMachine(m machine, all []machine) error {
	hosts := "127.0.0.1 localhost\n"
	for _, other := range all {
		hosts += other.ip() + " " + other.name + "\n"
	}
	for path, content := range map[string]string{
		"/etc/hosts":       hosts,
		"/etc/hostname":    m.name + "\n",
		"/etc/resolv.conf": "", // there is nobody to ask
		"/etc/machine-id":  fmt.Sprintf("%032x\n", 0xd0e0000+m.index),
	} {
		if err := writeFile(m.upper(path), []byte(content)); err != nil {
			return fmt.Errorf("prepare %s: %w", m.name, err)
		}
	}
	return nil
}
