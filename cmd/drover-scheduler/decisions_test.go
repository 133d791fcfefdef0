package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/drover-project/drover/internal/decision"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/plugin"
)

func TestDecisionsAreReadOnlyAndByName(t *testing.T) {
	log := decision.NewLog(10, model.GiB)
	log.Add(log.Pack(&decision.Decision{Namespace: "ns", Name: "p", UID: "u", Winner: "n1"}))
	s := httptest.NewServer(statusHandler(log, &observer{}))
	defer s.Close()
	for _, tt := range []struct {
		method, path string
		status       int
		uids         []string
	}{
		{http.MethodGet, "/v1/decisions/ns/p", http.StatusOK, []string{"u"}},
		{http.MethodGet, "/v1/decisions/ns/q", http.StatusOK, nil},
		{http.MethodGet, "/v1/decisions", http.StatusNotFound, nil},
		{http.MethodPut, "/v1/view", http.StatusMethodNotAllowed, nil},
		{http.MethodPut, "/v1/decisions/ns/p", http.StatusMethodNotAllowed, nil},
		{http.MethodDelete, "/v1/decisions/ns/p", http.StatusMethodNotAllowed, nil},
	} {
		req, err := http.NewRequest(tt.method, s.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s: %s, want %d", tt.method, tt.path, resp.Status, tt.status)
		}
		if tt.status != http.StatusOK {
			continue
		}
		var got []decision.Decision
		if err := json.Unmarshal(body, &got); err != nil || got == nil {
			t.Errorf("%s: %s (%v), want a list", tt.path, body, err)
		}
		if !slices.EqualFunc(got, tt.uids, func(d decision.Decision, uid string) bool { return d.UID == uid }) {
			t.Errorf("%s: %+v, want of %v", tt.path, got, tt.uids)
		}
	}
}

// The whole program against a real API server: what it decided about a pod can be read, with
// what kube-scheduler's own plugins said, and the pod has one event of it.
func TestDecisionOfTheRealScheduler(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set: no kube-apiserver to test with")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	env := &envtest.Environment{}
	cfg, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = env.Stop() })
	user, err := env.AddUser(envtest.User{Name: "scheduler", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	set := kubernetes.NewForConfigOrDie(cfg)
	for _, name := range []string{"n1", "n2", "n3"} {
		node(ctx, t, set, name)
	}

	config := filepath.Join(t.TempDir(), "config.yaml")
	auth := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(auth, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	profile := fmt.Sprintf(`
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %s}
profiles:
  - schedulerName: drover-scheduler
    plugins: {multiPoint: {enabled: [{name: RouteTime, weight: 10}]}}
`, auth)
	if err := os.WriteFile(config, []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	status, metrics := freeAddress(t), freeAddress(t)
	cmd := command()
	cmd.SetArgs([]string{"--config", config, "--secure-port=0", "--drover-status-address", status, "--drover-metrics-address", metrics})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(running) }()
	defer func() { stop(); t.Log("the scheduler ended with", <-ended) }()

	pod, err := set.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec:       corev1.PodSpec{SchedulerName: "drover-scheduler", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var kept []decision.Decision
	eventually(ctx, t, "a decision is kept", func() bool {
		resp, err := http.Get("http://" + status + "/v1/decisions/default/p")
		if err != nil {
			return false // not served yet
		}
		defer resp.Body.Close()
		return json.NewDecoder(resp.Body).Decode(&kept) == nil && len(kept) > 0
	})
	var picture view.Snapshot
	if resp, err := http.Get("http://" + status + "/v1/view"); err != nil {
		t.Error(err)
	} else {
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&picture); err != nil || picture.At.IsZero() || len(picture.Nodes) > 0 {
			t.Errorf("the picture: %+v, %v; want an empty one of now", picture, err)
		}
	}
	d := kept[0]
	bound, err := set.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d.UID != string(pod.UID) || string(d.Winner) != bound.Spec.NodeName || d.Profile != "drover-scheduler" || d.Cluster != 3 || len(d.Nodes) != 3 || d.Bound.Before(d.Ranked) {
		t.Errorf("kept: %+v; the pod %s is on %s", d, pod.UID, bound.Spec.NodeName)
	}
	chosen := d.Chosen()
	if chosen == nil {
		t.Fatal("the winner is not among those that were scored")
	}
	// Nothing is heard from agents here: 50 points of weight 10.
	ours, theirs := slices.Index(d.Plugins, plugin.Name), slices.Index(d.Plugins, "NodeResourcesFit")
	sum := int64(0)
	for _, n := range chosen.Said {
		sum += n
	}
	if ours < 0 || theirs < 0 || chosen.Said[ours] != 500 || sum != chosen.Total {
		t.Errorf("plugins %v said %v, in all %d", d.Plugins, chosen.Said, chosen.Total)
	}

	var told []eventsv1.Event
	eventually(ctx, t, "an event", func() bool {
		all, err := set.EventsV1().Events("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false
		}
		told = slices.DeleteFunc(all.Items, func(e eventsv1.Event) bool { return e.Reason != plugin.ReasonRouteTime })
		return len(told) > 0
	})
	if len(told) != 1 || told[0].Regarding.Name != "p" || !strings.Contains(told[0].Note, string(d.Winner)+" got the neutral 50 of 100 points") {
		t.Errorf("events: %+v", told)
	}
	resp, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	for _, want := range []string{"drover_scheduler_chosen_points_count 1", `drover_scheduler_chosen_plugin_points_sum{plugin="RouteTime"} 500`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("metrics lack %q", want)
		}
	}
}

func node(ctx context.Context, t *testing.T, set *kubernetes.Clientset, name string) {
	t.Helper()
	n, err := set.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Spec.Taints = nil // admission taints it; nobody would take that away
	if n, err = set.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.Status.Capacity = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
	n.Status.Allocatable = n.Status.Capacity
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if _, err = set.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func eventually(ctx context.Context, t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(context.Context) (bool, error) { return holds(), nil })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(freePort(t)))
}
