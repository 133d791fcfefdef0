package gossip

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/keyring"
	"github.com/drover-project/drover/internal/model"
)

var (
	oldKey  = bytes.Repeat([]byte("o"), 32)
	newKey  = bytes.Repeat([]byte("n"), 32)
	strange = bytes.Repeat([]byte("s"), 32)
)

// write is how kubelet changes a file of a Secret: all of it at once.
func write(t *testing.T, path string, keys keyring.Keys) {
	t.Helper()
	if err := os.WriteFile(path+".new", keys.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// A rotation in three steps, each of which reaches the members at another time: nobody is lost at
// any moment, and in the end the old key opens nothing.
func TestKeysAreRotated(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 21, 0)
		defer c.close()
		names := []model.NodeID{"a", "b", "c"}
		file := func(id model.NodeID) string { return filepath.Join(dir, string(id)) }
		c.with = func(cfg *Config) { cfg.SecretKey, cfg.KeyFile = nil, file(cfg.Self.Node) }
		for _, name := range names {
			write(t, file(name), keyring.Keys{oldKey})
			publish(t, c.node(name), stateOf())
		}
		together := func() bool {
			for _, r := range c.runs {
				if len(r.Snapshot().Alive()) != len(names) {
					return false
				}
			}
			return true
		}
		c.within(time.Minute, "all are members", together)
		for _, step := range []keyring.Keys{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
			for _, name := range names {
				write(t, file(name), step)
				for range 120 { // until the next one sees it
					time.Sleep(250 * time.Millisecond)
					if !together() {
						t.Fatalf("a member was lost when %s had seen %d keys", name, len(step))
					}
				}
			}
		}
		for _, r := range c.runs {
			if keys := r.ring.GetKeys(); len(keys) != 1 || !bytes.Equal(keys[0], newKey) {
				t.Errorf("%s has %d keys", r.id.Subject, len(keys))
			}
			if n := testutil.ToFloat64(r.metrics.undecryptable); n != 0 {
				t.Errorf("%s could not decrypt %v packets", r.id.Subject, n)
			}
		}
		publish(t, c.runs[0], model.NodeState{BootID: "after"})
		c.within(time.Minute, "they still hear each other", func() bool { return c.runs[2].Snapshot().Nodes["a"].State.BootID == "after" })

		// A file that is wrong changes nothing.
		for _, bad := range []string{"", "nonsense", base64.StdEncoding.EncodeToString([]byte("short"))} {
			if err := os.WriteFile(file("a"), []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * keyInterval)
			if keys := c.runs[0].ring.GetKeys(); len(keys) != 1 || !bytes.Equal(keys[0], newKey) {
				t.Fatalf("%q has changed the keys", bad)
			}
		}
		if !together() {
			t.Error("a member was lost")
		}
	})
}

// A member with a key that was taken away, one with another and one without any are heard by
// nobody, in packets and in streams, and counted.
func TestOldKeyChangesNothing(t *testing.T) {
	for name, key := range map[string][]byte{"old": oldKey, "strange": strange} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 22, 0)
				defer c.close()
				a, b := c.node("a"), c.node("b")
				for _, r := range []*run{a, b} {
					if err := r.SetKeys(keyring.Keys{newKey}); err != nil {
						t.Fatal(err)
					}
					publish(t, r, stateOf())
				}
				c.within(time.Minute, "two are members", func() bool { return len(a.Snapshot().Alive()) == 2 && len(b.Snapshot().Alive()) == 2 })
				c.with = func(cfg *Config) { cfg.SecretKey = key }
				outsider := c.node("outsider")
				publish(t, outsider, stateOf())
				time.Sleep(2 * time.Minute)
				for _, r := range []*run{a, b} {
					if s := r.Snapshot(); len(s.Nodes) != 2 || len(s.Alive()) != 2 {
						t.Errorf("%s knows %v", r.id.Subject, s.IDs())
					}
				}
				if s := outsider.Snapshot(); len(s.Nodes) != 1 {
					t.Errorf("the outsider has heard of %v", s.IDs())
				}
				streams := testutil.ToFloat64(a.metrics.undecryptable) + testutil.ToFloat64(b.metrics.undecryptable)
				if streams == 0 {
					t.Error("streams of the outsider are not counted")
				}
				outsider.stop() // it asks for no seeds any more
				time.Sleep(time.Minute)
				before := testutil.ToFloat64(a.metrics.undecryptable)
				lone := c.net.Open()
				if _, err := lone.WriteTo([]byte("plain, and no packet"), a.port.String()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if got := testutil.ToFloat64(a.metrics.undecryptable); got != before+1 {
					t.Errorf("a packet in plain was counted %v times", got-before)
				}
			})
		})
	}
}

func TestKeysBeforeItRuns(t *testing.T) {
	ca := identitytest.NewAuthority(t)
	id := ca.Node(t, "a")
	g, err := New(Config{Self: id.Subject, Identity: func() *identity.Identity { return id }, Roots: ca.Pool(), KeyFile: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("ran without a key: %v", err)
	}
	for name, keys := range map[string]keyring.Keys{"none": nil, "short": {[]byte("short")}} {
		if g.SetKeys(keys) == nil {
			t.Errorf("%s: taken into use", name)
		}
	}
}
