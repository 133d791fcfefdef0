package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/drover-project/drover/hack/lab/boot"
)

// Command makes a command that runs on a machine of the lab, in its namespaces, as root. It is an
// ordinary command to its caller: standard streams, context and exit code work as ever.
func (l *Lab) Command(ctx context.Context, name string, argv ...string) (*exec.Cmd, error) {
	m, err := l.find(name)
	if err != nil {
		return nil, err
	}
	p, err := l.running(name)
	if err != nil {
		return nil, err
	}
	if len(argv) == 0 {
		return nil, fmt.Errorf("run on %s: no command", name)
	}
	return boot.Enter(ctx, m.lab, p.PID, argv...), nil
}

// ExecInNode runs a command on a machine of the lab and gives what it wrote, both streams together.
func (l *Lab) ExecInNode(ctx context.Context, node string, argv ...string) (string, error) {
	cmd, err := l.Command(ctx, node, argv...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run %q on %s: %w: %s", argv, node, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
