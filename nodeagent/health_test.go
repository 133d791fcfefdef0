package nodeagent

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/health"
	"github.com/drover-project/drover/nodeagent/podlog"
)

var (
	healthStart = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	yes, no     = true, false
)

func TestSignsOfAPod(t *testing.T) {
	later := healthStart.Add(time.Minute)
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: healthStart}}}
	ended := func(code int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, FinishedAt: metav1.Time{Time: healthStart}}}
	}
	waits := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	unready := func(at time.Time) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Time{Time: at}}}
		}
	}
	probed := func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{} }
	starting := func(p *corev1.Pod) { p.Spec.Containers[0].StartupProbe = &corev1.Probe{} }
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: later} }
	for name, c := range map[string]struct {
		status corev1.ContainerStatus
		change []func(*corev1.Pod)
		want   health.Signs
	}{
		"well":             {corev1.ContainerStatus{State: running, Ready: true}, []func(*corev1.Pod){probed}, health.Signs{}},
		"being created":    {corev1.ContainerStatus{State: waits("ContainerCreating")}, nil, health.Signs{}},
		"done":             {corev1.ContainerStatus{State: ended(0, "Completed")}, nil, health.Signs{}},
		"failed":           {corev1.ContainerStatus{State: ended(2, "Error")}, nil, health.Signs{LastExit: &health.Exit{Code: 2, Reason: "Error", At: healthStart}}},
		"out of memory":    {corev1.ContainerStatus{State: running, Ready: true, RestartCount: 3, LastTerminationState: ended(137, "OOMKilled")}, nil, health.Signs{Restarts: 3, LastExit: &health.Exit{Code: 137, Reason: "OOMKilled", At: healthStart}}},
		"the newest exit":  {corev1.ContainerStatus{State: ended(1, "Error"), RestartCount: 1, LastTerminationState: ended(2, "Error")}, nil, health.Signs{Restarts: 1, LastExit: &health.Exit{Code: 1, Reason: "Error", At: healthStart}}},
		"ended, restarted": {corev1.ContainerStatus{State: waits("CrashLoopBackOff"), RestartCount: 1, LastTerminationState: ended(0, "Completed")}, nil, health.Signs{Restarts: 1, Waiting: "CrashLoopBackOff", LastExit: &health.Exit{Reason: "Completed", At: healthStart}}},
		"unready":          {corev1.ContainerStatus{State: running, Started: &yes}, []func(*corev1.Pod){probed, unready(later)}, health.Signs{Probe: &health.Probe{Kind: health.Readiness, Since: later}}},
		// The pod has been unready for longer than this container runs.
		"unready since it began": {corev1.ContainerStatus{State: running, Started: &yes}, []func(*corev1.Pod){probed, unready(healthStart.Add(-time.Hour))}, health.Signs{Probe: &health.Probe{Kind: health.Readiness, Since: healthStart}}},
		"not started":            {corev1.ContainerStatus{State: running, Started: &no}, []func(*corev1.Pod){probed, starting}, health.Signs{Probe: &health.Probe{Kind: health.Startup, Since: healthStart}}},
		"started, not ready":     {corev1.ContainerStatus{State: running, Started: &yes}, []func(*corev1.Pod){probed, starting}, health.Signs{Probe: &health.Probe{Kind: health.Readiness, Since: healthStart}}},
		"no probe":               {corev1.ContainerStatus{State: running}, nil, health.Signs{}},
		"being deleted":          {corev1.ContainerStatus{State: running}, []func(*corev1.Pod){probed, deleted}, health.Signs{}},
	} {
		p := testPod()
		c.status.Name = "app"
		p.Status.ContainerStatuses = []corev1.ContainerStatus{c.status}
		for _, f := range c.change {
			f(p)
		}
		if diff := cmp.Diff(map[string]health.Signs{"app": c.want}, signsOf(p)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestWhichPatternAContainerHas(t *testing.T) {
	const all, own = v1alpha1.AnnotationLogPattern, v1alpha1.AnnotationLogPattern + ".app"
	for name, c := range map[string]struct {
		annotations      map[string]string
		annotation, text string
	}{
		"none":              {nil, "", ""},
		"its pod's":         {map[string]string{all: "a"}, all, "a"},
		"its own":           {map[string]string{own: "b"}, own, "b"},
		"both":              {map[string]string{all: "a", own: "b"}, own, "b"},
		"all but this":      {map[string]string{all: "a", own: ""}, "", ""},
		"another's":         {map[string]string{own + "2": "b"}, "", ""},
		"its pod's, empty":  {map[string]string{all: ""}, all, ""}, // refused, and told
		"another's and all": {map[string]string{all: "a", own + "2": "b"}, all, "a"},
	} {
		p := testPod()
		p.Annotations = c.annotations
		if annotation, text := logPattern(p, "app"); annotation != c.annotation || text != c.text {
			t.Errorf("%s: %q %q, want %q %q", name, annotation, text, c.annotation, c.text)
		}
	}
}

// sick is an agent whose pod fails its probe and has that pattern.
func sick(t *testing.T, pattern string) (*agent, func() string) {
	t.Helper()
	p := testPod()
	p.Annotations[v1alpha1.AnnotationLogPattern] = pattern
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	p.Status.ContainerStatuses[0].RestartCount = 2
	p.Status.ContainerStatuses[0].State.Running.StartedAt.Time = healthStart
	a, _, events := testAgent(t, Act, p)
	a.logs = podlog.New(podlog.Config{HostRoot: t.TempDir(), Containers: a.patterned, Log: a.log})
	return a, func() string {
		select {
		case e := <-events.Events:
			return e
		default:
			return ""
		}
	}
}

func TestPatternedContainersAreFollowed(t *testing.T) {
	a, event := sick(t, "timeout")
	got := a.patterned()
	if len(got) != 1 || got[0].Pattern.String() != "timeout" {
		t.Fatalf("%+v", got)
	}
	got[0].Pattern = nil
	want := podlog.Container{Namespace: "ns", Pod: "web", PodUID: "u1", Name: "app", Instance: 2, Started: healthStart.Local()}
	if got[0].Started = got[0].Started.Local(); got[0] != want {
		t.Errorf("%+v, want %+v", got[0], want)
	}
	if e := event(); e != "" {
		t.Errorf("event %q", e)
	}
}

func TestBadPatternIsToldOnce(t *testing.T) {
	a, event := sick(t, "(")
	for range 2 {
		if got := a.patterned(); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
	}
	const want = "Warning BadLogPattern the log of container app is not read: annotation drover.dev/log-pattern: "
	if e := event(); !strings.HasPrefix(e, want) || !strings.Contains(e, "missing closing )") {
		t.Errorf("event %q", e)
	}
	if e := event(); e != "" {
		t.Errorf("told again: %q", e)
	}
	if l := a.unwell(healthStart)[0].Log; l == nil || !strings.Contains(l.Problem, "missing closing )") {
		t.Errorf("%+v", l)
	}
}

func TestUnwell(t *testing.T) {
	a, _ := sick(t, "(")
	now := healthStart.Add(time.Minute)
	want := []blame.Unwell{{Name: blame.Name{Namespace: "ns", Pod: "web", Container: "app"},
		Signs: health.Signs{Restarts: 2, Probe: &health.Probe{Kind: health.Readiness, Since: healthStart}}}}
	if diff := cmp.Diff(want, a.unwell(now)); diff != "" {
		t.Error(diff)
	}
	p, _ := a.names.pod("u1")
	if got := a.unwellSince(p, healthStart, now); got != "app: its readiness probe fails" {
		t.Errorf("%q", got)
	}
	if got := a.unwellSince(p, healthStart.Add(time.Second), now); got != "" {
		t.Errorf("shown before: %q", got)
	}
	err := testutil.CollectAndCompare(healthMetrics{&a.names}, strings.NewReader(`
# HELP drover_container_probe_failing 1 while the container runs and its probe (readiness, startup) does not succeed, by its pod's status; not there for a container whose probes do.
# TYPE drover_container_probe_failing gauge
drover_container_probe_failing{container="app",namespace="ns",pod="web",probe="readiness"} 1
# HELP drover_container_restarts_total How often the container was restarted, by its pod's status.
# TYPE drover_container_restarts_total counter
drover_container_restarts_total{container="app",namespace="ns",pod="web"} 2
`))
	if err != nil {
		t.Error(err)
	}
}
