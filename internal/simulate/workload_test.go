package simulate

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {capacity: {cpu: 1, memory: 1Gi, pods: 10}}\n"

func read(t *testing.T, text string) []Object {
	t.Helper()
	objects, err := Read(writeFile(t, filepath.Join(t.TempDir(), "f.yaml"), text), Strict)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

const container = "containers: [{name: c, image: i, resources: {limits: {cpu: 200m}}}]"

// The pods of each kind, in the order of the manifests, as the API server would have them.
func TestWorkload(t *testing.T) {
	c, err := NewCluster(read(t, node))
	if err != nil {
		t.Fatal(err)
	}
	template := "selector: {matchLabels: {app: x}}\n  template: {metadata: {labels: {app: x}}, spec: {" + container + "}}\n"
	pods, err := c.Workload(read(t, `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  replicas: 2
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]
  `+template+`---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: x}}
---
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec: {`+container+`}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  `+template+`---
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec:
  parallelism: 5
  completions: 2
  template: {spec: {restartPolicy: Never, `+container+`}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: none}
spec:
  replicas: 0
  `+template), "home")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pods {
		by := ""
		if o := metav1.GetControllerOf(p); o != nil {
			by = " of " + o.Kind + " " + o.Name
		}
		got = append(got, p.Namespace+"/"+p.Name+by)
		// Requests that are left out are the limits.
		if cpu := p.Spec.Containers[0].Resources.Requests.Cpu().MilliValue(); cpu != 200 {
			t.Errorf("%s requests %d m", p.Name, cpu)
		}
	}
	want := []string{
		"shop/db-0 of StatefulSet db", "shop/db-1 of StatefulSet db", "home/alone", "home/web-0 of ReplicaSet web-simulated",
		"home/job-0 of Job job", "home/job-1 of Job job",
	}
	if !slices.Equal(got, want) {
		t.Errorf("pods\n%q, want\n%q", got, want)
	}
	if v := pods[1].Spec.Volumes; len(v) != 1 || v[0].PersistentVolumeClaim.ClaimName != "data-db-1" {
		t.Errorf("volumes of db-1: %+v", v)
	}
	var others []string
	for _, o := range c.Others {
		m := o.(metav1.Object)
		others = append(others, kindOf(o)+" "+named(m))
	}
	slices.Sort(others)
	want = []string{
		"PersistentVolumeClaim shop/data-db-0", "PersistentVolumeClaim shop/data-db-1", "ReplicaSet home/none",
		"ReplicaSet home/web-simulated", "Service home/db", "StatefulSet shop/db",
	}
	if !slices.Equal(others, want) {
		t.Errorf("the cluster has\n%q, want\n%q", others, want)
	}
}

// An interrupted simulation has no answer: what the scheduler says once its context has ended is not true.
func TestInterrupted(t *testing.T) {
	c, err := NewCluster(read(t, node))
	if err != nil {
		t.Fatal(err)
	}
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: %}\nspec: {" + container + "}\n---\n"
	pods, err := c.Workload(read(t, strings.Replace(pod, "%", "a", 1)+strings.Replace(pod, "%", "b", 1)), "home")
	if err != nil {
		t.Fatal(err)
	}
	conf, err := Configuration([]byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	a, err := Ask(ctx, Question{Cluster: c, Pods: pods, Config: conf, Runs: 1, Progress: func(int, int) { stop() }})
	if a != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("answer %+v, error %v", a, err)
	}
}

// A gate, and a claim that nobody has made, hold a pod back: in the scheduler's words.
func TestPendingReasons(t *testing.T) {
	c, err := NewCluster(read(t, node))
	if err != nil {
		t.Fatal(err)
	}
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: %}\nspec: {" + container + ", "
	pods, err := c.Workload(read(t, strings.Replace(pod, "%", "gated", 1)+"schedulingGates: [{name: x.io/wait}]}\n---\n"+
		strings.Replace(pod, "%", "claims", 1)+"volumes: [{name: v, persistentVolumeClaim: {claimName: v}}]}\n---\n"+
		strings.Replace(pod, "%", "fits", 1)+"}\n"), "home")
	if err != nil {
		t.Fatal(err)
	}
	conf, err := Configuration([]byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	a, err := Ask(t.Context(), Question{Cluster: c, Pods: pods, Config: conf, Runs: 1, Progress: func(done, of int) {
		if steps++; done != steps || of != 3 {
			t.Errorf("progress %d of %d at step %d", done, of, steps)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := a.Profiles[0].Pods
	if got[0].Node != "" || !strings.Contains(got[0].Reason, "x.io/wait") {
		t.Errorf("gated: %+v", got[0])
	}
	if got[1].Node != "" || got[1].Reason != `0/1 nodes are available: persistentvolumeclaim "v" not found.` {
		t.Errorf("claims: %+v", got[1])
	}
	if got[2].Node != "n1" || steps != 3 {
		t.Errorf("fits: %+v, after %d steps", got[2], steps)
	}
}
