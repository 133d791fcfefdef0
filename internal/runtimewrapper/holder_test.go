package runtimewrapper

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/fence"
)

const (
	digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	pause  = "registry.k8s.io/pause" + digest
)

// Of a fenced pod one image alone is started, by its digest, and nothing of the pod in it.
func TestHolder(t *testing.T) {
	for name, c := range map[string]struct {
		image, holder string
		refused       bool
	}{
		"the holder":                       {pause, pause, false},
		"the pod's own image":              {"app:1", pause, true},
		"no image is known":                {"", pause, true},
		"there is no holder":               {pause, "", true},
		"neither image nor holder":         {"", "", true},
		"another digest":                   {strings.Replace(pause, "0123", "3210", 1), pause, true},
		"by a tag":                         {"registry.example/pause:3.10", "registry.example/pause:3.10", true},
		"by a digest that is cut":          {pause[:len(pause)-1], pause[:len(pause)-1], true},
		"a digest of what cannot be":       {"p@sha256:" + strings.Repeat("x", 64), "p@sha256:" + strings.Repeat("x", 64), true},
		"the same digest, another's name":  {"evil" + digest, pause, true},
		"the tag is named with the digest": {"registry.example/pause:3.10" + digest, pause, true},
	} {
		b := newBench(t, podOf(map[string]string{"drover.dev/migrate": "true", "io.kubernetes.cri.image-name": c.image}))
		if err := b.layout.Fences().Write(fence.Fence{PodUID: "uid-1", Epoch: 2, Holder: c.holder}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(b.in.bundle, "config.json")
		write(t, path, `{"annotations":`+field(t, path, "annotations")+`,"linux":{"cgroupsPath":"/x"},"hooks":{"prestart":[{"path":"/x"}]},"root":{"path":"rootfs"},
			"process":{"args":["/data/server"],"cwd":"/data","env":["A=b"],"user":{"uid":7}},
			"mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/data","type":"bind","source":"/pods/emptydir","options":["rbind","rw"]},
				{"destination":"/tricky","type":"none","source":"/pods/x","options":["bind"]},{"destination":"/etc/hosts","type":"bind","source":"/pods/etc-hosts","options":["rbind"]}]}`)
		err := b.create(b.in, b.args)
		if c.refused {
			if err == nil || errors.Is(err, errExec) || !strings.Contains(err.Error(), "fenced") {
				t.Errorf("%s: %v, want it refused", name, err)
			}
			continue
		}
		if !errors.Is(err, errExec) {
			t.Errorf("%s: %v, want runc to create it", name, err)
		}
		for f, want := range map[string]string{
			"process": `{"args":["/pause"],"cwd":"/","env":[],"user":{"uid":7}}`,
			"mounts":  `[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/etc/hosts","type":"bind","source":"/pods/etc-hosts","options":["rbind"]}]`,
			"hooks":   "",
			"root":    `{"path":"rootfs"}`,
		} {
			if d := cmp.Diff(want, field(t, path, f)); d != "" {
				t.Errorf("%s: %s (-want +got):\n%s", name, f, d)
			}
		}
		// Its start, kill and delete are runc's: no move holds it.
		if note, err := b.layout.ReadContainer(b.in.id); note != nil || err != nil {
			t.Errorf("%s: noted %+v, %v", name, note, err)
		}
		if err := b.start(parse([]string{"start", b.in.id}), []string{"start", b.in.id}); !errors.Is(err, errExec) {
			t.Errorf("%s: start: %v", name, err)
		}
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o640); err != nil {
		t.Fatal(err)
	}
}

// field is one of the bundle's, as JSON without blanks; "": there is none.
func field(t *testing.T, path, name string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return string(all[name])
}
