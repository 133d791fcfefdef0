package checkpoint

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-project/drover/nodeagent/inspect"
)

// hold dumps a container and inspects its images against a bundle that was changed since.
func hold(t *testing.T, before, after func(spec map[string]any)) error {
	t.Helper()
	var spec map[string]any
	c := newContainer(t, "src", nil, func(_ string, s map[string]any) { before(s); spec = s })
	a := startAgent(t)
	c.run()
	last := c.next()
	m := move(c, nil)
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	defer released(t, a, c, m, c.mustRest(last))
	after(spec)
	c.write(spec)
	return inspect.Copy(filepath.Join(d.Dir, "main"), "/", c.bundle)
}

func same(map[string]any) {}

// TestMountedTwice: CRIU restores one of two read-only mounts of a directory writable.
func TestMountedTwice(t *testing.T) {
	err := hold(t, func(spec map[string]any) {
		mounts := spec["mounts"].([]map[string]any)
		for _, m := range mounts {
			if m["destination"] == "/etc/config" {
				spec["mounts"] = append(mounts, map[string]any{"destination": "/etc/again", "type": "bind", "source": m["source"], "options": m["options"]})
			}
		}
	}, same)
	if !errors.Is(err, inspect.ErrRefused) || !strings.Contains(err.Error(), "CRIU would restore a second one writable") {
		t.Errorf("got %v", err)
	}
}

// TestMountedElsewhere: the images of a container that has more are not those of this one.
func TestMountedElsewhere(t *testing.T) {
	readonly := func(spec map[string]any) { spec["root"].(map[string]any)["readonly"] = true }
	for name, c := range map[string]struct {
		before func(spec map[string]any)
		change func(spec map[string]any) // of the bundle after the dump
		says   string
	}{
		"unchanged": {same, same, ""},
		"less": {same, func(spec map[string]any) {
			mounts := spec["mounts"].([]map[string]any)
			spec["mounts"] = mounts[:len(mounts)-1]
		}, "a mount at /run/secrets/kubernetes.io/serviceaccount"},
		"read-only":       {same, readonly, "the mount at / is writable"},
		"always-readonly": {readonly, same, ""},
		"masked": {same, func(spec map[string]any) {
			linux := spec["linux"].(map[string]any)
			linux["maskedPaths"] = append(linux["maskedPaths"].([]string), "/proc/version")
		}, "no mount at /proc/version"},
	} {
		t.Run(name, func(t *testing.T) {
			err := hold(t, c.before, c.change)
			if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, inspect.ErrRefused) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v, want a refusal that says %q", err, c.says)
			}
		})
	}
}
