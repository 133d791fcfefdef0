package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/inspect"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// postCopy has the moves of a test be by post-copy.
func postCopy(t *testing.T) {
	t.Helper()
	if why := checkpoint.CannotLoadLater(within(t), "/usr/sbin/runc"); why != "" {
		t.Fatalf("memory cannot be loaded later on this kernel: %s", why)
	}
	lazyFrom, byPostCopy = 4*model.MiB, true
	t.Cleanup(func() { lazyFrom, byPostCopy = 0, false })
}

// leftBehind gives a page of a container's memory that the images lack, which has to be most of the memory.
func leftBehind(t *testing.T, c *container, d migrate.Dumped) lazypages.Range {
	t.Helper()
	images := filepath.Join(d.Dir, "main")
	if m, err := inspect.MemoryOf(images, model.GiB); err != nil || m.Lazy < 16*model.MiB || !m.Lacking {
		t.Fatalf("the images have %+v, %v; want them to lack a heap of 16 MiB", m, err)
	}
	var written int64
	files, err := filepath.Glob(filepath.Join(images, "pages-*.img"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		written += info.Size()
	}
	if err != nil || written > int64(model.MiB) {
		t.Errorf("the images have %d bytes of memory (%v), want at most 1 MiB", written, err)
	}
	left, err := inspect.LeftOut(images)
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile(filepath.Join("/proc", itoa(c.pid()), "maps"))
	if err != nil {
		t.Fatal(err)
	}
	page := uint64(os.Getpagesize())
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var kind string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &kind); err != nil || kind != "rw-p" {
			continue
		}
		for at := from; at < to; at += page {
			if left.Has(1, at, page) {
				return lazypages.Range{Process: 1, Address: at, Size: page}
			}
		}
	}
	t.Fatal("no page of the container's is left out")
	return lazypages.Range{}
}

// TestPostCopySource: what is left in the processes can be read for as long as they are held, whoever dies,
// and counts as lost from when they are not; nothing of it is to be had from CRIU.
func TestPostCopySource(t *testing.T) {
	for who, die := range map[string]func(*testing.T, *agent) *agent{
		"nobody": func(_ *testing.T, a *agent) *agent { return a },
		"script": func(t *testing.T, a *agent) *agent { kill(t, "drover-criu-hoo"); return a },
		"criu":   func(t *testing.T, a *agent) *agent { kill(t, "criu"); return a.restart() },
	} {
		t.Run(who, func(t *testing.T) {
			postCopy(t)
			a, c, m, d, last := dumped(t)
			r := leftBehind(t, c, d)
			before, after := make([]byte, r.Size), make([]byte, r.Size)
			if err := a.dumps.Pages(m, "main", r, before); err != nil {
				t.Fatal(err)
			}
			a = die(t, a)
			if who != "nobody" {
				until(t, "the end of CRIU", func() bool { return len(find("criu")) == 0 })
			}
			if listening := run(t, "ss", "-Hltn"); listening != "" {
				t.Errorf("somebody serves: %s", listening)
			}
			if err := a.dumps.Pages(m, "main", r, after); err != nil || !bytes.Equal(before, after) {
				t.Errorf("read again: %v, the same: %t", err, bytes.Equal(before, after))
			}
			for what, r := range map[string]lazypages.Range{
				"of another process":    {Process: 2, Address: r.Address, Size: r.Size},
				"that the images have":  {Process: 1, Address: 0x400000, Size: r.Size},
				"more than there is":    {Process: 1, Address: r.Address, Size: 1 << 40},
				"of another container,": {},
			} {
				name := "main"
				if r.Size == 0 {
					name = "other"
				}
				if err := a.dumps.Pages(m, name, r, make([]byte, 4096)); !errors.Is(err, lazypages.ErrLost) {
					t.Errorf("memory %s: %v", what, err)
				}
			}
			c.mustRest(last)
			released(t, a, c, m, last)
			if err := a.dumps.Pages(m, "main", r, after); !errors.Is(err, lazypages.ErrLost) {
				t.Errorf("read when it was released: %v", err)
			}
		})
	}
}

// TestPostCopySourceLost: memory of what was let run, or was killed, is lost.
func TestPostCopySourceLost(t *testing.T) {
	postCopy(t)
	a, c, m, d, _ := dumped(t)
	r := leftBehind(t, c, d)
	lost := func(why string) {
		t.Helper()
		if err := a.dumps.Pages(m, "main", r, make([]byte, r.Size)); !errors.Is(err, lazypages.ErrLost) {
			t.Errorf("%s: %v", why, err)
		}
	}
	if err := c.group.Thaw(); err != nil {
		t.Fatal(err)
	}
	lost("thawed by somebody")
	if err := c.group.Freeze(within(t)); err != nil {
		t.Fatal(err)
	}
	init, err := process.Of(c.pid())
	if err == nil {
		err = init.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	lost("killed")
	if err := a.dumps.End(within(t), m); err != nil {
		t.Fatal(err)
	}
	lost("ended")
}

// TestPostCopyWhole: images have all of the memory where the target could not load it later.
func TestPostCopyWhole(t *testing.T) {
	postCopy(t)
	t.Setenv("COUNTER", "SHARED=1")
	a, c, m, d, last := dumped(t)
	if found, err := inspect.MemoryOf(filepath.Join(d.Dir, "main"), model.GiB); err != nil || found.Lacking {
		t.Errorf("the images of two processes have %+v, %v", found, err)
	}
	if err := a.dumps.Release(within(t), m); err != nil {
		t.Fatal(err)
	}
	if now := c.next(); now.n != last.n+1 {
		t.Errorf("the counter went on with %d after %d", now.n, last.n)
	}
}
