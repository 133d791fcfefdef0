package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/drover-project/drover/internal/gossip"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

// files writes a gossip key and a CA and gives options that name them.
func files(t *testing.T, key []byte, authority *identitytest.Authority) *options {
	t.Helper()
	dir := t.TempDir()
	cert, _ := authority.PEM(t)
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	o := newOptions()
	o.gossipKeyFile = write("key", []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
	o.caFile = write("ca.crt", cert)
	o.bindAddress, o.podName = "127.0.0.2", "drover-scheduler-x"
	return o
}

// freePort gives a port that nothing listens on at either address.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func agentPod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "drover-system", Labels: map[string]string{"app.kubernetes.io/name": "drover-agent"}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "127.0.0.1"},
	}
	if change != nil {
		change(p)
	}
	return p
}

func lister(t *testing.T, pods ...*corev1.Pod) *corelisters.PodLister {
	t.Helper()
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for i, p := range pods {
		p.Name = fmt.Sprint(p.Name, i)
		if err := indexer.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	l := corelisters.NewPodLister(indexer)
	return &l
}

func TestObserverHearsAnAgent(t *testing.T) {
	key, authority := bytes.Repeat([]byte{7}, 32), identitytest.NewAuthority(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o := files(t, key, authority)
	o.port = freePort(t)

	id := authority.Node(t, "n1")
	agent, err := gossip.New(gossip.Config{
		Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: authority.Pool(), SecretKey: key,
		BindAddr: "127.0.0.1", BindPort: o.port, Registerer: prometheus.NewRegistry(),
		Seeds: func(context.Context) ([]string, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Publish(model.NodeState{Load: model.Load{Allocatable: model.Resources{CPU: 3}}}); err != nil {
		t.Fatal(err)
	}
	agentEnded := make(chan error, 1)
	go func() { agentEnded <- agent.Run(ctx) }()

	obs := &observer{}
	if s := obs.Snapshot(); len(s.Nodes) != 0 || s.At.IsZero() {
		t.Errorf("before the start the picture is %+v, want an empty one of now", s)
	}
	run, err := obs.prepare(o, prometheus.NewRegistry(), klog.Background())
	if err != nil {
		t.Fatal(err)
	}
	obs.pods.Store(lister(t, agentPod(nil)))
	changes, stop := obs.gossip.Load().Subscribe()
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); run(ctx) }()
	for obs.Snapshot().Nodes["n1"].State.Load.Allocatable.CPU != 3 {
		select {
		case <-changes:
		case <-ctx.Done():
			t.Fatalf("the agent was not heard: %+v", obs.Snapshot())
		}
	}
	cancel()
	<-ended
	if err := <-agentEnded; err != nil {
		t.Log("the agent ended with", err)
	}
}

func TestSeedsAreTheAgentsThatRun(t *testing.T) {
	o := newOptions()
	obs := &observer{}
	if s, err := obs.seeds(o); s != nil || err != nil {
		t.Errorf("before there is an informer: %v, %v", s, err)
	}
	obs.pods.Store(lister(t,
		agentPod(nil),
		agentPod(func(p *corev1.Pod) { p.Status.PodIP = "fd00::1" }),
		agentPod(func(p *corev1.Pod) { p.Status.PodIP = "" }),
		agentPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }),
		agentPod(func(p *corev1.Pod) { p.Namespace = "other" }),
		agentPod(func(p *corev1.Pod) { p.Labels = nil }),
	))
	s, err := obs.seeds(o)
	if got := strings.Join(s, " "); err != nil || got != "127.0.0.1:7946 [fd00::1]:7946" {
		t.Errorf("seeds %q, %v", got, err)
	}
}

func TestOptions(t *testing.T) {
	good := func() *options {
		o := newOptions()
		o.gossipKeyFile, o.caFile, o.bindAddress, o.podName = "key", "ca", "10.0.0.1", "p"
		return o
	}
	for _, tt := range []struct {
		name  string
		spoil func(*options)
		want  string
	}{
		{"good", func(*options) {}, ""},
		{"no gossip at all", func(o *options) { *o = *newOptions() }, ""},
		{"no CA", func(o *options) { o.caFile = "" }, "--ca-file"},
		{"no address", func(o *options) { o.bindAddress = "" }, "--gossip-bind-address"},
		{"a name for an address", func(o *options) { o.bindAddress = "here" }, "--gossip-bind-address"},
		{"port", func(o *options) { o.port = 70000 }, "--gossip-port"},
		{"selector", func(o *options) { o.agents = "a in b" }, "--drover-agent-selector"},
		{"name", func(o *options) { o.podName = "" }, "--pod-name"},
		{"decisions for nobody", func(o *options) { o.statusAddress = "" }, ""},
		{"decisions for everybody", func(o *options) { o.statusAddress = ":7950" }, "--drover-status-address"},
		{"decisions for the cluster", func(o *options) { o.statusAddress = "10.0.0.1:7950" }, "--drover-status-address"},
		{"fewer than no decisions", func(o *options) { o.decisions = -1 }, "--drover-decisions is -1"},
		{"no memory at all", func(o *options) { o.decisionMemory = "0" }, ""},
		{"memory", func(o *options) { o.decisionMemory = "-1Mi" }, "--drover-decisions-memory"},
		{"memory in words", func(o *options) { o.decisionMemory = "much" }, "--drover-decisions-memory"},
		{"gauges", func(o *options) { o.nodeMetrics = -1 }, "--drover-node-metrics"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := good()
			tt.spoil(o)
			err := o.validate()
			if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestPrepareRefusesBadFiles(t *testing.T) {
	authority := identitytest.NewAuthority(t)
	for name, spoil := range map[string]func(*testing.T, *options){
		"no key file":  func(_ *testing.T, o *options) { o.gossipKeyFile += "x" },
		"no CA file":   func(_ *testing.T, o *options) { o.caFile += "x" },
		"CA is no PEM": func(_ *testing.T, o *options) { o.caFile = o.gossipKeyFile },
		"not base64":   func(_ *testing.T, o *options) { o.gossipKeyFile = o.caFile },
		"short key": func(t *testing.T, o *options) {
			if err := os.WriteFile(o.gossipKeyFile, []byte("AAAA"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := files(t, make([]byte, 32), authority)
			spoil(t, o)
			_, err := (&observer{}).prepare(o, prometheus.NewRegistry(), klog.Background())
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line", err)
			}
		})
	}
}

func TestCommandHasBothKindsOfFlags(t *testing.T) {
	cmd := command()
	for _, name := range []string{"config", "kubeconfig", "gossip-key-file", "ca-file", "drover-namespace"} {
		if cmd.Flags().Lookup(name) == nil {
			t.Errorf("no flag --%s", name)
		}
	}
	var out bytes.Buffer
	cmd.SetOut(&out)
	if err := cmd.Help(); err != nil || !strings.Contains(out.String(), "--gossip-key-file") || !strings.Contains(out.String(), "Drover flags:") || !strings.Contains(out.String(), "--leader-elect") {
		t.Errorf("help lacks flags (%v)", err)
	}
}
