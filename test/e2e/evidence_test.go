package e2e

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/test/cluster"
)

// A container that logs a line which matches its pattern, crashes once and fails its readiness
// probe shows all three, and a pattern that is none is told to who wrote it.
func TestEvidenceOfIllHealthIsShown(t *testing.T) {
	ctx, c, ns := scene(t, "evidence")
	pod := c.Pod(cluster.Ticker{Namespace: ns, Name: "unwell", Node: c.Nodes()[1], Silent: true})
	pod.Annotations[v1alpha1.AnnotationLogPattern] = "(?i)timeout|deadline exceeded"
	pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Path = "/nowhere"
	bad := c.Pod(cluster.Ticker{Namespace: ns, Name: "bad", Node: c.Nodes()[1], Silent: true})
	bad.Annotations[v1alpha1.AnnotationLogPattern+".ticker"] = "(unbalanced"
	check(t, c.Client.Create(ctx, pod))
	check(t, c.Client.Create(ctx, bad))
	running := func(restarts int32) {
		t.Helper()
		check(t, cluster.Eventually(ctx, fmt.Sprintf("the container runs after %d restarts", restarts), func(ctx context.Context) (bool, string) {
			if err := c.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return false, err.Error()
			}
			for _, s := range pod.Status.ContainerStatuses {
				return s.State.Running != nil && s.RestartCount == restarts, fmt.Sprintf("%+v", s)
			}
			return false, "no container"
		}))
	}
	listens := func() {
		t.Helper()
		check(t, cluster.Eventually(ctx, "the container listens", func(ctx context.Context) (bool, string) {
			err := c.Ask(ctx, pod, 8080, "/healthz", nil)
			return err == nil, fmt.Sprint(err)
		}))
	}
	running(0)
	listens()
	check(t, c.Crash(ctx, pod))
	running(1)
	listens()
	for _, line := range []string{"all is well", "upstream: Timeout after 3 s", "context deadline exceeded"} {
		check(t, c.Ask(ctx, pod, 8080, "/log?line="+url.QueryEscape(line), nil))
	}

	shown := []*regexp.Regexp{
		regexp.MustCompile(`(?m)^` + ns + `/unwell/ticker +1 +1 Error, \d+s ago +readiness probe, \d+s +2/min, 2 in all$`),
		regexp.MustCompile(`(?m)^` + ns + `/bad/ticker +0 +- +- +the pattern is no regular expression`),
	}
	check(t, cluster.Eventually(ctx, "all is shown", func(ctx context.Context) (bool, string) {
		out, err := c.Tool(ctx, "contention", pod.Spec.NodeName)
		if err != nil {
			return false, err.Error() + out
		}
		return !slices.ContainsFunc(shown, func(r *regexp.Regexp) bool { return !r.MatchString(out) }), out
	}))
	t.Log(must[string](t)(c.Tool(ctx, "contention", pod.Spec.NodeName)))
	check(t, cluster.Eventually(ctx, "the owner of the bad pattern is told", func(ctx context.Context) (bool, string) {
		events := &corev1.EventList{}
		if err := c.Client.List(ctx, events, client.InNamespace(ns)); err != nil {
			return false, err.Error()
		}
		for _, e := range events.Items {
			if e.Reason == "BadLogPattern" && e.InvolvedObject.Name == "bad" {
				return strings.Contains(e.Message, "drover.dev/log-pattern.ticker") && strings.Contains(e.Message, "missing closing )"), e.Message
			}
		}
		return false, fmt.Sprintf("%d events, none BadLogPattern", len(events.Items))
	}))
	_, prometheus, err := c.Lab.URLs()
	check(t, err)
	for _, query := range []string{"drover_container_log_matches_total", "drover_container_restarts_total", "drover_container_probe_failing"} {
		query := fmt.Sprintf("sum(%s{exported_namespace=%q})", query, ns) // `namespace` is that of the agent
		check(t, cluster.Eventually(ctx, query, func(ctx context.Context) (bool, string) {
			got, err := ask(ctx, prometheus, query)
			if err != nil {
				return false, err.Error()
			}
			return got != "" && got != "0", "is " + got
		}))
	}
}
