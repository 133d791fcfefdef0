// Package cluster is a lab with Drover in it, for the end-to-end tests and the demo.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"helm.sh/helm/v3/pkg/chartutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/hack/deploy"
	"github.com/drover-project/drover/hack/lab"
	"github.com/drover-project/drover/hack/lab/cache"
	"github.com/drover-project/drover/test/witness"
)

// Cluster is a lab with Drover installed and a witness beside it.
type Cluster struct {
	Lab    *lab.Lab
	Client client.WithWatch
	// Witness hears what is sent to WitnessAddr, from outside every pod and node.
	Witness     *witness.Witness
	WitnessAddr string

	root      string
	tag       string // of the images
	apps      string // tar of the image with the tests' programs
	pause     string // the image that holds addresses, by its digest
	log       io.Writer
	hear      net.PacketConn
	witnessOn string

	loading  sync.Mutex
	software string // the image of Debian packages, once it is loaded
}

// Options say what to bring up.
type Options struct {
	Lab lab.Config
	// WitnessOn is the machine that the witness stands on; the control plane if empty.
	WitnessOn string
	// Values override the chart's.
	Values map[string]any
	// Log gets the progress.
	Log io.Writer
}

// Up builds the images, brings up the lab, and installs Drover with its chart.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	root, err := checkout()
	if err != nil {
		return nil, err
	}
	c := &Cluster{root: root, log: o.Log, Witness: witness.New(), witnessOn: cmp.Or(o.WitnessOn, lab.ControlPlane)}
	step := c.step("building images")
	built, err := deploy.Build(ctx, root, o.Log, append(append([]deploy.Image{}, deploy.Product...), deploy.Apps...))
	if err != nil {
		return nil, err
	}
	if err := c.buildTool(ctx); err != nil {
		return nil, err
	}
	step()
	c.tag, c.apps = built.Tag, built.Tars[len(deploy.Product)]
	o.Lab.Report = func(format string, args ...any) { fmt.Fprintf(o.Log, format+"\n", args...) }
	if c.Lab, err = lab.Up(ctx, o.Lab); err != nil {
		return nil, err
	}
	if err := c.install(ctx, built.Tars, o.Values); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	return c, nil
}

func (c *Cluster) install(ctx context.Context, tars []string, values map[string]any) error {
	step := c.step("loading images into the nodes")
	for _, t := range tars {
		if err := c.Lab.LoadImage(ctx, t); err != nil {
			return err
		}
	}
	step()
	if err := c.connect(ctx); err != nil {
		return err
	}
	var err error
	if c.pause, err = c.pauseImage(ctx); err != nil {
		return err
	}
	step = c.step("installing the chart")
	if err := c.Upgrade(ctx, values); err != nil {
		return err
	}
	step()
	return nil
}

// AppsImage is the image that the tests' programs are in, by the reference under which the nodes
// have it, and the tar that it was loaded from.
func (c *Cluster) AppsImage() (ref, tar string) { return deploy.Apps[0].Ref(c.tag), c.apps }

// Program is the path of a program that was built for an image.
func (c *Cluster) Program(name string) string { return filepath.Join(c.root, "out", "bin", name) }

// Upgrade installs the chart, or again with other values.
func (c *Cluster) Upgrade(ctx context.Context, values map[string]any) error {
	values, err := asTheMachineHas(c.root, maps.Clone(values))
	if err != nil {
		return err
	}
	if values == nil {
		values = map[string]any{}
	}
	values["image"] = map[string]any{"tag": c.tag, "pullPolicy": "Never"}
	values = chartutil.CoalesceTables(values, map[string]any{"controller": map[string]any{"pauseImage": c.pause, "carryEarlierAddresses": true}})
	return deploy.Install(ctx, c.root, c.Lab.Kubeconfig(), values)
}

// pauseImage is the one of the lab's sandboxes, as the nodes have it.
func (c *Cluster) pauseImage(ctx context.Context) (string, error) {
	all, err := c.Lab.ExecInNode(ctx, c.Nodes()[0], "ctr", "-n", "k8s.io", "images", "ls", "-q")
	if err != nil {
		return "", err
	}
	for name := range strings.Lines(all) {
		if strings.HasPrefix(name, cache.PauseName+"@sha256:") {
			return strings.TrimSpace(name), nil
		}
	}
	return "", fmt.Errorf("node %s has no image %s by its digest: %s", c.Nodes()[0], cache.PauseName, all)
}

