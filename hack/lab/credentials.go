package lab

import (
	"encoding/base64"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/drover-project/drover/hack/lab/pki"
)

// kubernetesDir is where a machine's certificates and configuration lie.
const kubernetesDir = "/etc/kubernetes"

// credentials issues what each machine needs, and writes it there.
type credentials struct {
	ca  *pki.CA
	now time.Time
}

func newCredentials(lab string) (*credentials, error) {
	now := time.Now()
	ca, err := pki.NewCA("drover-lab-"+lab, now)
	if err != nil {
		return nil, err
	}
	return &credentials{ca, now}, nil
}

// write puts a file into the machine's /etc/kubernetes.
func (m machine) write(name string, content []byte) error {
	if err := writeFile(m.upper(filepath.Join(kubernetesDir, name)), content); err != nil {
		return fmt.Errorf("write %s of %s: %w", name, m.name, err)
	}
	return nil
}

func (m machine) writePair(name string, p pki.Pair) error {
	if err := m.write(name+".crt", p.Cert); err != nil {
		return err
	}
	return m.write(name+".key", p.Key)
}

// issue writes a certificate and its key as NAME.crt and NAME.key.
func (c *credentials) issue(m machine, name string, r pki.Request) error {
	p, err := c.ca.Issue(r, c.now)
	if err != nil {
		return err
	}
	return m.writePair(name, p)
}

// kubeconfig makes a kubeconfig with a client certificate of its own.
func (c *credentials) kubeconfig(server, user string, groups ...string) ([]byte, error) {
	p, err := c.ca.Issue(pki.Request{CommonName: user, Organization: groups}, c.now)
	if err != nil {
		return nil, err
	}
	b64 := base64.StdEncoding.EncodeToString
	return render("kubeconfig", map[string]string{
		"Server": server, "CA": b64(c.ca.Cert), "Cert": b64(p.Cert), "Key": b64(p.Key),
	})
}

func (c *credentials) writeKubeconfig(m machine, server, name, user string, groups ...string) error {
	b, err := c.kubeconfig(server, user, groups...)
	if err != nil {
		return err
	}
	return m.write(name, b)
}

// Users that Kubernetes' default RBAC does not know; bootstrap.go gives them their roles.
const (
	kubeletClientUser = "drover-lab-apiserver"
	prometheusUser    = "drover-lab-prometheus"
)

func (c *credentials) forControlPlane(m machine) error {
	if err := m.writePair("ca", c.ca.Pair); err != nil {
		return err
	}
	signing, err := pki.NewKey()
	if err != nil {
		return err
	}
	if err := m.writePair("service-accounts", signing); err != nil {
		return err
	}
	if err := c.issue(m, "apiserver", pki.Request{CommonName: "kube-apiserver", Hosts: []string{
		m.ip(), apiServiceIP, "127.0.0.1", "localhost",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}}); err != nil {
		return err
	}
	if err := c.issue(m, "kubelet-client", pki.Request{CommonName: kubeletClientUser}); err != nil {
		return err
	}
	for file, user := range map[string]string{
		"controller-manager.conf": "system:kube-controller-manager",
		"scheduler.conf":          "system:kube-scheduler",
		"prometheus.conf":         prometheusUser,
	} {
		if err := c.writeKubeconfig(m, serverOf(m), file, user); err != nil {
			return err
		}
	}
	return nil
}

func (c *credentials) forNode(m, controlPlane machine) error {
	if err := m.write("ca.crt", c.ca.Cert); err != nil {
		return err
	}
	if err := c.issue(m, "kubelet", pki.Request{CommonName: "system:node:" + m.name, Organization: []string{"system:nodes"}, Hosts: append(m.ips(), m.name)}); err != nil {
		return err
	}
	if err := c.writeKubeconfig(m, serverOf(controlPlane), "kubelet.conf", "system:node:"+m.name, "system:nodes"); err != nil {
		return err
	}
	return c.writeKubeconfig(m, serverOf(controlPlane), "kube-proxy.conf", "system:kube-proxy")
}

func serverOf(controlPlane machine) string {
	return "https://" + net.JoinHostPort(controlPlane.ip(), apiPort)
}
