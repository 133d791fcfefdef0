package restore

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// TestEager: images that lack memory are restored where the record allows them, and where they can be.
func TestEager(t *testing.T) {
	type memory func(string) (bool, string, error)
	gives := func(lacking bool, eager string, err error) memory {
		return func(string) (bool, string, error) { return lacking, eager, err }
	}
	pages := func(context.Context, migrate.Move, string, lazypages.Range, []byte) error { return nil }
	for name, c := range map[string]struct {
		memory   memory
		postCopy bool
		noPages  bool
		marked   bool // layout.LackingImage is there
		eager    bool
		from     bool // from the source
		says     string
	}{
		"nothing is looked at":           {eager: true},
		"whole":                          {memory: gives(false, "", nil)},
		"whole, and needed at once":      {memory: gives(false, "too small", nil), postCopy: true, eager: true},
		"not known, as ever":             {memory: gives(false, "", errors.New("no pagemap")), eager: true},
		"not known, and may lack":        {memory: gives(false, "", errors.New("no pagemap")), postCopy: true, says: "no pagemap"},
		"not known, but said to lack":    {memory: gives(false, "", errors.New("no pagemap")), marked: true, says: "no pagemap"},
		"lacking more than is told":      {memory: gives(true, "", errors.New("too many")), says: "too many"},
		"lacking, and allowed":           {memory: gives(true, "", nil), postCopy: true, from: true},
		"lacking, and not allowed":       {memory: gives(true, "", nil), says: "does not allow"},
		"lacking, and nobody to ask":     {memory: gives(true, "", nil), postCopy: true, noPages: true, says: "no way to fetch"},
		"lacking, but needed at once":    {memory: gives(true, "2 processes", nil), postCopy: true, says: "cannot be loaded later: 2 processes"},
		"lacking and needed, unallowed":  {memory: gives(true, "2 processes", nil), says: "does not allow"},
		"whole, of a move that may lack": {memory: gives(false, "", nil), postCopy: true},
	} {
		t.Run(name, func(t *testing.T) {
			x := New(Config{Memory: c.memory, Pages: pages})
			if c.noPages {
				x.cfg.Pages = nil
			}
			n := note{Images: t.TempDir()}
			if c.marked {
				if err := os.WriteFile(filepath.Join(n.Images, layout.LackingImage), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			why, err := x.eager(migrate.Move{Name: "m", PostCopy: c.postCopy}, &n)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if (why != "") != c.eager || (n.From != nil) != c.from {
				t.Errorf("eager: %q, from: %+v", why, n.From)
			}
		})
	}
}

// TestForfeitedBeforeItIsFed: an agent that comes back to memory that is lost says so to a relay that calls later,
// and asks nobody for it.
func TestForfeitedBeforeItIsFed(t *testing.T) {
	b := newBench(t, running)
	dir, err := os.MkdirTemp("", "r") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b.cfg.Layout = layout.Layout{Run: dir, State: dir}
	b.cfg.Pages = func(ctx context.Context, _ migrate.Move, _ string, _ lazypages.Range, _ []byte) error {
		return ctx.Err()
	}
	b.note.Lazy, b.note.From = true, &migrate.Move{Name: "m"}
	b.forfeit(b.note.ID).declare()
	socket := b.cfg.Layout.Relay(b.note.ID)
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer b.feed(t.Context(), b.note)()
	relay, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	var word [1]byte
	for _, n := range []uint64{1, 1 << 20, uint64(os.Getpagesize())} { // a process, an address, a size
		if err := binary.Write(relay, binary.NativeEndian, n); err != nil {
			t.Fatal(err)
		}
	}
	const lost = 2
	if _, err := io.ReadFull(relay, word[:]); err != nil || word[0] != lost {
		t.Errorf("told %d, %v; want %d, that it is lost", word[0], err, lost)
	}
}

// TestCopyThatEndsWhileItIsFed: when a copy has ended nothing is left to load, also while the source does not answer.
func TestCopyThatEndsWhileItIsFed(t *testing.T) {
	b := newBench(t, running)
	b.cfg.Lost = func(_ migrate.Pod, why string) { t.Errorf("the user is told that it was killed: %s", why) }
	b.note.Lazy, b.note.From = true, &migrate.Move{Name: "m"}
	dir := b.cfg.Layout.Loader(b.note.ID)
	loader := exec.Command("sh", "-c", "sleep 1000 & echo; wait") // as hosted, which ends with its command
	out, err := loader.StdoutPipe()
	if err == nil {
		err = loader.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p, err := process.Of(loader.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	below, err := p.Below()
	if err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() { defer close(reaped); _ = loader.Wait() }()
	t.Cleanup(func() {
		for _, q := range append(below, p) {
			_ = q.Kill()
		}
		<-reaped
	})
	if err := errors.Join(os.MkdirAll(dir, 0o700), layout.WriteNote(filepath.Join(dir, "pid"), p), b.write(b.note)); err != nil {
		t.Fatal(err)
	}
	follow := b.follow(t.Context(), b.note)
	go follow()
	b.die()
	go b.watch(t.Context(), b.note)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.Loaded(ctx, move); err != nil {
		t.Error(err)
	}
	b.followed(ctx, b.note)
}
