package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-project/drover/hack/lab/boot"
)

// MachineStatus is one machine of a lab.
type MachineStatus struct {
	Name     string
	Address  string
	Running  bool
	Services []boot.ServiceStatus
}

// Status is the state of the lab's machines: the control plane, then the nodes.
func (l *Lab) Status(ctx context.Context) []MachineStatus {
	var out []MachineStatus
	for _, m := range machines(l.Config) {
		s := MachineStatus{Name: m.name, Address: m.ip()}
		if p, err := loadProcess(m.pidFile()); err == nil && p.alive() {
			s.Running = true
			if services, err := boot.Ask(ctx, m.control(), boot.Status, ""); err == nil {
				s.Services = services
			}
		}
		out = append(out, s)
	}
	return out
}

// URLs are the addresses on this machine of the API server and of Prometheus.
func (l *Lab) URLs() (api, prometheus string, err error) {
	r, err := readRecord(l.Config.Name)
	if err != nil {
		return "", "", err
	}
	return "https://" + r.Ports[0], "http://" + r.Ports[1], nil
}

// tails gives the ends of the logs, for the error of a lab that did not come up.
func (l *Lab) tails() string {
	files, _ := filepath.Glob(filepath.Join(l.dir(), "machines", "*", "log", "*.log"))
	var b strings.Builder
	for _, f := range append(files, filepath.Join(l.dir(), "switch.log")) {
		content, err := os.ReadFile(f)
		if err != nil || len(content) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(content)), "\n")
		name, _ := filepath.Rel(l.dir(), f)
		fmt.Fprintf(&b, "\n--- %s\n%s", name, strings.Join(lines[max(0, len(lines)-4):], "\n"))
	}
	return b.String()
}
