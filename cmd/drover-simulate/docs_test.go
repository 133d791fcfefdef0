package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	corev1 "k8s.io/api/core/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/simulate"
	"github.com/drover-project/drover/internal/view"
	"github.com/drover-project/drover/plugin/args"
)

// What docs/simulate.md shows is what is printed.
func TestDocs(t *testing.T) {
	t.Chdir("../..")
	raw, err := os.ReadFile("docs/simulate.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?s)\n    \$ drover-simulate ([^\n]*)\n(.*?\n)(?:\S|$)`).FindAllStringSubmatch(string(raw), -1)
	if len(shown) == 0 {
		t.Fatal("docs/simulate.md shows nothing")
	}
	for _, s := range shown {
		out, notes, err := ask(t, strings.Fields(s[1])...)
		if err != nil {
			t.Errorf("drover-simulate %s: %v (%s)", s[1], err, notes)
			continue
		}
		var want []string
		for line := range strings.Lines(strings.TrimRight(s[2], "\n")) {
			want = append(want, strings.TrimPrefix(strings.TrimRight(line, "\n"), "    "))
		}
		if diff := cmp.Diff(strings.Join(want, "\n")+"\n", out); diff != "" {
			t.Errorf("drover-simulate %s: docs (-), printed (+):\n%s", s[1], diff)
		}
	}
}

// What is compared by default is the chart's profile.
func TestDefaultIsTheCharts(t *testing.T) {
	chart, err := loader.Load("../../manifests/drover")
	if err != nil {
		t.Fatal(err)
	}
	i := action.NewInstall(&action.Configuration{Capabilities: chartutil.DefaultCapabilities})
	i.DryRun, i.ClientOnly, i.ReleaseName, i.Namespace = true, true, "drover", "drover-system"
	i.KubeVersion = &chartutil.KubeVersion{Version: "v1.34.9", Major: "1", Minor: "34"}
	r, err := i.Run(chart, nil)
	if err != nil {
		t.Fatal(err)
	}
	config := ""
	for _, doc := range strings.Split(r.Manifest, "\n---") {
		if !strings.Contains(doc, "KubeSchedulerConfiguration") {
			continue
		}
		objects, err := simulate.Read(write(t, "cm.yaml", doc), simulate.Lenient)
		if err != nil {
			t.Fatal(err)
		}
		config = objects[0].Object.(*corev1.ConfigMap).Data["config.yaml"]
	}
	theirs, err := withDefault([]byte(config), "the chart")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := simulate.Configuration([]byte(defaultConfig), "default", plugins(view.Snapshot{}))
	if err != nil {
		t.Fatal(err)
	}
	if len(theirs.Profiles) != len(ours.Profiles) {
		t.Fatalf("%d profiles, want %d", len(theirs.Profiles), len(ours.Profiles))
	}
	for i := range ours.Profiles {
		if diff := cmp.Diff(theirs.Profiles[i].Plugins, ours.Profiles[i].Plugins); diff != "" || theirs.Profiles[i].SchedulerName != ours.Profiles[i].SchedulerName {
			t.Errorf("profile %s: the chart's (-), ours (+):\n%s", ours.Profiles[i].SchedulerName, diff)
		}
	}
	is, err := args.FromConfig([]byte(config), v1alpha1.SchedulerName)
	if err != nil {
		t.Fatal(err)
	}
	has, err := args.FromConfig([]byte(defaultConfig), v1alpha1.SchedulerName)
	if err != nil || is != has {
		t.Errorf("the chart's arguments are %+v, ours %+v (%v)", is, has, err)
	}
}
