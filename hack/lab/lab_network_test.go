package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

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
	if len(pod.Status.PodIPs) != 2 {
		t.Errorf("the pod has the addresses %v, want one of each family", pod.Status.PodIPs)
	}
	for _, ip := range pod.Status.PodIPs {
		address := net.JoinHostPort(ip.IP, "8080")
		if got, err := get(ctx, &h, "http://"+address); err != nil || got != "two\n" {
			t.Errorf("test to pod at %s: %q, %v", address, got, err)
		}
		// From pod to pod over two nodes.
		if out, err := x.exec(ctx, "one", "/probe", address); err != nil || !strings.HasSuffix(out, "two\n") {
			t.Errorf("pod to pod at %s: %q, %v", address, out, err)
		}
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
