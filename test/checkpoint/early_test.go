package checkpoint

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/precopy"
	"github.com/drover-project/drover/nodeagent/transfer"
)

// lets is a record that lets one move's images come.
type lets migrate.Move

func (m lets) Admit(context.Context, string, *agentv1.Begin) (migrate.Move, error) {
	return migrate.Move(m), nil
}

func (lets) ImagesComplete(string) {}

// receiving serves a target for one move, and gives the sender's end and the target's store.
func receiving(t *testing.T, m migrate.Move) (*transfer.Sender, *transfer.Store) {
	t.Helper()
	run(t, "ip", "link", "set", "lo", "up")
	ca := identitytest.NewAuthority(t)
	store := &transfer.Store{Dir: layout.Default.Images(), Reserve: 1}
	r := &transfer.Receiver{Node: m.Target.Node, Store: store, Admission: lets(m), Arrivals: lets(m)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(transfer.ServerOptions(ca.Keeper(t, ca.Node(t, model.NodeID(m.Target.Node))).ServerConfig())...)
	r.Register(s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { s.Stop(); wg.Wait(); r.Wait() })
	address := l.Addr().String()
	return &transfer.Sender{
		Address: func(string) (string, error) { return address, nil },
		TLS:     ca.Keeper(t, ca.Node(t, model.NodeID(m.Source.Node))).ClientConfig,
	}, store
}

// What real processes have in memory is what CRIU writes of them, block for block: most of it
// goes while they run, the rest while CRIU writes, and the images are those of the dump.
func TestMemoryGoesBeforeTheFreeze(t *testing.T) {
	t.Setenv("HEAP_MIB", "64")
	a := startAgent(t)
	c := newContainer(t, "src", nil)
	c.run()
	for c.next().n < 5 {
	}
	m := move(c, nil)
	m.Source.Node, m.Target.Node = "a", "b"
	s, store := receiving(t, m)
	size, err := a.dumps.Memory(m)
	if err != nil {
		t.Fatal(err)
	}
	ahead, err := s.Ahead(within(t), m, size)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := precopy.Copy(within(t), func() ([]int, error) { return a.dumps.Processes(m) }, ahead,
		precopy.Limits{Rounds: 2, Time: patience, Little: model.MiB})
	if err != nil {
		t.Fatal(err)
	}
	if err := ahead.Close(); err != nil {
		t.Fatal(err)
	}
	before := s.Progress(m).Wire
	dir, err := a.dumps.Images(m)
	if err != nil {
		t.Fatal(err)
	}
	s.Follow(m, dir, size)
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	if d.Dir != dir {
		t.Fatalf("dumped to %s, not to %s", d.Dir, dir)
	}
	held := time.Now()
	sent, err := s.Send(within(t), m, d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	rest := sent.Wire - before
	t.Logf("%d bytes of images, about %d expected; read %+v; %d on the link before the freeze and %d after it, the last %v from the hold on",
		sent.Total, size, stats, before, rest, time.Since(held))
	if sent.Total < 64<<20 || rest > sent.Total/8 {
		t.Errorf("%d bytes of %d went after the freeze", rest, sent.Total)
	}
	complete, err := store.Complete(within(t), m)
	if err != nil || complete == "" {
		t.Fatal(complete, err)
	}
	sameImages(t, d.Dir, complete)
	if err := store.Discard(within(t), m); err != nil {
		t.Error(err)
	}
	if err := a.dumps.Release(within(t), m); err != nil {
		t.Error(err)
	}
}

// sameImages compares directories of images.
func sameImages(t *testing.T, want, got string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(want, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files++
		rel, _ := filepath.Rel(want, path)
		a, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(got, rel))
		if err == nil && !bytes.Equal(a, b) {
			t.Errorf("%s is another: %d bytes, %d were dumped", rel, len(b), len(a))
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}
