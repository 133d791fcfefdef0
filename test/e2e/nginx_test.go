package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/test/cluster"
)

// nginxServes: the same workers answer after the move, with the counters in the memory that
// they share with their master; and the master is there: it replaces a worker that dies.
func nginxServes(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) func(*corev1.Pod) {
	t.Helper()
	n := nginx{addr: serviceAddr(ctx, t, c, pod), client: &http.Client{Transport: &http.Transport{
		DialContext: c.Lab.DialerOn("n1"), DisableKeepAlives: true,
	}}}
	both := func(workers []string) bool { return len(workers) == 2 }
	before := n.workers(ctx, t, "both answer", both)
	handled := must[int](t)(n.requests(ctx))
	return func(pod *corev1.Pod) {
		t.Helper()
		after := n.workers(ctx, t, "both answer", both)
		if !slices.Equal(before, after) {
			t.Errorf("workers %v answer, before the move %v", after, before)
		}
		if now := must[int](t)(n.requests(ctx)); now <= handled {
			t.Errorf("%d requests were handled in all, before the move it were %d: the shared memory is another", now, handled)
		}
		body := must[string](t)(n.get(ctx, "/mime.types"))
		if !strings.Contains(body, "text/html") {
			t.Errorf("the file that is served holds %q", body)
		}
		must[string](t)(kubectl(ctx, c, "exec", "-n", pod.Namespace, pod.Name, "--", "sh", "-c", "kill -9 "+after[0]))
		n.workers(ctx, t, "a new one answers", func(workers []string) bool {
			return slices.ContainsFunc(workers, func(w string) bool { return !slices.Contains(after, w) })
		})
	}
}

type nginx struct {
	addr   string
	client *http.Client
}

// workers asks until the workers that answered are as they should be, and gives the numbers
// of their processes, sorted.
func (n nginx) workers(ctx context.Context, t *testing.T, what string, ok func(workers []string) bool) []string {
	t.Helper()
	var workers []string
	check(t, cluster.Eventually(ctx, "workers of nginx: "+what, func(ctx context.Context) (bool, string) {
		for range 20 {
			w, err := n.get(ctx, "/worker")
			if err != nil {
				return false, err.Error()
			}
			if !slices.Contains(workers, w) {
				workers = append(workers, w)
			}
		}
		slices.Sort(workers)
		return ok(workers), fmt.Sprint(workers)
	}))
	return workers
}

// requests is how many nginx counts in all its workers.
func (n nginx) requests(ctx context.Context) (int, error) {
	text, err := n.get(ctx, "/requests")
	if err != nil {
		return 0, err
	}
	_, counts, _ := strings.Cut(text, "requests")
	var accepts, handled, requests int
	if _, err := fmt.Sscan(counts, &accepts, &handled, &requests); err != nil {
		return 0, fmt.Errorf("status of nginx %q: %w", text, err)
	}
	return requests, nil
}

func (n nginx) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addr+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return string(body), err
}
