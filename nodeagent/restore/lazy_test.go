package restore

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// silent is what hosted starts, without a word that it is on its way: it notes its PID and start
// in the directory of its command, and says on the FIFO beside it that it has a child.
const silent = `#!/bin/sh
read -r command <&4
dir=${command#*\"Dir\":\"}
set -- "${dir%%\"*}" "$0" $(cat /proc/$$/stat)
echo "{\"pid\":$$,\"start\":${24}}" > "$1/pid"
sleep 600 &
echo > "$2.fifo"
wait
`

// TestLoadingThatDoesNotBegin: a restore that is broken off does not wait for a daemon that never
// gets ready, and begins nothing.
func TestLoadingThatDoesNotBegin(t *testing.T) {
	b := newBench(t, begun)
	b.cfg.Wrapper = filepath.Join(t.TempDir(), "drover-runc")
	b.cfg.Memory = func(string) (bool, string, error) { return false, "", nil }
	if err := os.WriteFile(b.cfg.Wrapper, []byte(silent), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(b.cfg.Wrapper+".fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.beginLoading(ctx, b.note, "") }()
	if _, err := os.ReadFile(b.cfg.Wrapper + ".fifo"); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v, want that it was broken off", err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for the daemon")
	}
	if err := b.endLoading(t.Context(), b.note); err != nil {
		t.Error(err)
	}
}

// TestLoadedLongAgo: an agent that comes back to a copy whose memory is loaded finds nothing amiss.
func TestLoadedLongAgo(t *testing.T) {
	b := newBench(t, running)
	var log bytes.Buffer
	b.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	b.note.Lazy = true
	if err := b.write(b.note); err != nil {
		t.Fatal(err)
	}
	b.awaitLoaded(t.Context(), b.note)
	if strings.Contains(log.String(), "level=WARN") || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("logged: %s", log.String())
	}
}