func (c *Cluster) connect(ctx context.Context) error {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		return err
	}
	cfg, err := c.Lab.RESTConfig()
	if err != nil {
		return err
	}
	cfg.QPS, cfg.Burst = 200, 400
	if c.Client, err = client.NewWithWatch(cfg, client.Options{Scheme: s}); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	host, err := c.Lab.Address(c.witnessOn)
	if err != nil {
		return err
	}
	c.WitnessAddr = net.JoinHostPort(host, "9999")
	if c.hear, err = c.Lab.ListenPacketOn(c.witnessOn, "udp4", "0.0.0.0:9999"); err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	go func() {
		if err := c.Witness.Run(c.hear); err != nil {
			fmt.Fprintln(c.log, err)
		}
	}()
	return nil
}

// Down ends the witness and the lab; nothing is left.
func (c *Cluster) Down() error {
	if c.hear != nil {
		c.hear.Close()
	}
	if c.Lab == nil {
		return nil
	}
	return c.Lab.Down(context.Background())
}

func (c *Cluster) step(what string) (done func()) {
	start := time.Now()
	fmt.Fprintf(c.log, "%s ...\n", what)
	return func() { fmt.Fprintf(c.log, "%s: %.1f s\n", what, time.Since(start).Seconds()) }
}

func (c *Cluster) buildTool(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(c.root, "out", "bin")+"/", "./cmd/kubectl-drover")
	cmd.Dir = c.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build kubectl-drover: %w\n%s", err, out)
	}
	return nil
}

// Tool runs kubectl-drover with args, as a user would, and gives all that it printed.
func (c *Cluster) Tool(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.root, "out", "bin", "kubectl-drover"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Lab.Kubeconfig())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ToolOn runs kubectl-drover with args on a node, without a kubeconfig.
func (c *Cluster) ToolOn(ctx context.Context, node string, args ...string) (string, error) {
	program, err := os.ReadFile(filepath.Join(c.root, "out", "bin", "kubectl-drover"))
	if err != nil {
		return "", err
	}
	root, err := c.Lab.Root(node)
	if err != nil {
		return "", err
	}
	const path = "/tmp/kubectl-drover"
	if err := os.WriteFile(filepath.Join(root, path), program, 0o755); err != nil {
		return "", err
	}
	out, err := c.Lab.ExecInNode(ctx, node, append([]string{path}, args...)...)
	return string(out), err
}

// Cordon closes a node to new pods, or opens it.
func (c *Cluster) Cordon(ctx context.Context, node string, on bool) error {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	return c.Client.Patch(ctx, n, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%v}}`, on)))
}

// Nodes are the names of the lab's nodes.
func (c *Cluster) Nodes() []string {
	var names []string
	for _, n := range c.Lab.Config.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// Eventually polls until ok gives true; on the context's end it gives an error with the
// last reason that ok gave.
func Eventually(ctx context.Context, what string, ok func(context.Context) (bool, string)) error {
	last := "nothing was seen"
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		done, why := ok(ctx)
		if why != "" {
			last = why
		}
		return done, nil
	})
	if err != nil {
		return fmt.Errorf("%s: gave up: %s", what, last)
	}
	return nil
}

// Namespace makes a namespace in which pods can be made, and gives a function that deletes it.
func (c *Cluster) Namespace(ctx context.Context, name string) (func(), error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := c.Client.Create(ctx, ns); err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	remove := func() { c.Client.Delete(context.Background(), ns) }
	err := Eventually(ctx, "service account default in "+name, func(ctx context.Context) (bool, string) {
		if err := c.Client.Get(ctx, client.ObjectKey{Namespace: name, Name: "default"}, &corev1.ServiceAccount{}); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	if err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

func checkout() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the checkout: go list -m: %w", err)
	}
	return string(out[:len(out)-1]), nil
}
