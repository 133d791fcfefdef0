package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/address"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/test/netspace"
)

// patience bounds every wait, so that a test that fails says where.
const patience = 10 * time.Second

const (
	sourcePod = "5f0c0000-0000-0000-0000-000000000001"
	targetPod = "5f0c0000-0000-0000-0000-000000000002"
	port      = 8080
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sandbox is a pod's, with the process that it begins with, as containerd names it.
type sandbox struct {
	ns    netns.NsHandle
	addr  netip.Addr
	first *exec.Cmd
}

func (s sandbox) path() string { return fmt.Sprintf("/proc/self/fd/%d", int(s.ns)) }

// agent is that of one node.
type agent struct {
	node  string
	ends  *Ends
	watch *Watch
}

// world is where a pod moves, from one node to another or within one, and a client beside.
type world struct {
	*testing.T
	agents              []*agent
	ends                *Ends // of the first
	router              netns.NsHandle
	left, fresh, client sandbox
	pm                  *v1alpha1.PodMigration
	more                []*v1alpha1.PodMigration // of later moves
	places              []sandbox                // where the pod was, in order
	gone                bool                     // the records
	missing             string                   // the one of that name is gone
	deaf                error                    // of who asks the API server
	stale               []v1alpha1.PodMigration  // what all have heard of last, if that is long past
	now                 time.Time
	watch               *Watch // of the first
}

// newWorld has both ends of the move on one node.
func newWorld(t *testing.T) *world { return newWorldOf(t, "n", "n") }

func newWorldOf(t *testing.T, source, target string) *world {
	t.Helper()
	w := &world{T: t, now: time.Now()}
	w.on(source)
	router := netspace.Make(t)
	must(t, netspace.In(router, func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}); err != nil {
			return err
		}
		return netspace.Up("br")
	}))
	w.router = router
	w.left, w.fresh, w.client = w.sandbox(router, 2), w.sandbox(router, 3), w.sandbox(router, 4)
	w.places = []sandbox{w.left, w.fresh}
	w.container(source, sourcePod, "c-source", w.left)
	w.container(target, targetPod, "c-target", w.fresh)
	w.pm = &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "move", UID: "uid-1", ResourceVersion: "1"}}
	s := &w.pm.Status
	s.Epoch = 2
	s.Source = v1alpha1.SourceStatus{Node: source, PodName: "web", PodUID: sourcePod, Containers: []v1alpha1.MovingContainer{{Name: "web", ID: "c-source"}}}
	s.Target = v1alpha1.TargetStatus{Node: target, PodName: "web-dm2", PodUID: targetPod}
	s.Connections = &v1alpha1.ConnectionsStatus{State: v1alpha1.ConnectionsProbing, OldAddresses: []string{w.left.addr.String()},
		KeepFor: metav1.Duration{Duration: time.Hour}}
	w.newAgent()
	return w
}

// on is the agent of a node.
func (w *world) on(node string) *agent {
	w.Helper()
	if i := slices.IndexFunc(w.agents, func(a *agent) bool { return a.node == node }); i >= 0 {
		return w.agents[i]
	}
	dir := w.TempDir()
	l := layout.Layout{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}
	must(w.T, l.Prepare())
	w.agents = append(w.agents, w.agent(node, l))
	w.ends, w.watch = w.agents[0].ends, w.agents[0].watch
	return w.agents[len(w.agents)-1]
}

func (w *world) agent(node string, l layout.Layout) *agent {
	log := slog.New(slog.NewTextHandler(w.Output(), nil)).With("node", node)
	a := &agent{node: node, ends: New(l, "/", w, log)}
	a.watch = NewWatch(Config{Node: node, Ends: a.ends, Records: w, Fences: l.Fences(), Log: log, Now: func() time.Time { return w.now },
		List: func(context.Context) ([]v1alpha1.PodMigration, error) {
			if w.stale != nil {
				return w.stale, nil
			}
			return w.list(), nil
		}})
	return a
}

