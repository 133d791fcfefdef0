package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/clients"
	"github.com/drover-project/drover/test/cluster"
)

var (
	soakClientMoves = flag.Int("soak.client-moves", 0, "moves in TestSoakRedis and TestSoakHTTP; 0: they are not run")
	soakClients     = flag.Int("soak.clients", 50, "clients that are connected meanwhile")
)

// 50 clients write throughout, and none of them sees an error; nothing that was acknowledged is
// lost.
func TestSoakRedis(t *testing.T) {
	soakServer(t, redisServer(), func(addr string) []string { return []string{"redis", addr} })
}

func redisServer() cluster.Software {
	return cluster.Software{Name: "redis", Port: 6379, Command: []string{
		"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--io-threads", "2",
	}}
}

// No request over a kept-alive connection through a Service fails.
func TestSoakHTTP(t *testing.T) {
	soakServer(t, nginxServer(t), func(addr string) []string { return []string{"http", addr, "/mime.types"} })
}

func nginxServer(t *testing.T) cluster.Software {
	conf := string(must[[]byte](t)(softwareFiles.ReadFile("software/nginx.conf")))
	return cluster.Software{Name: "nginx", Port: 8080, Files: map[string]string{"nginx.conf": conf},
		Command: []string{"nginx", "-e", "stderr", "-c", "/files/nginx.conf"},
	}
}

// clientsSaw is what is written of a soak. Times are in milliseconds.
type clientsSaw struct {
	Began     time.Time      `json:"began"`
	Moves     int            `json:"moves"`
	Completed int            `json:"completedMoves"`
	Frozen    []float64      `json:"frozenMs"`
	Clients   int            `json:"clients"`
	Saw       clients.Report `json:"saw"`
}

// Phases of the clients: before the first move, from the order of each to its end, and between two.
const (
	phaseBefore  = "before"
	phaseMoving  = "moving"
	phaseBetween = "between"
	// quietTime is how long the clients work undisturbed, before the first move and after each.
	quietTime = 3 * time.Second
)

// soakServer moves a server from node to node while clients work through its Service. What they saw is
// written to out/soak whatever it is.
func soakServer(t *testing.T, s cluster.Software, args func(addr string) []string) {
	if *soakClientMoves == 0 {
		t.Skip("-soak.client-moves is 0: make soak-redis and make soak-http run it")
	}
	_, c, ns := scene(t, "soak-"+s.Name)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(*soakClientMoves)*time.Minute)
	defer cancel()
	s.Namespace, s.Image, s.Keep = ns, must[string](t)(c.LoadSoftware(ctx)), "1h"
	check(t, c.Start(ctx, s))
	pod := must[*corev1.Pod](t)(c.OnlyPod(ctx, ns, s.Name))
	check(t, c.Client.Create(ctx, c.Pod(cluster.Ticker{Namespace: ns, Name: "clients", Node: "n1", Silent: true})))
	from := must[*corev1.Pod](t)(c.Ready(ctx, ns, "clients"))
	r := clientsSaw{Began: time.Now().UTC(), Moves: *soakClientMoves, Clients: *soakClients}
	report := fmt.Sprintf("../../out/soak/%s.json", s.Name)
	work := must[*cluster.Clients](t)(c.StartClients(ctx, from, r.Clients, args(serviceAddr(ctx, t, c, pod))...))
	err := func() error {
		if err := work.Phase(phaseBefore); err != nil {
			return err
		}
		<-time.After(quietTime)
		for ; r.Completed < r.Moves; r.Completed++ {
			if err := work.Phase(phaseMoving); err != nil {
				return err
			}
			var frozen time.Duration
			var err error
			if pod, frozen, err = moveOn(ctx, c, pod); err != nil {
				return fmt.Errorf("move %d: %w", r.Completed+1, err)
			}
			r.Frozen = append(r.Frozen, millis(frozen))
			t.Logf("move %d of %d, to %s: frozen %.0f ms", r.Completed+1, r.Moves, pod.Spec.NodeName, millis(frozen))
			if err := work.Phase(phaseBetween); err != nil {
				return err
			}
			<-time.After(quietTime)
		}
		return nil
	}()
	if err != nil {
		t.Error(err)
	}
	r.Saw = must[clients.Report](t)(work.End())
	check(t, r.write(report))
	t.Logf("%d clients, %d requests; phases %+v", r.Clients, r.Saw.Done, r.Saw.Phases)
	if r.Saw.Failed > 0 || r.Saw.Reconnected > 0 {
		t.Errorf("in %d moves %d requests failed and %d connections were made anew, want none; the first: %q",
			r.Completed, r.Saw.Failed, r.Saw.Reconnected, r.Saw.Failures[:min(3, len(r.Saw.Failures))])
	}
	if r.Saw.Lost > 0 {
		t.Errorf("%d acknowledged writes are lost: %s", r.Saw.Lost, r.Saw.FirstLost)
	}
}

// moveOn moves a pod to the next node, and gives what is there then.
func moveOn(ctx context.Context, c *cluster.Cluster, pod *corev1.Pod) (*corev1.Pod, time.Duration, error) {
	order, err := c.Order(ctx, pod, next(c.Nodes(), pod.Spec.NodeName))
	if err != nil {
		return pod, 0, err
	}
	end, err := c.Ended(ctx, order)
	if err != nil {
		return pod, 0, err
	}
	if end.Status.Phase != v1alpha1.PhaseCompleted || end.Status.FrozenTime == nil {
		return pod, 0, fmt.Errorf("it ended as %s: %s: %s", end.Status.Phase, end.Status.DecisionReason, end.Status.DecisionMessage)
	}
	if kept := end.Status.Connections; kept == nil || kept.State != v1alpha1.ConnectionsKept {
		return pod, 0, fmt.Errorf("it closed the pod's connections: %+v", kept)
	}
	pod, err = c.OnlyPod(ctx, pod.Namespace, pod.Labels["app"])
	return pod, end.Status.FrozenTime.Duration, err
}

func (r clientsSaw) write(name string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}
