package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/pressure"
)

// render gives the chart's objects, as "helm template" would.
func render(t *testing.T, values map[string]any) (string, error) {
	t.Helper()
	chart, err := loader.Load("../../manifests/drover")
	if err != nil {
		t.Fatal(err)
	}
	i := action.NewInstall(&action.Configuration{Capabilities: chartutil.DefaultCapabilities})
	i.DryRun, i.ClientOnly, i.ReleaseName, i.Namespace = true, true, "drover", Namespace
	i.KubeVersion = &chartutil.KubeVersion{Version: "v1.34.9", Major: "1", Minor: "34"}
	r, err := i.Run(chart, values)
	if err != nil {
		return "", err
	}
	return r.Manifest, nil
}

func TestChartDefaults(t *testing.T) {
	m, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--mode=observe", `paused: "false"`, "handler: drover", "kind: DaemonSet", "routeTimeFloor: 200us"} {
		if !strings.Contains(m, want) {
			t.Errorf("the chart with default values lacks %q", want)
		}
	}
}

// XDP is attached only when it is asked for.
func TestChartRouteXDP(t *testing.T) {
	for _, on := range []bool{false, true} {
		m, err := render(t, map[string]any{"agent": map[string]any{"routeXDP": on}})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(m, "- --route-xdp") != on {
			t.Errorf("routeXDP %v: the agent's arguments are not accordingly", on)
		}
	}
}

// That addresses of earlier moves go along is opt-in.
func TestChartCarryEarlierAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		values map[string]any
		on     bool
	}{
		"by default": {nil, false},
		"off":        {map[string]any{"controller": map[string]any{"carryEarlierAddresses": false}}, false},
		"on":         {map[string]any{"controller": map[string]any{"carryEarlierAddresses": true}}, true},
	} {
		m, err := render(t, c.values)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(m, "- --carry-earlier-addresses\n") != c.on {
			t.Errorf("%s: the controller's arguments are not accordingly", name)
		}
	}
}

// The chart's thresholds are the program's, and what a user sets of them is passed on.
func TestThresholdsOfContention(t *testing.T) {
	set := map[string]any{"agent": map[string]any{"contention": map[string]any{"io": map[string]any{"severe": map[string]any{"trigger": .75}}}}}
	for name, values := range map[string]map[string]any{"by default": nil, "set": set} {
		m, err := render(t, values)
		if err != nil {
			t.Fatal(err)
		}
		for r, c := range pressure.Default() {
			for grade, want := range map[model.Grade]pressure.Threshold{model.Tight: c.Tight, model.Severe: c.Severe} {
				if values != nil && r == model.OnIO && grade == model.Severe {
					want.Trigger = .75
				}
				for what, v := range map[string]any{"trigger": want.Trigger, "clear": want.Clear, "window": want.Window} {
					if flag := fmt.Sprintf("- --contention-%s-%s-%s=%v\n", r, grade, what, v); !strings.Contains(m, flag) {
						t.Errorf("%s: the chart lacks %q", name, flag)
					}
				}
			}
		}
	}
}

func TestChartRefusesBadValues(t *testing.T) {
	for want, values := range map[string]map[string]any{
		"mode":       {"mode": "sometimes"},
		"tau":        {"scheduler": map[string]any{"routeTime": map[string]any{"tau": 0}}},
		"pauseImage": {"controller": map[string]any{"pauseImage": "registry.example/pause:3.10"}},
		"carryEarl":  {"controller": map[string]any{"carryEarlierAddresses": "perhaps"}},
		"gamma":      {"scheduler": map[string]any{"routeTime": map[string]any{"gamma": 1}}},
		"routeXDP":   {"agent": map[string]any{"routeXDP": "native"}},
		"weight":     {"scheduler": map[string]any{"weight": 0}},
		"podPath":    {"podPath": map[string]any{"enabled": "perhaps"}},
		"trigger":    {"agent": map[string]any{"contention": map[string]any{"cpu": map[string]any{"tight": map[string]any{"trigger": 50}}}}},
		"grafana":    {"metrics": map[string]any{"dashboards": map[string]any{"labels": map[string]any{"grafana_dashboard": 1}}}},
		"disk":       {"agent": map[string]any{"contention": map[string]any{"disk": map[string]any{}}}},
	} {
		_, err := render(t, values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("values %v: error %v, want one that names %q", values, err, want)
		}
	}
}

// Root on one node must not become root on all: an agent's roles may not touch pods
// beyond reading, nor secrets at all.
func TestAgentRolesAreSmall(t *testing.T) {
	m, err := render(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, doc := range strings.Split(m, "\n---") {
		var role rbacv1.ClusterRole
		if yaml.Unmarshal([]byte(doc), &role) != nil || !strings.HasSuffix(role.Kind, "Role") || role.Name != "drover-agent" {
			continue
		}
		checked++
		for _, r := range role.Rules {
			if slices.Contains(r.Resources, "*") || slices.Contains(r.Verbs, "*") || slices.Contains(r.Resources, "secrets") {
				t.Errorf("%s %s: rule %v is too wide", role.Kind, role.Name, r)
			}
			if !slices.Contains(r.Resources, "pods") {
				continue
			}
			for _, v := range r.Verbs {
				if v != "get" && v != "list" && v != "watch" && v != "migrate" {
					t.Errorf("%s %s may %q pods", role.Kind, role.Name, v)
				}
			}
		}
	}
	if checked != 2 {
		t.Fatalf("found %d roles named drover-agent, want a ClusterRole and a Role", checked)
	}
}