// newAgent has all agents be ones that know nothing but what is on their nodes.
func (w *world) newAgent() {
	for i, a := range w.agents {
		w.agents[i] = w.agent(a.node, a.ends.layout)
	}
	w.ends, w.watch = w.agents[0].ends, w.agents[0].watch
}

// source and target are the ends of a move's agents.
func (w *world) source(pm *v1alpha1.PodMigration) *Ends { return w.on(pm.Status.Source.Node).ends }
func (w *world) target(pm *v1alpha1.PodMigration) *Ends { return w.on(pm.Status.Target.Node).ends }

func (w *world) sandbox(router netns.NsHandle, number int) sandbox {
	w.Helper()
	s := sandbox{ns: netspace.Make(w), addr: netip.AddrFrom4([4]byte{10, 7, 0, byte(number)})}
	must(w.T, netspace.In(router, func() error {
		br, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		name := fmt.Sprintf("v%d", number)
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: br.Attrs().Index}, PeerName: "eth0", PeerNamespace: netlink.NsFd(s.ns)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return netspace.Up(name)
	}))
	must(w.T, netspace.In(s.ns, func() error {
		if err := netspace.Up("lo"); err != nil {
			return err
		}
		if err := netspace.Up("eth0", netip.PrefixFrom(s.addr, 24)); err != nil {
			return err
		}
		s.first = exec.Command("sleep", "600")
		return s.first.Start()
	}))
	w.Cleanup(s.end)
	return s
}

// end is that of the sandbox's first process; what has it open keeps the namespace.
func (s sandbox) end() {
	_ = s.first.Process.Kill()
	_ = s.first.Wait()
}

// container is one of the pod, as drover-runc notes it at its create.
func (w *world) container(node, pod, id string, s sandbox) {
	w.Helper()
	bundle := w.TempDir()
	config := fmt.Sprintf(`{"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/proc/%d/ns/net"}]}}`, s.first.Process.Pid)
	must(w.T, os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o600))
	must(w.T, w.on(node).ends.layout.WriteContainer(layout.Container{ID: id, PodUID: pod, Bundle: bundle}))
}

func (w *world) move() migrate.Move { return migrate.MoveOf(w.pm) }

// probed is the move when it is known that its connections go along.
func (w *world) probed() {
	w.Helper()
	a, err := w.target(w.pm).Find(w.move())
	must(w.T, err)
	w.pm.Status.Connections.NewAddress = a.String()
	ctx, done := context.WithTimeout(w.Context(), patience)
	defer done()
	answers, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- w.source(w.pm).Answer(answers, w.move()) }()
	must(w.T, w.target(w.pm).Probe(ctx, w.move()))
	must(w.T, w.target(w.pm).Arrive(w.move()))
	w.pm.Status.Connections.State = v1alpha1.ConnectionsKept
	w.pm.Status.Target.Waiting = true
	stop()
	must(w.T, <-ended)
}

// moved is the move when it is over; forwarded by its own worker, or not yet.
func (w *world) moved(forwarded bool) {
	w.Helper()
	w.probed()
	m := w.move()
	must(w.T, w.source(w.pm).Hold(m))
	must(w.T, w.target(w.pm).Arrive(m))
	must(w.T, w.target(w.pm).Open(w.Context(), m))
	s := &w.pm.Status
	s.Decision, s.Target.Starting, s.Target.Resumed, s.Source.Offered, s.Source.Ended = v1alpha1.Commit, true, true, true, true
	if forwarded {
		must(w.T, w.source(w.pm).Forward(m))
	}
}

// Get and UpdateStatus are Records.
func (w *world) Get(_ context.Context, _, name string) (*v1alpha1.PodMigration, error) {
	if w.deaf != nil {
		return nil, w.deaf
	}
	if w.gone || name == w.missing {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "podmigrations"}, name)
	}
	for _, pm := range w.more {
		if pm.Name == name {
			return pm.DeepCopy(), nil
		}
	}
	return w.pm.DeepCopy(), nil
}

