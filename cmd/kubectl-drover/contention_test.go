package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/health"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

func TestContentionShowsWhoOwesWhom(t *testing.T) {
	name := func(pod string) blame.Name { return blame.Name{Namespace: "shop", Pod: pod, Container: "main"} }
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := blame.Report{At: at, Unwell: []blame.Unwell{
		{Name: name("batch"), Signs: health.Signs{Restarts: 2, LastExit: &health.Exit{Code: 137, Reason: "OOMKilled", At: at.Add(-90 * time.Second)}, Waiting: "CrashLoopBackOff"}},
		{Name: name("noisy"), Signs: health.Signs{Log: &health.Log{Matches: 12, Skipped: 3 << 19}}},
		{Name: name("odd"), Signs: health.Signs{Log: &health.Log{Problem: "the pattern is empty"}}},
		{Name: name("old"), Signs: health.Signs{Restarts: 1, LastExit: &health.Exit{Code: 1, Reason: "Error", At: at.Add(-time.Hour)}}},
		{Name: name("web"), Signs: health.Signs{Probe: &health.Probe{Kind: health.Readiness, Since: at.Add(-12 * time.Second)}, Log: &health.Log{Matches: 512, PerMinute: 40}}},
	}, Steal: .25, SoftIRQ: .125, Containers: []blame.Shares{
		{Name: name("batch"), Run: 1.5, Wait: .001, Evidence: pressure.Evidence{OfLimit: .97, Refaults: 1200, OOMKills: 2, MemoryStall: .4}},
		{Name: name("old"), Suffering: true},
		{Name: name("web"), Suffering: true, Run: .5, Wait: 4, Own: .5, Quota: 1, NodeQuota: .1, Node: .2, Steal: .02, SoftIRQ: .03, Idle: .1,
			Grades:     map[model.Resource]model.Grade{model.OnIO: model.Tight, model.OnMemory: model.Fine, model.OnCPU: model.Severe},
			Evidence:   pressure.Evidence{MajorFaults: 3, IOStall: .5},
			Neighbours: []blame.Neighbour{{Name: name("batch"), Wait: 1.75}, {Name: name("noisy"), Wait: .3}, {Name: name("quiet"), Wait: .001}}},
	}}
	var out bytes.Buffer
	if err := printContention(&out, "n1", r); err != nil {
		t.Fatal(err)
	}
	want := `
CONTAINER         SUFFERS                CPU USED   WAITS   OWN    QUOTA   NODE QUOTA   NODE   STEAL   SOFTIRQ   IDLE   NEIGHBOURS
shop/batch/main   no                     1.50       0.00    0.00   0.00    0.00         0.00   0.00    0.00      0.00   -
shop/old/main     yes                    0.00       0.00    0.00   0.00    0.00         0.00   0.00    0.00      0.00   -
shop/web/main     cpu severe, io tight   0.50       4.00    0.50   1.00    0.10         0.20   0.02    0.03      0.10   shop/batch/main 1.75, shop/noisy/main 0.30

CONTAINER         MEMORY STALL   OF ITS LIMIT   MAJOR FAULTS   REFAULTS   OOM KILLS   IO STALL
shop/batch/main   0.40           97 %           0/s            1200/s     2           0.00
shop/web/main     0.00           none           3/s            0/s        0           0.50

EVIDENCE OF       RESTARTS   LAST EXIT                NOT READY              LINES OF ITS LOG
shop/batch/main   2          137 OOMKilled, 90s ago   CrashLoopBackOff       -
shop/noisy/main   0          -                        -                      0/min, 12 in all, 1.5 MiB not read
shop/odd/main     0          -                        -                      the pattern is empty
shop/web/main     0          -                        readiness probe, 12s   40/min, 512 in all

seconds per second; of n1's CPU a hypervisor took 0.25 (steal), soft interrupts 0.12
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
}

func TestAnUnknownNodeIsNotAsked(t *testing.T) {
	n1 := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	elsewhere := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "drover-system", Name: "agent", Labels: map[string]string{"app.kubernetes.io/name": "drover-agent"}}}
	elsewhere.Spec.NodeName = "n2"
	tl := &tool{system: "drover-system", flags: genericclioptions.NewConfigFlags(true)}
	server := "http://127.0.0.1:1"
	tl.flags.APIServer = &server
	for node, want := range map[string]string{"n9": `there is no node "n9"`, "n1": "there is no agent on node n1"} {
		if err := tl.askAbout(t.Context(), fakeClient(t, n1, elsewhere), node, "/v1/contention", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", node, err, want)
		}
	}
}
