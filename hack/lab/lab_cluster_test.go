package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

func (x *labTest) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	c, err := x.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (x *labTest) nodes(t *testing.T, ctx context.Context) {
	nodes, err := x.client(t).CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes.Items) != 2 || nodes.Items[0].Labels["kubernetes.io/hostname"] != "a" || nodes.Items[0].Spec.PodCIDR != "10.244.1.0/24" || nodes.Items[1].Labels["zone"] != "z" {
		t.Errorf("got %d nodes, not as configured: %+v", len(nodes.Items), nodes.Items)
	}
	for _, s := range x.Status(ctx) {
		if !s.Running || len(s.Services) == 0 {
			t.Errorf("status of %s: %+v", s.Name, s)
		}
	}
	// What kubelet sets for the whole machine it found set in its own files.
	out, err := x.ExecInNode(ctx, "a", "cat", "/proc/sys/kernel/panic")
	if err != nil || out != "10\n" {
		t.Errorf("kernel.panic on the node: %q, %v", out, err)
	}
}

// pod: scheduled, started from an image that was loaded, seen by logs and exec, and it reaches the
// API server by its Service.
func (x *labTest) pod(t *testing.T, ctx context.Context) {
	if err := x.LoadImage(ctx, x.image); err != nil {
		t.Fatal(err)
	}
	x.startPod(t, ctx, "one", "a")
	logs, err := x.client(t).CoreV1().Pods("default").GetLogs("one", &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil || !strings.Contains(string(logs), "probe has started") {
		t.Errorf("logs: %q, %v", logs, err)
	}
	if out, err := x.exec(ctx, "one", "/probe", "10.96.0.1:443"); err != nil || !strings.Contains(out, "HTTP") {
		t.Errorf("API server by its Service: %q, %v", out, err)
	}
}

// hostReachesService: what runs in a node's own network, as an agent does, reaches Services too.
func (x *labTest) hostReachesService(t *testing.T, ctx context.Context) {
	if out, err := x.ExecInNode(ctx, "b", "curl", "-sk", "-m", "5", "https://10.96.0.1/"); err != nil || !strings.Contains(out, "Unauthorized") {
		t.Errorf("API server by its Service, from the node: %q, %v", out, err)
	}
	out, err := x.ExecInNode(ctx, "b", "ping", "-c", "1", "-W", "5", "192.0.2.1") // RFC 5737: nobody's
	if err == nil || !strings.Contains(out, "Unreachable") {
		t.Errorf("an address outside: %q, %v; want it unreachable at once", out, err)
	}
}

// startPod runs the probe on a node and waits until it is ready.
func (x *labTest) startPod(t *testing.T, ctx context.Context, name, node string) *corev1.Pod {
	t.Helper()
	pods := x.client(t).CoreV1().Pods("default")
	_, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"kubernetes.io/hostname": node},
			Containers:   []corev1.Container{{Name: "probe", Image: testImage}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var pod *corev1.Pod
	if err := until(ctx, "pod "+name+" runs", func(ctx context.Context) error {
		var err error
		if pod, err = pods.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if s := pod.Status; len(s.ContainerStatuses) == 0 || !s.ContainerStatuses[0].Ready {
			return fmt.Errorf("phase %s", s.Phase)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return pod
}

func (x *labTest) exec(ctx context.Context, pod string, argv ...string) (string, error) {
	config, err := x.RESTConfig()
	if err != nil {
		return "", err
	}
	client, err := x.Client()
	if err != nil {
		return "", err
	}
	r := client.CoreV1().RESTClient().Post().Resource("pods").Name(pod).Namespace("default").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: argv, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	e, err := remotecommand.NewSPDYExecutor(config, "POST", r.URL())
	if err != nil {
		return "", err
	}
	var out, errout bytes.Buffer
	err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errout})
	return out.String() + errout.String(), err
}

func (x *labTest) speed(t *testing.T, ctx context.Context) {
	quota := func() string {
		for _, h := range x.tree {
			for _, f := range []string{"cpu.cfs_quota_us", "cpu.max"} {
				if b, err := os.ReadFile(filepath.Join(h.Path("drover-lab-"+testLab+"/a"), f)); err == nil {
					return strings.Fields(string(b))[0]
				}
			}
		}
		return "no file"
	}
	if err := x.SetSpeed("a", 0.5); err != nil || quota() != "50000" {
		t.Errorf("half a core: quota %s, %v", quota(), err)
	}
	if err := x.SetSpeed("a", 0); err != nil || quota() != "-1" && quota() != "max" {
		t.Errorf("no limit: quota %s, %v", quota(), err)
	}
	for node, speed := range map[string]float64{"a": -1, "nobody": 1, ControlPlane: 1} {
		if err := x.SetSpeed(node, speed); err == nil {
			t.Errorf("speed %g of %s: no error", speed, node)
		}
	}
}
