package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
)

// A cluster is read from a real API server by somebody who may get and list nodes, pods and Drover's
// configuration, and nothing else.
func TestLiveCluster(t *testing.T) {
	ctx, env, set := apiServer(t)
	fill(ctx, t, set, twoNodes)
	configure(ctx, t, set)

	user, err := env.AddUser(envtest.User{Name: "reader"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	before := versions(ctx, t, set)
	args := []string{"--kubeconfig", write(t, "kubeconfig", string(kubeconfig)), "--pods", write(t, "p.yaml", web)}

	_, _, err = ask(t, args...)
	if err == nil || !strings.Contains(err.Error(), `there is no agent in namespace "drover-system"`) || !strings.Contains(err.Error(), "--measurements FILE") {
		t.Errorf("without an agent: %v", err)
	}
	args = append(args, "--measurements", twoMeasured(t))
	out, notes, err := ask(t, args...)
	if err != nil {
		t.Fatalf("%v (%s)", err, notes)
	}
	if !strings.Contains(notes, "services cannot be read and count as absent") || strings.Contains(notes, "the scheduler's configuration cannot be read") {
		t.Errorf("notes: %s", notes)
	}
	a := answered(t, args...)
	// The profile is that of the cluster.
	if len(a.Profiles) != 2 || a.Profiles[1].Name != "ours" || nodesOf(a.Profiles[0])[0] != "n2" || nodesOf(a.Profiles[1])[0] != "n1" {
		t.Errorf("answer:\n%s", out)
	}
	// The same cluster as a file, as kubectl get -o json gives it, has the same answer.
	file := answered(t, "--cluster", write(t, "c.json", exported(ctx, t, set)), "--pods", write(t, "p.yaml", web), "--measurements", twoMeasured(t))
	if !slices.Equal(nodesOf(file.Profiles[0]), nodesOf(a.Profiles[0])) || file.Profiles[0].Summary.CPU != a.Profiles[0].Summary.CPU {
		t.Errorf("from a file: %+v, from the server: %+v", file.Profiles[0], a.Profiles[0])
	}
	if after := versions(ctx, t, set); !maps.Equal(before, after) {
		t.Errorf("the simulation changed the cluster: %v, before %v", after, before)
	}
}

// apiServer gives a real one, for two minutes.
func apiServer(t *testing.T) (context.Context, *envtest.Environment, *kubernetes.Clientset) {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set: no kube-apiserver to test with")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	env := &envtest.Environment{}
	cfg, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = env.Stop() })
	return ctx, env, kubernetes.NewForConfigOrDie(cfg)
}

func must(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fill makes nodes and pods.
func fill(ctx context.Context, t *testing.T, set *kubernetes.Clientset, cluster string) {
	t.Helper()
	must := must(t)
	must(set.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}))
	objects, err := simulate.Read(write(t, "c.yaml", cluster), simulate.Strict)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		switch o := o.Object.(type) {
		case *corev1.Node:
			status := o.Status
			made, err := set.CoreV1().Nodes().Create(ctx, o, metav1.CreateOptions{})
			must(made, err)
			made.Spec.Taints = nil // admission taints it; nobody would take that away
			made, err = set.CoreV1().Nodes().Update(ctx, made, metav1.UpdateOptions{})
			must(made, err)
			made.Status.Allocatable, made.Status.Capacity = status.Allocatable, status.Allocatable
			must(set.CoreV1().Nodes().UpdateStatus(ctx, made, metav1.UpdateOptions{}))
		case *corev1.Pod:
			made, err := set.CoreV1().Pods(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
			must(made, err)
			made.Status.Phase = corev1.PodRunning
			must(set.CoreV1().Pods(o.Namespace).UpdateStatus(ctx, made, metav1.UpdateOptions{}))
		}
	}
}

// configure makes Drover's configuration, and the right to read it, nodes and pods.
func configure(ctx context.Context, t *testing.T, set *kubernetes.Clientset) {
	t.Helper()
	must := must(t)
	must(set.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "drover-system"}}, metav1.CreateOptions{}))
	config := profile("plugins: {multiPoint: {enabled: [{name: RouteTime, weight: 10}]}}")
	must(set.CoreV1().ConfigMaps("drover-system").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "drover-scheduler"},
		Data:       map[string]string{"config.yaml": strings.Replace(config, "schedulerName: p", "schedulerName: ours", 1)},
	}, metav1.CreateOptions{}))
	must(set.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes", "pods", "configmaps"}, Verbs: []string{"get", "list"}}},
	}, metav1.CreateOptions{}))
	must(set.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "reader"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "reader"}},
	}, metav1.CreateOptions{}))
}

