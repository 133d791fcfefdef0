package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/test/cluster"
)

// redisUnderLoad: clients write numbered keys throughout, and connect again when their
// connection is closed. Every write that was acknowledged is there afterwards.
func redisUnderLoad(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) func(*corev1.Pod) {
	t.Helper()
	r := redis{dial: c.Lab.DialerOn("n1"), addr: serviceAddr(ctx, t, c, pod)}
	before := must[*redisConn](t)(r.connect(ctx))
	run := must[string](t)(before.runID())
	before.Close()
	ctx, stop := context.WithCancel(ctx)
	t.Cleanup(stop)
	writers := []*redisWriter{{name: "a"}, {name: "b"}}
	var all sync.WaitGroup
	for _, w := range writers {
		all.Go(func() { w.write(ctx, r) })
		check(t, w.await(ctx, 200))
	}
	return func(*corev1.Pod) {
		t.Helper()
		for _, w := range writers {
			check(t, w.await(ctx, w.acknowledged()+200))
		}
		stop()
		all.Wait()
		ctx := t.Context()
		conn := must[*redisConn](t)(r.connect(ctx))
		defer conn.Close()
		if now := must[string](t)(conn.runID()); now != run {
			t.Errorf("it is run %s of Redis, was %s: it started anew", now, run)
		}
		for _, w := range writers {
			check(t, w.verify(conn))
			t.Logf("writer %s: %d acknowledged writes are all there; it connected %d times", w.name, w.acknowledged(), w.connected)
		}
	}
}

// serviceAddr is the address of the Service of a pod's app.
func serviceAddr(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) string {
	t.Helper()
	return serviceAddrs(ctx, t, c, pod)[0]
}

// serviceAddrs are all of that Service: one of each family that it has.
func serviceAddrs(ctx context.Context, t *testing.T, c *cluster.Cluster, pod *corev1.Pod) (all []string) {
	t.Helper()
	s := &corev1.Service{}
	check(t, c.Client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: pod.Labels["app"]}, s))
	for _, ip := range s.Spec.ClusterIPs {
		all = append(all, net.JoinHostPort(ip, strconv.Itoa(int(s.Spec.Ports[0].Port))))
	}
	return all
}

// redisWriter writes the keys NAME:1, NAME:2, ... each until it is acknowledged.
type redisWriter struct {
	name      string
	connected int

	mu    sync.Mutex
	acked int
}

func (w *redisWriter) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

func (w *redisWriter) await(ctx context.Context, n int) error {
	return cluster.Eventually(ctx, fmt.Sprintf("%d writes of writer %s", n, w.name), func(context.Context) (bool, string) {
		now := w.acknowledged()
		return now >= n, fmt.Sprintf("%d are acknowledged", now)
	})
}

func (w *redisWriter) write(ctx context.Context, r redis) {
	for ctx.Err() == nil {
		conn, err := r.connect(ctx)
		if err != nil {
			continue // nobody serves at this moment; connect has waited
		}
		w.connected++
		for err == nil && ctx.Err() == nil {
			n := strconv.Itoa(w.acknowledged() + 1)
			var answer string
			if answer, err = conn.do("SET", w.name+":"+n, value(n)); err == nil && answer == "OK" {
				w.mu.Lock()
				w.acked++
				w.mu.Unlock()
			}
		}
		conn.Close()
	}
}

func value(n string) string { return strings.Repeat(n+"/", 20) }

// verify gives an error that names the first acknowledged write that is not there.
func (w *redisWriter) verify(conn *redisConn) error {
	for i := 1; i <= w.acknowledged(); i++ {
		n := strconv.Itoa(i)
		got, err := conn.do("GET", w.name+":"+n)
		if err != nil || got != value(n) {
			return fmt.Errorf("writer %s: %d writes were acknowledged, and key %s holds %q (%v)", w.name, w.acknowledged(), n, got, err)
		}
	}
	return nil
}

// redis is a server by the address of its Service.
type redis struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	addr string
}

// patience is how long a client waits for an answer before it connects again.
const patience = 2 * time.Second

// connect gives a connection on which the server answers.
func (r redis) connect(ctx context.Context) (*redisConn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var conn *redisConn
	err := cluster.Eventually(ctx, "connect to Redis at "+r.addr, func(ctx context.Context) (bool, string) {
		c, err := r.dial(ctx, "tcp", r.addr)
		if err != nil {
			return false, err.Error()
		}
		conn = &redisConn{Conn: c, in: bufio.NewReader(c)}
		if _, err := conn.do("PING"); err != nil {
			c.Close()
			return false, err.Error()
		}
		return true, ""
	})
	return conn, err
}

// redisConn speaks as much of Redis' protocol (RESP 2) as the test needs.
type redisConn struct {
	net.Conn
	in *bufio.Reader
}

// do sends a command and gives its answer, a simple or a bulk string; an error answer is an
// error, and so is silence.
func (c *redisConn) do(args ...string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return "", err
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch line[0] {
	case '+':
		return line[1:], nil
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", fmt.Errorf("%s: answer %q", args[0], line)
		}
		body := make([]byte, n+2)
		_, err = io.ReadFull(c.in, body)
		return string(body[:n]), err
	}
	return "", fmt.Errorf("%s: answer %q", args[0], line)
}

// runID is random at the server's start.
func (c *redisConn) runID() (string, error) {
	info, err := c.do("INFO", "server")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok {
			return strings.TrimSpace(id), nil
		}
	}
	return "", fmt.Errorf("no run_id in %q", info)
}
