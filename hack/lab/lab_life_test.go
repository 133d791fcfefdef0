package lab

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (x *labTest) pids(t *testing.T) []process {
	t.Helper()
	var out []process
	for _, f := range append([]string{x.switchPID()}, pidFiles(x.Config)...) {
		p, err := loadProcess(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func pidFiles(c Config) []string {
	var out []string
	for _, m := range machines(c) {
		out = append(out, m.pidFile())
	}
	return out
}

func (x *labTest) secondUp(t *testing.T, ctx context.Context) {
	before := x.pids(t)
	if _, err := Up(ctx, x.Config); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, x.pids(t)); diff != "" {
		t.Errorf("a second up has changed processes:\n%s", diff)
	}
	other := x.Config
	other.Nodes = other.Nodes[:1]
	if _, err := Up(ctx, other); err == nil || !strings.Contains(err.Error(), "other nodes") {
		t.Errorf("up with other nodes: %v", err)
	}
}

func (x *labTest) apiServer(t *testing.T, ctx context.Context) {
	if err := x.StopAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := x.client(t).CoreV1().RESTClient().Get().AbsPath("/readyz").MaxRetries(0).DoRaw(ctx); err == nil {
		t.Error("an API server that was stopped answers")
	}
	if err := x.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := x.client(t).CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if err := x.StopService(ctx, "a", "nothing"); err == nil {
		t.Error("stopping a service that is not there: no error")
	}
}

// nodeRestart: a node that is started again has booted: new boot ID, its pods' containers restarted.
func (x *labTest) nodeRestart(t *testing.T, ctx context.Context) {
	nodes := x.client(t).CoreV1().Nodes()
	bootID := func() string {
		n, err := nodes.Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return n.Status.NodeInfo.BootID
	}
	old := bootID()
	if err := x.StopNode(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := x.ExecInNode(ctx, "a", "true"); err == nil {
		t.Error("a command ran on a node that is stopped")
	}
	if err := x.StartNode("a"); err != nil {
		t.Fatal(err)
	}
	if err := x.StartNode("a"); err == nil {
		t.Error("a node that runs was started")
	}
	if err := until(ctx, "node a has booted", func(context.Context) error {
		if bootID() == old {
			return errors.New("boot ID " + old)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := x.WaitReady(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, "the pod runs again", func(ctx context.Context) error {
		out, err := x.exec(ctx, "one", "/probe", "10.96.0.1:443")
		if err == nil && !strings.Contains(out, "HTTP") {
			err = errors.New(out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// crash: whatever of the lab is killed, the next up makes it whole.
func (x *labTest) crash(t *testing.T, ctx context.Context) {
	for _, p := range x.pids(t)[:2] { // the switch and the control plane; the nodes live on
		p.kill()
	}
	if err := until(ctx, "the lab is broken", func(context.Context) error {
		if x.healthy() {
			return errors.New("it is healthy")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := Up(ctx, x.Config); err != nil {
		t.Fatal(err)
	}
	x.nodes(t, ctx)
}