// What is simulated is what the scheduler does: each profile, run against a real API server, binds the
// pods to the same nodes. Sizes are such that no lot is drawn: as of CPU so much is requested of memory, and of the default
// profile's scores for what is left, in percent, no two are nearer than 2 where they are best. On n1 there are
// 8 of 10 cores left: web-0 of 0.3 cores leaves 77 % there, 95 on n2 and 92 on n3; web-1 69, 80 and 72; and so on.
func TestRealScheduler(t *testing.T) {
	ctx, _, set := apiServer(t)
	one := twoNodes[:strings.Index(twoNodes, "---")]
	three := func(name, cpu, memory, zone string) string {
		return strings.NewReplacer("name: n1", "name: "+name, `cpu: "4"`, "cpu: "+cpu, "8Gi", memory, "zone: a", "zone: "+zone).Replace(one)
	}
	db := strings.Replace(twoNodes[strings.LastIndex(twoNodes, "---"):], "memory: 2Gi", "memory: 4Gi", 1)
	cluster := three("n1", "10", "20Gi", "a") + "---" + three("n2", "7", "14Gi", "b") + "---" + three("n3", "4", "8Gi", "b") + db
	fill(ctx, t, set, cluster)
	use := func(cpu model.Cores, memory model.Bytes) model.Resources {
		return model.Resources{CPU: cpu, Memory: memory * model.GiB}
	}
	measured := view.Snapshot{At: taken, Nodes: map[model.NodeID]view.Node{
		"n1": heard(use(10, 20), use(8, 4), map[model.NodeID]float64{"n2": 2, "n3": .25}),
		"n2": heard(use(7, 14), use(1, 1), nil),
		"n3": heard(use(4, 8), use(.5, 1), nil),
	}}
	more := plugins(measured)
	conf, err := simulate.Configuration([]byte(defaultConfig), "default", more)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := simulate.Read(write(t, "c.yaml", cluster), simulate.Strict)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for i, m := range []int{300, 1100, 700, 2000, 450, 1000, 1600, 250} {
		requests := fmt.Sprintf("cpu: %dm, memory: %dKi", m, m*2<<20/1000)
		text = append(text, strings.NewReplacer("name: web", fmt.Sprint("name: web-", i), `cpu: "1", memory: 1Gi`, requests).Replace(web))
	}
	manifests, err := simulate.Read(write(t, "p.yaml", strings.Join(text, "---")), simulate.Strict)
	if err != nil {
		t.Fatal(err)
	}
	c, err := simulate.NewCluster(objects)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := c.Workload(manifests, "shop")
	if err != nil {
		t.Fatal(err)
	}
	const runs = 10
	a, err := simulate.Ask(ctx, simulate.Question{Cluster: c, Pods: pods, Measured: measured, Config: conf, More: more, Runs: runs, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range a.Profiles {
		for _, o := range p.Pods {
			if o.Runs != runs {
				t.Fatalf("%s draws lots for %s: %v", p.Name, o.Pod(), o.Nodes)
			}
		}
		got := bind(ctx, t, set, conf.Profiles[i], more, pods)
		if want := nodesOf(p); !slices.Equal(got, want) {
			t.Errorf("%s bound the pods to %v, simulated is %v", p.Name, got, want)
		}
	}
	if slices.Equal(nodesOf(a.Profiles[0]), nodesOf(a.Profiles[1])) {
		t.Errorf("both profiles place alike: %v", nodesOf(a.Profiles[0]))
	}
}

// bind has the real scheduler bind pods, one after the other, and takes them away again.
func bind(ctx context.Context, t *testing.T, set *kubernetes.Clientset, profile config.KubeSchedulerProfile, more frameworkruntime.Registry, pods []*corev1.Pod) []string {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	factory := scheduler.NewInformerFactory(set, 0)
	s, err := scheduler.New(ctx, set, factory, nil, func(string) events.EventRecorder { return &events.FakeRecorder{} },
		scheduler.WithProfiles(profile), scheduler.WithFrameworkOutOfTreeRegistry(more))
	if err != nil {
		stop()
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := s.WaitForHandlersSync(ctx); err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	defer func() { stop(); <-ended; factory.Shutdown() }()
	var on []string
	for _, pod := range pods {
		pod = pod.DeepCopy()
		pod.UID, pod.Spec.SchedulerName = "", profile.SchedulerName
		must(t)(set.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{}))
		err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			p, err := set.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
			if err == nil && p.Spec.NodeName != "" {
				on = append(on, p.Spec.NodeName)
			}
			return err == nil && p.Spec.NodeName != "", err
		})
		if err != nil {
			t.Fatalf("%s: pod %s is not bound: %v", profile.SchedulerName, pod.Name, err)
		}
	}
	now := int64(0)
	for _, pod := range pods {
		if err := set.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
	}
	return on
}

// exported is the list that kubectl get nodes,pods -A -o json prints.
func exported(ctx context.Context, t *testing.T, set *kubernetes.Clientset) string {
	t.Helper()
	nodes, err := set.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := set.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]any{"apiVersion": "v1", "kind": "List"}
	var items []any
	for _, n := range nodes.Items {
		n.APIVersion, n.Kind = "v1", "Node"
		items = append(items, n)
	}
	for _, p := range pods.Items {
		p.APIVersion, p.Kind = "v1", "Pod"
		items = append(items, p)
	}
	list["items"] = items
	raw, err := json.MarshalIndent(list, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// versions are those of all nodes and pods.
func versions(ctx context.Context, t *testing.T, set *kubernetes.Clientset) map[string]string {
	t.Helper()
	nodes, err := set.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := set.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, n := range nodes.Items {
		all[n.Name] = n.ResourceVersion
	}
	for _, p := range pods.Items {
		all[p.Namespace+"/"+p.Name] = p.ResourceVersion
	}
	return all
}

type recorded struct{ methods []string }

func (r *recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	r.methods = append(r.methods, req.Method)
	return &http.Response{StatusCode: http.StatusOK}, nil
}

// Whoever may write does not either.
func TestNothingIsWritten(t *testing.T) {
	next := &recorded{}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		req, err := http.NewRequest(method, "http://server/api/v1/pods", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = readOnly{next}.RoundTrip(req)
		if reads := method == http.MethodGet; reads != (err == nil) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if !slices.Equal(next.methods, []string{http.MethodGet}) {
		t.Errorf("let through: %v", next.methods)
	}
}
