package main

import (
	"strings"
	"testing"
)

// Each is told on one line with what is wrong, where, and what to do; nothing is printed beside.
func TestBadInput(t *testing.T) {
	replace := strings.NewReplacer
	good := func(text string) string { return text }
	for _, tt := range []struct {
		name    string
		cluster func(string) string
		pods    func(string) string
		measure func(string) string
		config  string
		args    []string
		want    string
	}{
		{name: "an empty cluster", cluster: func(string) string { return "# nothing\n---\n" }, want: "c.yaml has no objects"},
		{name: "a cluster without nodes", cluster: func(string) string { return web }, want: "the cluster has no Node"},
		{name: "no YAML", cluster: func(string) string { return "apiVersion: v1\nkind: {" }, want: "c.yaml:1: "},
		{name: "not of Kubernetes", cluster: func(s string) string { return s + "---\nname: x\n" }, want: "c.yaml:20: there is no kind"},
		{name: "a kind of somebody's", cluster: func(s string) string { return s + "---\napiVersion: x.io/v1\nkind: Odd\n" }, want: "c.yaml:20: kind Odd of x.io/v1 is not known to the scheduler: leave it out"},
		{name: "a node twice", cluster: replace("name: n2", "name: n1").Replace, want: "c.yaml:7: Node n1 is there twice: first in "},
		{name: "a pod on no node of these", cluster: replace("nodeName: n1", "nodeName: n9").Replace, want: `c.yaml:12: pod shop/db is on node "n9", which is not among the nodes`},
		{name: "a node with less than nothing", cluster: replace(`cpu: "4"`, `cpu: "-4"`).Replace, want: `c.yaml:2: node "n1": status.allocatable: -4 of cpu, must be 0 or more`},
		{name: "a node of no size", cluster: replace(`memory: 8Gi, `, ``).Replace, want: `c.yaml:2: node "n1": status.allocatable.memory is missing`},
		{name: "an amount that is no number", cluster: replace(`memory: 8Gi`, `memory: NaN`).Replace, want: `c.yaml:2: status.allocatable.memory is "NaN", want a quantity such as 500m or 2Gi`},
		{name: "a running pod that requests less than nothing", cluster: replace("memory: 2Gi", "memory: -2Gi").Replace, want: "c.yaml:12: pod shop/db: it requests -2Gi of memory"},

		{name: "no pods", pods: func(string) string { return "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n" }, want: "there are no pods to place"},
		{name: "a field that is none", pods: replace("containers:", "contaners:").Replace, want: `p.yaml:2: strict decoding error: unknown field "spec.contaners"`},
		{name: "a pod with a node", pods: replace("spec:", "spec:\n  nodeName: n1").Replace, want: `p.yaml:2: pod web names the node "n1": no scheduler places it`},
		{name: "a pod that is refused", pods: replace(`cpu: "1"`, `cpu: "-1"`).Replace, want: "p.yaml:2: pod web: spec.containers[0].resources.requests[cpu]: Invalid value"},
		{name: "a pod that is there", pods: replace("name: web", "name: db").Replace, want: "p.yaml:2: Pod shop/db is there twice: first in "},
		{name: "a pod without a name", pods: replace("name: web, ", "").Replace, want: "p.yaml:2: a Pod has no metadata.name"},
		{name: "a DaemonSet", pods: func(string) string { return "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}\n" }, want: "p.yaml:1: DaemonSet d cannot be placed"},
		{name: "fewer than no replicas", pods: func(string) string { return deployment("web", -1, "1", "") }, want: "p.yaml:2: Deployment web has -1 replicas"},
		{name: "too many replicas", pods: func(string) string { return deployment("web", 2_000_000_000, "1", "") }, want: "at most 100000 pods"},
		{name: "a template that is refused", pods: func(string) string { return deployment("web", 2, "-1", "") }, want: "p.yaml:2: Deployment web: pod web-0: spec.containers[0].resources.requests[cpu]: Invalid value"},

		{name: "measurements cut short", measure: func(s string) string { return s[:len(s)/2] }, want: "view.json:1: unexpected end of JSON input"},
		{name: "measurements that are none", measure: func(string) string { return "{}" }, want: "view.json: at is missing"},
		{name: "of nobody", measure: func(string) string { return `{"at":"2026-01-02T03:04:05Z"}` }, want: "view.json: nodes is empty"},
		{name: "of another cluster", measure: replace(`"n1":{"state"`, `"m1":{"state"`, `"n2":{"state"`, `"m2":{"state"`).Replace, want: "none of the cluster's nodes (n1, ...) is among those that were measured (m1, ...)"},
		{name: "a route time before it began", measure: replace(`"rtt":2000000`, `"rtt":-1`).Replace, want: "nodes.n1.state.podRoutes.n2: rtt is -1ns"},
		{name: "use of less than nothing", measure: replace(`"used":{"cpu":2`, `"used":{"cpu":-3.5`).Replace, want: "nodes.n1.state.load.used.cpu is -3.5 cores, must be 0 or more"},
		{name: "use that is no number", measure: replace(`"used":{"cpu":2`, `"used":{"cpu":NaN`).Replace, want: "view.json:1: invalid character 'N'"},

		{name: "an empty configuration", config: "\n", want: "config.yaml: "},
		{name: "a configuration of something else", config: "apiVersion: v1\nkind: Pod\n", want: "want a KubeSchedulerConfiguration"},
		{name: "a plugin that nobody knows", config: profile("plugins: {multiPoint: {enabled: [{name: Luck}]}}"), want: `config.yaml: profile p: plugin "Luck" is not known here: kube-scheduler's own are, and NodeResourcesAllocatable, PodState, RouteTime`},
		{name: "two profiles of one name", config: profile("") + "- schedulerName: p\n", want: "config.yaml: profiles[1].schedulerName: Duplicate value"},
		{name: "an argument out of range", config: profile("plugins: {multiPoint: {enabled: [{name: RouteTime}]}}\n  pluginConfig: [{name: RouteTime, args: {tau: 0}}]"), want: "tau"},
		{name: "an extender", config: profile("") + "extenders: [{urlPrefix: 'http://127.0.0.1:1', filterVerb: f, weight: 1}]\n", want: "extenders"},

		{name: "no pods at all", args: []string{"--cluster", "x", "--measurements", "none"}, want: "--pods is missing"},
		{name: "no measurements", args: []string{"--cluster", "x", "--pods", "y"}, want: "--cluster needs --measurements"},
		{name: "no such file", args: []string{"--cluster", "/nowhere", "--pods", "y", "--measurements", "none"}, want: "/nowhere"},
		{name: "no runs", args: []string{"--cluster", "x", "--pods", "y", "--measurements", "none", "--runs", "0"}, want: "--runs is 0, want 1 or more"},
		{name: "no such output", args: []string{"--pods", "y", "-o", "yaml"}, want: `output "yaml"`},
		{name: "an argument", args: []string{"x"}, want: `there is an argument "x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if args == nil {
				for _, f := range []*func(string) string{&tt.cluster, &tt.pods, &tt.measure} {
					if *f == nil {
						*f = good
					}
				}
				args = []string{"--cluster", write(t, "c.yaml", tt.cluster(twoNodes)), "--pods", write(t, "p.yaml", tt.pods(web)), "--measurements", write(t, "view.json", tt.measure(twoText(t)))}
				if tt.config != "" {
					args = append(args, "--config", write(t, "config.yaml", tt.config))
				}
			}
			out, _, err := ask(t, args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, tt.want)
			}
			if out != "" {
				t.Errorf("printed beside the error: %s", out)
			}
		})
	}
}

func profile(text string) string {
	return "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- schedulerName: p\n  " + text + "\n"
}

// What is out of the ordinary and no error is told on the side.
func TestNotes(t *testing.T) {
	waiting := strings.Replace(web, "name: web", "name: waits", 1)
	malformed := strings.Replace(web, "app=db", "app=", 1)
	unmeasured := strings.Replace(twoText(t), `"n2":{"state"`, `"n3":{"state"`, 1)
	_, notes, err := ask(t, "--cluster", write(t, "c.yaml", twoNodes+"---"+waiting), "--pods", write(t, "p.yaml", malformed), "--measurements", write(t, "view.json", unmeasured))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 pods of the cluster are on no node", "shop/web: annotation drover.dev/peers is malformed", "1 of 2 nodes were not measured"} {
		if !strings.Contains(notes, want) {
			t.Errorf("notes lack %q:\n%s", want, notes)
		}
	}
}
