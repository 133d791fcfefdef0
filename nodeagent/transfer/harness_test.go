package transfer

import (
	"context"
	"crypto/rand"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

var testMove = migrate.Move{
	Namespace: "default", Name: "web-1", UID: "uid-1", Epoch: 3,
	Source: migrate.Pod{Node: "a"}, Target: migrate.Pod{Node: "b"},
}

const testDir = "uid-1-3"

// admission is a record; hook runs before it answers.
type admission struct {
	move migrate.Move
	err  error
	hook func()
}

func (a *admission) Admit(context.Context, string, *agentv1.Begin) (migrate.Move, error) {
	if a.hook != nil {
		a.hook()
	}
	return a.move, a.err
}

type arrivals struct {
	mu   sync.Mutex
	uids []string
}

func (a *arrivals) ImagesComplete(uid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.uids = append(a.uids, uid)
}

// target is node b with its server.
type target struct {
	*Receiver
	ca        *identitytest.Authority
	admission *admission
	arrivals  *arrivals
	address   string
	server    *grpc.Server
}

func newReceiver(t testing.TB) *Receiver {
	return &Receiver{
		Node: "b", Store: &Store{Dir: t.TempDir(), Reserve: 1}, Metrics: NewMetrics(),
		Admission: &admission{move: testMove}, Arrivals: &arrivals{},
	}
}

func newTarget(t testing.TB) *target {
	t.Helper()
	r := newReceiver(t)
	x := &target{Receiver: r, ca: identitytest.NewAuthority(t), admission: r.Admission.(*admission), arrivals: r.Arrivals.(*arrivals)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x.address = l.Addr().String()
	x.server = grpc.NewServer(ServerOptions(x.ca.Keeper(t, x.ca.Node(t, "b")).ServerConfig())...)
	r.Register(x.server)
	var wg sync.WaitGroup
	wg.Go(func() { _ = x.server.Serve(l) })
	t.Cleanup(func() { x.server.Stop(); wg.Wait(); r.Wait() })
	return x
}

// sender is a node that knows where the target is.
func (x *target) sender(t testing.TB, node model.NodeID) *Sender {
	k := x.ca.Keeper(t, x.ca.Node(t, node))
	return &Sender{Address: func(string) (string, error) { return x.address, nil }, TLS: k.ClientConfig, Metrics: NewMetrics()}
}

// once has the sender try no second time.
func once(t testing.TB, s *Sender) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s.lost = func(error) { cancel() }
	return ctx
}

// client calls the target with a certificate, for senders that say what they like.
func (x *target) client(t testing.TB, id *identity.Identity) agentv1.PeerClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+x.address,
		grpc.WithTransportCredentials(credentials.NewTLS(x.ca.Keeper(t, id).ClientConfig("b"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return agentv1.NewPeerClient(conn)
}

// stream opens a call of Put.
func (x *target) stream(t testing.TB, ctx context.Context, id *identity.Identity) agentv1.Peer_PutClient {
	t.Helper()
	s, err := x.client(t, id).Put(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put says messages and gives the answer.
func put(t testing.TB, c agentv1.PeerClient, say ...*agentv1.PutRequest) error {
	t.Helper()
	s, err := c.Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range say {
		_ = s.Send(m) // the answer tells
	}
	_, err = s.CloseAndRecv()
	return err
}

// have is which chunks of which files the target says that it has.
func (x *target) have(t testing.TB, c agentv1.PeerClient) map[string]string {
	t.Helper()
	answer, err := c.Have(t.Context(), &agentv1.HaveRequest{Begin: testBegin(0, 0)})
	if err != nil || answer.GetComplete() {
		t.Fatal(answer, err)
	}
	got := map[string]string{}
	for _, f := range answer.GetFiles() {
		got[f.GetName()] = string(f.GetThere())
	}
	return got
}

func (r *Receiver) refusals(why reason) float64 {
	return testutil.ToFloat64(r.Metrics.refused.WithLabelValues(string(why)))
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func writeDir(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wantDir compares a directory with files, and looks at its modes.
func wantDir(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	if fi, err := os.Lstat(dir); err != nil || fi.Mode() != os.ModeDir|0o700 {
		t.Fatalf("%s: %v, %v", dir, fi, err)
	}
	if got, want := list(t, dir), slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Fatalf("%s holds %q, want %q", dir, got, want)
	}
	for name, want := range files {
		wantFile(t, filepath.Join(dir, name), want)
	}
}

func wantFile(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want %d bytes as they were sent", path, len(got), err, len(want))
	}
	if fi, err := os.Lstat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%s: %v, %v", path, fi, err)
	}
}

func list(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantEmpty(t testing.TB, dir string) {
	t.Helper()
	if names := list(t, dir); len(names) > 0 {
		t.Errorf("%s holds %q, want nothing", dir, names)
	}
}
