package nodeagent

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/blame"
	"github.com/drover-project/drover/internal/health"
	"github.com/drover-project/drover/nodeagent/podlog"
)

// signsOf reads from a pod's status what its containers show of ill health, by their names. Those
// that show nothing are among them.
func signsOf(p *corev1.Pod) map[string]health.Signs {
	all := map[string]health.Signs{}
	probes := map[string]corev1.Container{}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		probes[c.Name] = c
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		signs := health.Signs{Restarts: int(s.RestartCount), LastExit: lastExit(s)}
		if w := s.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			signs.Waiting = w.Reason
		}
		if p.DeletionTimestamp == nil { // kubelet probes nothing that it ends
			signs.Probe = failingProbe(p, probes[s.Name], s)
		}
		all[s.Name] = signs
	}
	return all
}

// lastExit is nil for a container that ended as it should, once: one of a Job.
func lastExit(s corev1.ContainerStatus) *health.Exit {
	t := cmp.Or(s.State.Terminated, s.LastTerminationState.Terminated)
	if t == nil || t.ExitCode == 0 && t.Signal == 0 && s.RestartCount == 0 {
		return nil
	}
	return &health.Exit{Code: int(t.ExitCode), Signal: int(t.Signal), Reason: t.Reason, At: t.FinishedAt.Time}
}

// failingProbe goes by what kubelet made of the probes: single failures, below the threshold, are told
// in Events alone. Since when is known of the pod's containers together.
func failingProbe(p *corev1.Pod, c corev1.Container, s corev1.ContainerStatus) *health.Probe {
	if s.State.Running == nil || s.Ready {
		return nil
	}
	kind := health.Readiness
	switch started := s.Started != nil && *s.Started; {
	case c.StartupProbe != nil && !started:
		kind = health.Startup
	case c.ReadinessProbe == nil:
		return nil
	}
	since := s.State.Running.StartedAt.Time
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.ContainersReady && cond.Status == corev1.ConditionFalse && cond.LastTransitionTime.After(since) {
			since = cond.LastTransitionTime.Time
		}
	}
	return &health.Probe{Kind: kind, Since: since}
}

// signs are those of a pod's containers, with their logs.
func (a *agent) signs(p *corev1.Pod, now time.Time) map[string]health.Signs {
	all := signsOf(p)
	for name, s := range all {
		k := podlog.Key{PodUID: string(p.UID), Container: name}
		if l, ok := a.logs.Log(k, now); ok {
			s.Log = &l
		} else if why := a.patterns.refused(k); why != "" {
			s.Log = &health.Log{Problem: why}
		}
		all[name] = s
	}
	return all
}

// unwell are the containers of this node that show something, ordered by name.
func (a *agent) unwell(now time.Time) []blame.Unwell {
	all := []blame.Unwell{}
	for p := range a.names.all() {
		for name, s := range a.signs(p, now) {
			if s.Any() {
				all = append(all, blame.Unwell{Name: blame.Name{Namespace: p.Namespace, Pod: p.Name, Container: name}, Signs: s})
			}
		}
	}
	slices.SortFunc(all, func(a, b blame.Unwell) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	return all
}

// unwellSince says what a pod's containers have begun to show at start or later; empty: nothing.
func (a *agent) unwellSince(p *corev1.Pod, start, now time.Time) string {
	signs := a.signs(p, now)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(signs)) {
		if s := signs[name].Since(start); s != "" {
			all = append(all, name+": "+s)
		}
	}
	return strings.Join(all, "; ")
}

// patterns are those that the node's pods are annotated with. Its zero value has none.
type patterns struct {
	mu    sync.Mutex
	known map[podlog.Key]pattern
}

type pattern struct {
	text string
	re   *regexp.Regexp
	err  error
}

// refused says why a container's pattern is not used; empty: it is, or there is none.
func (p *patterns) refused(k podlog.Key) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.known[k].err; err != nil {
		return err.Error()
	}
	return ""
}

// patterned are the containers of the node whose logs are to be read. Who wrote a pattern that is
// refused is told by an Event, once.
func (a *agent) patterned() []podlog.Container {
	a.patterns.mu.Lock()
	defer a.patterns.mu.Unlock()
	var all []podlog.Container
	known := map[podlog.Key]pattern{}
	for p := range a.names.all() {
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			annotation, text := logPattern(p, s.Name)
			if annotation == "" {
				continue
			}
			k := podlog.Key{PodUID: string(p.UID), Container: s.Name}
			found, ok := a.patterns.known[k]
			if !ok || found.text != text {
				found = pattern{text: text}
				if found.re, found.err = health.Compile(text); found.err != nil {
					a.events.Event(p, corev1.EventTypeWarning, "BadLogPattern", fmt.Sprintf("the log of container %s is not read: annotation %s: %v", s.Name, annotation, found.err))
				}
			}
			known[k] = found
			if found.err != nil {
				continue
			}
			c := podlog.Container{Namespace: p.Namespace, Pod: p.Name, PodUID: k.PodUID, Name: s.Name, Instance: int(s.RestartCount), Pattern: found.re}
			if s.State.Running != nil {
				c.Started = s.State.Running.StartedAt.Time
			}
			all = append(all, c)
		}
	}
	a.patterns.known = known
	return all
}

// logPattern gives a container's pattern, and the annotation that it is from; empty: it has none.
// One of its own counts before its pod's; an empty one of its own means none.
func logPattern(p *corev1.Pod, container string) (annotation, text string) {
	own := v1alpha1.AnnotationLogPattern + "." + container
	if text, ok := p.Annotations[own]; ok {
		if text == "" {
			return "", ""
		}
		return own, text
	}
	if text, ok := p.Annotations[v1alpha1.AnnotationLogPattern]; ok {
		return v1alpha1.AnnotationLogPattern, text
	}
	return "", ""
}
