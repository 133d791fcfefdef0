package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/drover-project/drover/hack/image"
)

const (
	testLab   = "lab-test"
	testImage = "localhost/drover-lab/probe:1"
)

// TestLab takes a lab through its life. The machine is looked at before and after: nothing of the
// lab may be left. (It needs root, and builds the cache if it is empty.)
func TestLab(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx := t.Context()
	config := Config{Name: testLab, Nodes: []Node{{Name: "a"}, {Name: "b", Labels: map[string]string{"zone": "z"}}}, Report: t.Logf}
	if err := Down(ctx, testLab); err != nil {
		t.Fatal(err)
	}
	before := lookAtMachine(t)
	t.Cleanup(func() {
		if err := Down(context.Background(), testLab); err != nil {
			t.Error(err)
		}
	})
	l, err := Up(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	x := &labTest{l, build(t)}
	if !x.run(t, ctx) {
		return
	}
	spaces := x.namespaces(t)

	if err := Down(ctx, testLab); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, lookAtMachine(t)); diff != "" {
		t.Errorf("the machine before (-) and after (+) the lab:\n%s", diff)
	}
	if left := stillUsed(t, spaces); len(left) > 0 {
		t.Errorf("network namespaces of the lab live on in processes %v", left)
	}
	if err := Down(ctx, testLab); err != nil {
		t.Errorf("second down: %v", err)
	}
	if _, err := Open(testLab); !errors.Is(err, ErrNotUp) {
		t.Errorf("open after down: %v, want %v", err, ErrNotUp)
	}
}

type labTest struct {
	*Lab
	image string // a tar
}

// run tells whether all steps went well; each builds on those before.
func (x *labTest) run(t *testing.T, ctx context.Context) bool {
	for _, step := range []struct {
		name string
		f    func(*testing.T, context.Context)
	}{
		{"nodes", x.nodes},
		{"pod", x.pod},
		{"host reaches service", x.hostReachesService},
		{"witness", x.witness},
		{"prometheus", x.prometheus},
		{"delay", x.delay},
		{"speed", x.speed},
		{"second up", x.secondUp},
		{"API server restarts", x.apiServer},
		{"node restarts", x.nodeRestart},
		{"crash", x.crash},
	} {
		ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		if !t.Run(step.name, func(t *testing.T) { step.f(t, ctx) }) {
			return false
		}
	}
	return true
}

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

// witness: a test listens where the control plane is, and a pod on any node reaches it with its own
// address; and the other way round.
func (x *labTest) witness(t *testing.T, ctx context.Context) {
	address, err := x.Address(ControlPlane)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := x.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	from := make(chan string, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		from <- host
		_, _ = c.Read(make([]byte, 100)) // or closing would reset the connection
		fmt.Fprint(c, "seen")
	}()
	pod := x.startPod(t, ctx, "two", "b")
	out, err := x.exec(ctx, "two", "/probe", listener.Addr().String())
	if err != nil || out != "seen" {
		t.Fatalf("pod to witness: %q, %v", out, err)
	}
	if got := <-from; got != pod.Status.PodIP {
		t.Errorf("the witness saw %s, the pod is %s", got, pod.Status.PodIP)
	}
	h := http.Client{Transport: &http.Transport{DialContext: x.DialContext, DisableKeepAlives: true}}
	if got, err := get(ctx, &h, "http://"+pod.Status.PodIP+":8080/"); err != nil || got != "two\n" {
		t.Errorf("test to pod: %q, %v", got, err)
	}
	// From pod to pod over two nodes.
	if out, err := x.exec(ctx, "one", "/probe", pod.Status.PodIP+":8080"); err != nil || !strings.HasSuffix(out, "two\n") {
		t.Errorf("pod to pod: %q, %v", out, err)
	}
}

