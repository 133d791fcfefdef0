package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
)

// ask runs the command.
func ask(t *testing.T, args ...string) (out, notes string, err error) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	var stdout, stderr bytes.Buffer
	c := command(genericclioptions.IOStreams{Out: &stdout, ErrOut: &stderr})
	c.SetArgs(args)
	err = c.ExecuteContext(context.Background())
	return stdout.String(), stderr.String(), err
}

// answered is what it says with -o json.
func answered(t *testing.T, args ...string) *simulate.Answer {
	t.Helper()
	out, notes, err := ask(t, append(args, "-o", "json")...)
	if err != nil {
		t.Fatalf("%v (%s)", err, notes)
	}
	a := &simulate.Answer{}
	if err := json.Unmarshal([]byte(out), a); err != nil {
		t.Fatal(err)
	}
	return a
}

// nodesOf lists where a profile's pods came, in their order.
func nodesOf(p simulate.Profile) []string {
	var on []string
	for _, o := range p.Pods {
		on = append(on, o.Node)
	}
	return on
}

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var taken = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// heard is a node that was heard at the moment of the picture, with what is in use there and the
// route times from it in milliseconds.
func heard(allocatable, used model.Resources, routes map[model.NodeID]float64) view.Node {
	n := view.Node{Alive: true, Received: taken, State: model.NodeState{
		Load:      model.Load{Allocatable: allocatable, Used: used, At: taken},
		PodRoutes: map[model.NodeID]model.RouteTime{},
	}}
	for to, ms := range routes {
		n.State.PodRoutes[to] = model.RouteTime{RTT: time.Duration(ms * float64(time.Millisecond)), Samples: 9, Stamp: model.StampKernel, At: taken}
	}
	return n
}

func asText(t testing.TB, nodes map[model.NodeID]view.Node) string {
	t.Helper()
	raw, err := json.Marshal(view.Snapshot{At: taken, Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func measurements(t testing.TB, nodes map[model.NodeID]view.Node) string {
	t.Helper()
	return write(t, "view.json", asText(t, nodes))
}

// two nodes, of which the one with the database is near to it and the other is empty.
const twoNodes = `
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {kubernetes.io/hostname: n1, topology.kubernetes.io/zone: a}}
status: {allocatable: {cpu: "4", memory: 8Gi, pods: "110"}}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {kubernetes.io/hostname: n2, topology.kubernetes.io/zone: b}}
status: {allocatable: {cpu: "4", memory: 8Gi, pods: "110"}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  nodeName: n1
  containers: [{name: c, image: i, resources: {requests: {cpu: "2", memory: 2Gi}}}]
status: {phase: Running}
`

const web = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, annotations: {drover.dev/peers: app=db}}
spec:
  containers: [{name: c, image: i, resources: {requests: {cpu: "1", memory: 1Gi}}}]
`

var eightGiB = model.Resources{CPU: 4, Memory: 8 * model.GiB}

func twoMeasured(t *testing.T) string { return write(t, "view.json", twoText(t)) }

func twoText(t *testing.T) string { return asText(t, twoPicture().Nodes) }

func twoPicture() view.Snapshot {
	return view.Snapshot{At: taken, Nodes: map[model.NodeID]view.Node{
		"n1": heard(eightGiB, model.Resources{CPU: 2, Memory: model.GiB}, map[model.NodeID]float64{"n2": 2}),
		"n2": heard(eightGiB, model.Resources{CPU: 1, Memory: model.GiB}, map[model.NodeID]float64{"n1": 2}),
	}}
}
