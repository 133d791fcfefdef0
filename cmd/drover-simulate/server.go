package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
)

// server is the API server of a cluster, which is read alone.
type server struct {
	client kubernetes.Interface
	config *rest.Config // for the way to an agent
	system string
	note   func(format string, args ...any)
}

// readOnly lets nothing through but what reads.
type readOnly struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (r readOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		return nil, fmt.Errorf("%s %s: a simulation writes nothing", req.Method, req.URL.Path)
	}
	return r.next.RoundTrip(req)
}

func (t *tool) server() (*server, error) {
	cfg, err := t.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w (or give the cluster as files with --cluster)", err)
	}
	cfg.QPS, cfg.Burst = 50, 100
	reading := rest.CopyConfig(cfg)
	reading.Wrap(func(next http.RoundTripper) http.RoundTripper { return readOnly{next} })
	client, err := kubernetes.NewForConfig(reading)
	if err != nil {
		return nil, fmt.Errorf("API server %s: %w", cfg.Host, err)
	}
	return &server{client, cfg, t.system, t.note}, nil
}

// objects reads what the scheduler reads.
func (s *server) objects(ctx context.Context) ([]simulate.Object, error) {
	var all []simulate.Object
	nodes := map[string]bool{}
	for _, read := range s.reads() {
		list, err := read.list(ctx, metav1.ListOptions{})
		optional := read.what != "nodes" && read.what != "pods"
		if optional && (apierrors.IsForbidden(err) || apierrors.IsNotFound(err)) {
			s.note("%s cannot be read and count as absent: %v", read.what, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", read.what, err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", read.what, err)
		}
		for _, item := range items {
			if n, ok := item.(*corev1.Node); ok {
				nodes[n.Name] = true
			}
			if p, ok := item.(*corev1.Pod); ok && p.Spec.NodeName != "" && !nodes[p.Spec.NodeName] {
				continue // its node came or went between the two lists
			}
			all = append(all, simulate.Object{Object: item, Where: "the cluster's " + read.what})
		}
	}
	return all, nil
}

// lists is one kind of objects to read.
type lists struct {
	what string
	list func(context.Context, metav1.ListOptions) (runtime.Object, error)
}

// listed has a typed list be any.
func listed[L runtime.Object](what string, list func(context.Context, metav1.ListOptions) (L, error)) lists {
	return lists{what, func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) }}
}

// reads are all kinds, the nodes before the pods.
func (s *server) reads() []lists {
	everywhere, c := metav1.NamespaceAll, s.client
	return []lists{
		listed("nodes", c.CoreV1().Nodes().List),
		listed("pods", c.CoreV1().Pods(everywhere).List),
		listed("namespaces", c.CoreV1().Namespaces().List),
		listed("services", c.CoreV1().Services(everywhere).List),
		listed("replicationcontrollers", c.CoreV1().ReplicationControllers(everywhere).List),
		listed("replicasets", c.AppsV1().ReplicaSets(everywhere).List),
		listed("statefulsets", c.AppsV1().StatefulSets(everywhere).List),
		listed("persistentvolumes", c.CoreV1().PersistentVolumes().List),
		listed("persistentvolumeclaims", c.CoreV1().PersistentVolumeClaims(everywhere).List),
		listed("storageclasses", c.StorageV1().StorageClasses().List),
		listed("csinodes", c.StorageV1().CSINodes().List),
		listed("csidrivers", c.StorageV1().CSIDrivers().List),
		listed("csistoragecapacities", c.StorageV1().CSIStorageCapacities(everywhere).List),
		listed("volumeattachments", c.StorageV1().VolumeAttachments().List),
		listed("deviceclasses", c.ResourceV1().DeviceClasses().List),
		listed("resourceslices", c.ResourceV1().ResourceSlices().List),
		listed("resourceclaims", c.ResourceV1().ResourceClaims(everywhere).List),
	}
}

// measured asks the agents until one answers.
func (s *server) measured(ctx context.Context) (view.Snapshot, error) {
	const instead = "--measurements FILE, or none, does without an agent"
	pods, err := s.client.CoreV1().Pods(s.system).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=drover-agent"})
	if err != nil {
		return view.Snapshot{}, fmt.Errorf("list agents in namespace %q: %w (%s)", s.system, err, instead)
	}
	if len(pods.Items) == 0 {
		return view.Snapshot{}, fmt.Errorf("there is no agent in namespace %q: is Drover installed there? (--drover-namespace; %s)", s.system, instead)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return cmp.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	var errs []error
	for i := range pods.Items {
		p := &pods.Items[i]
		var v view.Snapshot
		err := agentclient.Fetch(ctx, s.config, p, agentclient.StatusPort, "/v1/view", agentclient.JSON(&v))
		if err == nil {
			err = simulate.CheckMeasured(v)
		}
		if err == nil {
			return v, nil
		}
		errs = append(errs, fmt.Errorf("agent on %s: %w", p.Spec.NodeName, err))
		if ctx.Err() != nil {
			break
		}
	}
	return view.Snapshot{}, fmt.Errorf("no agent answers: %w (%s)", errors.Join(errs...), instead)
}

// configuration is what drover-scheduler runs with.
func (s *server) configuration(ctx context.Context) (raw []byte, from string, err error) {
	const name, key = "drover-scheduler", "config.yaml"
	cm, err := s.client.CoreV1().ConfigMaps(s.system).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, "", err
	}
	return []byte(cm.Data[key]), fmt.Sprintf("ConfigMap %s/%s, %s", s.system, name, key), nil
}