func get(ctx context.Context, client *http.Client, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// prometheus, through its port on 127.0.0.1, knows both pods' metric.
func (x *labTest) prometheus(t *testing.T, ctx context.Context) {
	_, prometheus, err := x.URLs()
	if err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, "Prometheus has scraped both pods", func(ctx context.Context) error {
		got, err := get(ctx, http.DefaultClient, prometheus+"/api/v1/query?query="+url.QueryEscape("sum(lab_probe)"))
		if err == nil && !strings.Contains(got, `"84"`) { // 42 + 42
			err = errors.New(got)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func (x *labTest) delay(t *testing.T, ctx context.Context) {
	// The fastest of five: a delay is a bound below, which a busy machine cannot break.
	ping := func() time.Duration {
		t.Helper()
		out, err := x.ExecInNode(ctx, "a", "ping", "-q", "-c", "5", "-i", "0.01", "b")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(out, "= ") // min/avg/max/mdev = 0.1/...
		ms, err := strconv.ParseFloat(rest[:strings.IndexByte(rest, '/')], 64)
		if err != nil {
			t.Fatalf("ping said %q", out)
		}
		return time.Duration(ms * float64(time.Millisecond))
	}
	set := func(d time.Duration) {
		t.Helper()
		if err := x.SetDelay(ctx, "a", "b", d); err != nil {
			t.Fatal(err)
		}
	}
	set(50 * time.Millisecond)
	if rtt := ping(); rtt < 100*time.Millisecond { // 2 * 50
		t.Errorf("round trip of %s over a delay of 50ms each way", rtt)
	}
	set(0)
	if rtt := ping(); rtt >= 100*time.Millisecond {
		t.Errorf("round trip of %s after the delay was taken away", rtt)
	}
	set(-1)
	if out, err := x.ExecInNode(ctx, "a", "ping", "-q", "-c", "1", "-W", "1", "b"); err == nil {
		t.Errorf("a ping passed over a link that is cut: %s", out)
	}
	set(0)
	if err := x.SetDelay(ctx, "a", "nobody", 0); err == nil || !strings.Contains(err.Error(), `no node "nobody"`) {
		t.Errorf("delay to nobody: %v", err)
	}
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

func (x *labTest) pids(t *testing.T) []process {
	t.Helper()
	var out []process
	for _, f := range append([]string{x.switchPID()}, pidFiles(x.Config)...) {
		p, err := loadProcess(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func pidFiles(c Config) []string {
	var out []string
	for _, m := range machines(c) {
		out = append(out, m.pidFile())
	}
	return out
}

func (x *labTest) secondUp(t *testing.T, ctx context.Context) {
	before := x.pids(t)
	if _, err := Up(ctx, x.Config); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, x.pids(t)); diff != "" {
		t.Errorf("a second up has changed processes:\n%s", diff)
	}
	other := x.Config
	other.Nodes = other.Nodes[:1]
	if _, err := Up(ctx, other); err == nil || !strings.Contains(err.Error(), "other nodes") {
		t.Errorf("up with other nodes: %v", err)
	}
}

func (x *labTest) apiServer(t *testing.T, ctx context.Context) {
	if err := x.StopAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := x.client(t).CoreV1().RESTClient().Get().AbsPath("/readyz").MaxRetries(0).DoRaw(ctx); err == nil {
		t.Error("an API server that was stopped answers")
	}
	if err := x.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := x.client(t).CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if err := x.StopService(ctx, "a", "nothing"); err == nil {
		t.Error("stopping a service that is not there: no error")
	}
}

// nodeRestart: a node that is started again has booted: new boot ID, its pods' containers restarted.
func (x *labTest) nodeRestart(t *testing.T, ctx context.Context) {
	nodes := x.client(t).CoreV1().Nodes()
	bootID := func() string {
		n, err := nodes.Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return n.Status.NodeInfo.BootID
	}
	old := bootID()
	if err := x.StopNode(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := x.ExecInNode(ctx, "a", "true"); err == nil {
		t.Error("a command ran on a node that is stopped")
	}
	if err := x.StartNode("a"); err != nil {
		t.Fatal(err)
	}
	if err := x.StartNode("a"); err == nil {
		t.Error("a node that runs was started")
	}
	if err := until(ctx, "node a has booted", func(context.Context) error {
		if bootID() == old {
			return errors.New("boot ID " + old)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := x.WaitReady(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, "the pod runs again", func(ctx context.Context) error {
		out, err := x.exec(ctx, "one", "/probe", "10.96.0.1:443")
		if err == nil && !strings.Contains(out, "HTTP") {
			err = errors.New(out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// crash: whatever of the lab is killed, the next up makes it whole.
func (x *labTest) crash(t *testing.T, ctx context.Context) {
	for _, p := range x.pids(t)[:2] { // the switch and the control plane; the nodes live on
		p.kill()
	}
	if err := until(ctx, "the lab is broken", func(context.Context) error {
		if x.healthy() {
			return errors.New("it is healthy")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := Up(ctx, x.Config); err != nil {
		t.Fatal(err)
	}
	x.nodes(t, ctx)
}

// namespaces are the network namespaces of the lab's machines.
func (x *labTest) namespaces(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, m := range machines(x.Config) {
		path, err := x.namespace(m.name, "net")
		if err != nil {
			t.Fatal(err)
		}
		ns, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ns)
	}
	return out
}

func stillUsed(t *testing.T, spaces []string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range all {
		if ns, err := os.Readlink(path); err == nil && slices.Contains(spaces, ns) {
			out = append(out, path)
		}
	}
	return out
}

// lookAtMachine is what a lab could leave behind, as far as it can be told from what others do on
// the machine meanwhile.
func lookAtMachine(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, p := range strays(testLab) {
		found["processes"] = append(found["processes"], strconv.Itoa(p.PID))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, testLab) {
			found["mounts"] = append(found["mounts"], line)
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		found["interfaces"] = append(found["interfaces"], i.Name)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/*" + testLab + "*")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("/sys/fs/cgroup/*" + testLab + "*")
	if err != nil {
		t.Fatal(err)
	}
	found["cgroups"] = append(groups, more...)
	files, err := filepath.Glob(stateRoot() + "/" + testLab + "*")
	if err != nil {
		t.Fatal(err)
	}
	found["files"] = files
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max"} {
		b, err := os.ReadFile("/proc/sys/" + name)
		if err == nil {
			found["sysctls"] = append(found["sysctls"], name+"="+strings.TrimSpace(string(b)))
		}
	}
	return found
}

// build gives a tar of the probe's image.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, tar := filepath.Join(dir, "probe"), filepath.Join(dir, "probe.tar")
	cmd := exec.Command("go", "build", "-o", program, "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, out)
	}
	if err := image.Write(tar, testImage, map[string]string{"/probe": program}, []string{"/probe"}); err != nil {
		t.Fatal(err)
	}
	return tar
}
