package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/drover-project/drover/api/v1alpha1"
)

// ReasonReplacementAltered: what the API server stored is not what was asked for.
const ReasonReplacementAltered = "ReplacementAltered"

// alteration is one field that differs between the replacement asked for and the stored one.
type alteration struct {
	path    []string // below spec; things in lists by their names
	was, is any
}

func (a alteration) added() bool { return empty(a.was) }

func (a alteration) String() string {
	field := "spec." + strings.Join(a.path, ".")
	switch {
	case a.added():
		return fmt.Sprintf("%s was added: %s", field, short(a.is))
	case empty(a.is):
		return fmt.Sprintf("%s was taken away: %s", field, short(a.was))
	}
	return fmt.Sprintf("%s is %s, want %s", field, short(a.is), short(a.was))
}

func short(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if s := string(b); len(s) <= 100 {
		return s
	}
	return string(b[:100]) + "…"
}

// computed are filled in by the scheduler and by admission from other fields.
var computed = []string{"nodeName", "priority", "preemptionPolicy", "overhead"}

// placing are fields that tell where and when a pod may run and change nothing of the
// processes that are restored in it.
var placing = []string{
	"affinity", "imagePullSecrets", "nodeSelector", "priorityClassName", "schedulingGates",
	"tolerations", "topologySpreadConstraints", "terminationGracePeriodSeconds", "readinessGates",
}

// shaping are fields that make up what the processes find around them, so that nothing may
// be added to them either.
var shaping = []string{
	"activeDeadlineSeconds", "containers", "ephemeralContainers", "hostIPC", "hostNetwork", "hostPID",
	"hostUsers", "initContainers", "os", "resourceClaims", "resources", "runtimeClassName", "schedulerName",
	"securityContext", "serviceAccount", "serviceAccountName", "shareProcessNamespace", "volumes",
}

// matters tells whether the restored processes would notice, or not be restored at all.
func (a alteration) matters() bool {
	top := a.path[0]
	if slices.Contains(placing, top) {
		return false
	}
	if !slices.Contains(shaping, top) {
		return !a.added() // a default of a later version
	}
	if len(a.path) > 2 && strings.HasSuffix(top, "ontainers") {
		switch field := a.path[2:]; field[0] {
		case "imagePullPolicy":
			return false
		case "resources":
			// A request places; a limit is felt.
			return !a.added() || len(field) < 2 || field[1] != "requests"
		}
	}
	return true
}

// alterations compares the specs. Lists of things with names are compared by name.
func alterations(asked, stored *corev1.PodSpec) ([]alteration, error) {
	a, err := runtime.DefaultUnstructuredConverter.ToUnstructured(asked)
	if err != nil {
		return nil, fmt.Errorf("compare the replacement asked for: %w", err)
	}
	s, err := runtime.DefaultUnstructuredConverter.ToUnstructured(stored)
	if err != nil {
		return nil, fmt.Errorf("compare the stored replacement: %w", err)
	}
	for _, k := range computed {
		delete(a, k)
		delete(s, k)
	}
	var out []alteration
	compare(nil, a, s, &out)
	return out, nil
}

func compare(path []string, was, is any, out *[]alteration) {
	was, is = byName(was), byName(is)
	a, isMap := was.(map[string]any)
	b, areMaps := is.(map[string]any)
	if !isMap || !areMaps {
		if !same(was, is) {
			*out = append(*out, alteration{path, was, is})
		}
		return
	}
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if empty(a[k]) && empty(b[k]) {
			continue
		}
		compare(append(slices.Clone(path), k), a[k], b[k], out)
	}
}

func same(a, b any) bool {
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && string(x) == string(y)
}

// empty: absent, or there without anything in it, which means the same.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}

// byName turns a list of named things into a map.
func byName(v any) any {
	list, is := v.([]any)
	if !is {
		return v
	}
	out := make(map[string]any, len(list))
	for _, item := range list {
		m, _ := item.(map[string]any)
		name, named := m["name"].(string)
		if _, twice := out[name]; !named || twice {
			return v
		}
		out[name] = m
	}
	return out
}

// judgeStored compares the replacement with what was asked for, before the agents learn of
// it. What does not matter is told in the answer's second part.
func judgeStored(asked, stored *corev1.Pod) (*Refusal, []string, error) {
	all, err := alterations(&asked.Spec, &stored.Spec)
	if err != nil {
		return nil, nil, err
	}
	var harmless []string
	for _, a := range all {
		if a.matters() {
			return refuse(ReasonReplacementAltered,
				"admission altered replacement %s: %s: the process cannot go on in another pod than its own", stored.Name, a), nil, nil
		}
		harmless = append(harmless, a.String())
	}
	for _, k := range []string{v1alpha1.AnnotationMigration, v1alpha1.AnnotationHandOver, v1alpha1.AnnotationEpoch} {
		if asked.Annotations[k] != stored.Annotations[k] {
			return refuse(ReasonReplacementAltered, "admission altered replacement %s: annotation %s is %q, want %q",
				stored.Name, k, stored.Annotations[k], asked.Annotations[k]), nil, nil
		}
	}
	return nil, harmless, nil
}