func (w *world) UpdateStatus(_ context.Context, pm *v1alpha1.PodMigration) (*v1alpha1.PodMigration, handoff.Outcome, error) {
	for i := range w.more {
		if w.more[i].UID == pm.UID {
			w.more[i] = pm.DeepCopy()
			return pm, handoff.OK, nil
		}
	}
	w.pm = pm.DeepCopy()
	return pm, handoff.OK, nil
}

func (w *world) list() []v1alpha1.PodMigration {
	if w.gone {
		return nil
	}
	var all []v1alpha1.PodMigration
	for _, pm := range w.records() {
		if pm.Name != w.missing {
			all = append(all, *pm.DeepCopy())
		}
	}
	return all
}

// records are those of all moves, in order.
func (w *world) records() []*v1alpha1.PodMigration {
	return append([]*v1alpha1.PodMigration{w.pm}, w.more...)
}

func (w *world) look() {
	w.Helper()
	for _, a := range w.agents {
		must(w.T, a.watch.look(w.Context()))
	}
}

// connect is a client's connection to the old address, both ends of it.
func (w *world) connect() (client, server *net.TCPConn) {
	w.Helper()
	return w.connectTo(w.left.addr, w.fresh)
}

// connectTo is one to an address of the pod, which is in that sandbox.
func (w *world) connectTo(a netip.Addr, now sandbox) (client, server *net.TCPConn) {
	w.Helper()
	var l *net.TCPListener
	must(w.T, netspace.In(now.ns, func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		return err
	}))
	defer l.Close()
	client, err := w.dial(a)
	must(w.T, err)
	must(w.T, l.SetDeadline(time.Now().Add(patience)))
	server, err = l.AcceptTCP()
	must(w.T, err)
	w.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func (w *world) dial(a netip.Addr) (client *net.TCPConn, err error) {
	err = netspace.In(w.client.ns, func() error {
		d := net.Dialer{Timeout: patience}
		d.SetMultipathTCP(false)
		c, err := d.Dial("tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			client = c.(*net.TCPConn)
		}
		return err
	})
	return client, err
}

// is fails unless both sandboxes are ends of the tunnel, or not.
func (w *world) is(left, fresh bool) {
	w.Helper()
	for _, end := range []struct {
		of   string
		s    sandbox
		want bool
	}{{"source", w.left, left}, {"target", w.fresh, fresh}} {
		all, err := address.Arrived(end.s.path())
		must(w.T, err)
		if left, err := address.Left(end.s.path()); err == nil {
			all = append(all, left)
		} else if !errors.Is(err, address.ErrNoEnd) {
			w.Fatal(err)
		}
		if is := len(all) > 0; is != end.want {
			w.Errorf("the %s's sandbox is an end of the tunnels %v, want one: %v", end.of, all, end.want)
		}
	}
}

// notes fails unless there are so many.
func (w *world) notes(want int) {
	w.Helper()
	var all []note
	for _, a := range w.agents {
		n, err := a.ends.notes()
		must(w.T, err)
		all = append(all, n...)
	}
	if len(all) != want {
		w.Errorf("notes %+v, want %d", all, want)
	}
}

// answers tells what somebody hears who connects to the old address; nothing within a moment is
// os.ErrDeadlineExceeded.
func (w *world) answers() error {
	w.Helper()
	return netspace.In(w.client.ns, func() error {
		d := net.Dialer{Timeout: 500 * time.Millisecond}
		d.SetMultipathTCP(false)
		c, err := d.Dial("tcp", netip.AddrPortFrom(w.left.addr, port+1).String())
		if err == nil {
			return c.Close()
		}
		if timed := net.Error(nil); errors.As(err, &timed) && timed.Timeout() {
			return os.ErrDeadlineExceeded
		}
		return err
	})
}
