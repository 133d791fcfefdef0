package runtimewrapper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

func TestAnnotationsAreTheAPIs(t *testing.T) {
	if annotationMigrate != v1alpha1.AnnotationMigrate || annotationMigration != v1alpha1.AnnotationMigration {
		t.Error("the annotations differ from those of the API")
	}
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		args string
		want invocation
	}{
		{"--root /r --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /s abc",
			invocation{verb: "create", root: "/r", log: "/b/log.json", logFormat: "json", systemdCgroup: true,
				bundle: "/b", pidFile: "/b/init.pid", consoleSocket: "/s", id: "abc"}},
		{"--root=/r --debug create --no-pivot --preserve-fds 2 -b /b --no-new-keyring=false abc",
			invocation{verb: "create", root: "/r", bundle: "/b", noPivot: true, id: "abc"}},
		{"start abc", invocation{verb: "start", root: "/run/runc", bundle: ".", id: "abc"}},
		{"delete --force abc", invocation{verb: "delete", root: "/run/runc", bundle: ".", id: "abc"}},
		{"kill --all abc KILL", invocation{verb: "kill", root: "/run/runc", bundle: ".", id: "abc"}},
		{"resume abc", invocation{verb: "resume", root: "/run/runc", bundle: ".", id: "abc"}},
		{"exec --process /p --detach abc", invocation{verb: "exec", root: "/run/runc", bundle: "."}},
		{"--version", invocation{root: "/run/runc", bundle: "."}},
		{"", invocation{root: "/run/runc", bundle: "."}},
		{"--root", invocation{root: "/run/runc", bundle: "."}},
		{"create --bundle /b", invocation{verb: "create", root: "/run/runc", bundle: "/b"}},
		{"create -- abc", invocation{verb: "create", root: "/run/runc", bundle: ".", id: "abc"}},
	} {
		got := parse(strings.Fields(test.args))
		got.global, got.rest = nil, nil
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(invocation{})); diff != "" {
			t.Errorf("parse(%q): -want +got\n%s", test.args, diff)
		}
	}
}

func TestRestoreArgs(t *testing.T) {
	in := parse(strings.Fields("--root /r --log /l --systemd-cgroup create --bundle /b --pid-file /p --no-pivot abc"))
	want := "--root /r --log /l --systemd-cgroup restore --detach --bundle /b --image-path /i --work-path /w --manage-cgroups-mode ignore --pid-file /p --no-pivot abc"
	if got := strings.Join(in.restoreArgs(&bundle{}, "/i", "/w"), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	labelled := &bundle{processLabel: "u:r:container_t:s0:c1,c2", mountLabel: "u:o:file_t:s0:c1,c2"}
	want = "restore --detach --bundle /b --image-path /i --work-path /w --manage-cgroups-mode ignore" +
		" --lsm-profile selinux:u:r:container_t:s0:c1,c2 --lsm-mount-context u:o:file_t:s0:c1,c2 abc"
	if got := strings.Join(parse(strings.Fields("create --bundle /b abc")).restoreArgs(labelled, "/i", "/w"), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := strings.Join(withoutLog(strings.Fields("--root /r --log /l --log=/x --log-format json delete log")), " "); got != "--root /r --log-format json delete log" {
		t.Errorf("without the log: %s", got)
	}
}

// TestPodOfEachRuntime: a pod is what its container runtime says, not what it says itself in
// another's words.
func TestPodOfEachRuntime(t *testing.T) {
	containerd := map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-uid": "u", "io.kubernetes.cri.sandbox-name": "p",
		"io.kubernetes.cri.sandbox-namespace": "n", "io.kubernetes.cri.container-name": "c",
	}
	crio := map[string]string{
		"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.pod.uid": "u", "io.kubernetes.pod.name": "p",
		"io.kubernetes.pod.namespace": "n", "io.kubernetes.container.name": "c",
	}
	with := func(of map[string]string, key, value string) map[string]string {
		all := maps.Clone(of)
		all[key] = value
		return all
	}
	for name, test := range map[string]struct {
		annotations map[string]string
		refused     bool
	}{
		"containerd":                           {containerd, false},
		"CRI-O":                                {crio, false},
		"containerd, the user in CRI-O's name": {with(containerd, "io.kubernetes.pod.uid", "another"), false},
		"CRI-O, the user in containerd's":      {with(crio, "io.kubernetes.cri.sandbox-uid", "another"), true},
		"CRI-O, as if a sandbox":               {with(crio, "io.kubernetes.cri.container-type", "sandbox"), true},
		"containerd, as if a sandbox":          {with(containerd, "io.kubernetes.cri-o.ContainerType", "sandbox"), true},
	} {
		got, err := (&bundle{annotations: test.annotations}).pod()
		if test.refused {
			if err == nil || !strings.Contains(err.Error(), "remove it from the pod") {
				t.Errorf("%s: got %+v, %v; want a refusal", name, got, err)
			}
			continue
		}
		want := pod{namespace: "n", name: "p", uid: "u", container: "c"}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(pod{})); err != nil || diff != "" {
			t.Errorf("%s: %v, -want +got\n%s", name, err, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("--root /r create --bundle /b id")
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, " ")
		in := parse(args)
		if len(in.global)+len(in.rest) > len(args) {
			t.Errorf("%q: more arguments than were given", args)
		}
	})
}

// bench is a wrapper whose runc is only noted.
type bench struct {
	*Wrapper
	in     invocation
	args   []string
	became []string
}

var errExec = errors.New("became runc")

func newBench(t *testing.T, annotations map[string]string) *bench {
	t.Helper()
	dir := t.TempDir()
	l := layout.Layout{Run: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	b := &bench{}
	b.Wrapper = &Wrapper{layout: l, runc: "/usr/bin/runc", now: time.Now, began: time.Now(),
		exec: func(_ string, argv []string) error { b.became = argv[1:]; return errExec }}
	data, err := json.Marshal(map[string]any{
		"ociVersion": "1.2.0", "annotations": annotations,
		"root": map[string]any{"path": "rootfs"}, "mounts": []any{map[string]any{"destination": "/var/run/x"}},
		"linux": map[string]any{"cgroupsPath": "/kubepods/x", "intelRdt": map[string]any{"unknown": 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "rootfs", "var"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run", filepath.Join(dir, "rootfs", "var", "run")); err != nil {
		t.Fatal(err)
	}
	b.args = []string{"--root", "/r", "create", "--bundle", dir, "abc"}
	b.in = parse(b.args)
	return b
}

func (b *bench) annotations(t *testing.T) map[string]string {
	t.Helper()
	got, err := readBundle(b.in.bundle)
	if err != nil {
		t.Fatal(err)
	}
	return got.annotations
}

func podOf(more map[string]string) map[string]string {
	all := map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-uid": "uid-1",
		"io.kubernetes.cri.sandbox-namespace": "ns", "io.kubernetes.cri.sandbox-name": "pod",
		"org.criu.config": "/evil", "org.criu.Other": "x", "keep": "me",
	}
	for k, v := range more {
		all[k] = v
	}
	return all
}

func TestCreate(t *testing.T) {
	for name, test := range map[string]struct {
		annotations map[string]string
		spoil       func(l layout.Layout) error
		refused     string // "": runc creates it
		config      bool   // has our org.criu.config
	}{
		"plain pod": {annotations: podOf(nil)},
		"opted in":  {annotations: podOf(map[string]string{"drover.dev/migrate": "true"}), config: true},
		"opted out": {annotations: podOf(map[string]string{"drover.dev/migrate": "false"})},
		"sandbox of a fenced pod": {
			annotations: podOf(map[string]string{"drover.dev/migrate": "true", "io.kubernetes.cri.container-type": "sandbox"}),
			spoil:       func(l layout.Layout) error { return l.Fences().Write(fence.Fence{PodUID: "uid-1", Epoch: 2}) },
		},
		"fenced": {
			annotations: podOf(map[string]string{"drover.dev/migrate": "true"}),
			spoil:       func(l layout.Layout) error { return l.Fences().Write(fence.Fence{PodUID: "uid-1", Epoch: 2}) },
			refused:     "fenced",
		},
		"fenced, the annotation taken away": {
			annotations: podOf(nil),
			spoil:       func(l layout.Layout) error { return l.Fences().Write(fence.Fence{PodUID: "uid-1", Epoch: 2}) },
			refused:     "fenced",
		},
		"no fences, opted in": {
			annotations: podOf(map[string]string{"drover.dev/migrate": "true"}),
			spoil:       func(l layout.Layout) error { return os.RemoveAll(string(l.Fences())) },
			refused:     "cannot tell",
		},
		"no fences, plain": {
			annotations: podOf(nil),
			spoil:       func(l layout.Layout) error { return os.RemoveAll(string(l.Fences())) },
		},
		"opted in, no pod UID": {
			annotations: map[string]string{"drover.dev/migrate": "true"},
			refused:     "cannot tell",
		},
		"no pod": {annotations: map[string]string{"a": "b"}},
		"restored before": {
			annotations: podOf(map[string]string{"drover.dev/migration": "m"}),
			spoil: func(l layout.Layout) error {
				return l.Restored().Write(fence.Restored{PodUID: "uid-1", Migration: "m"})
			},
			config: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, test.annotations)
			if test.spoil != nil {
				if err := test.spoil(b.layout); err != nil {
					t.Fatal(err)
				}
			}
			err := b.create(b.in, b.args)
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) || b.became != nil {
					t.Fatalf("got %v, ran %q; want %q", err, b.became, test.refused)
				}
				return
			}
			if !errors.Is(err, errExec) || !cmp.Equal(b.became, b.args) {
				t.Fatalf("got %v, ran %q", err, b.became)
			}
			got := b.annotations(t)
			want := ""
			if test.config {
				want = b.layout.CriuConfig("abc")
			}
			if got["org.criu.config"] != want || got["org.criu.Other"] != "" || got["keep"] != test.annotations["keep"] {
				t.Errorf("annotations: %v", got)
			}
		})
	}
}

// TestNeverCold: a replacement that finds nobody who has its checkpoint fails.
func TestNeverCold(t *testing.T) {
	b := newBench(t, podOf(map[string]string{"drover.dev/migration": "m"}))
	b.began = time.Now().Add(-patience + 200*time.Millisecond)
	err := b.create(b.in, b.args)
	if err == nil || b.became != nil || !strings.Contains(err.Error(), "never started without one") {
		t.Errorf("got %v, ran %q", err, b.became)
	}
	t.Log(err)
}

func TestBundleKeepsWhatItDoesNotKnow(t *testing.T) {
	b := newBench(t, podOf(nil))
	_ = b.create(b.in, b.args)
	path := filepath.Join(b.in.bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, []byte(`"intelRdt":{"unknown":1}`)) {
		t.Errorf("%v: %s", err, data)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
}

func TestReport(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log.json")
	var stderr bytes.Buffer
	in := invocation{log: log, logFormat: "json"}
	in.report(&stderr, time.Unix(0, 0), errors.New(`a "reason"`))
	data, _ := os.ReadFile(log)
	want := `{"level":"error","msg":"drover-runc: a \"reason\"","time":"1970-01-01T00:00:00Z"}` + "\n"
	if string(data) != want || stderr.String() != "drover-runc: a \"reason\"\n" {
		t.Errorf("log %q, stderr %q", data, stderr.String())
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := installTo(dir); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, layout.Hook))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}

// The note about a container goes when runc has deleted it, and not before: without it a
// container that is still there could not be found, nor held.
func TestDelete(t *testing.T) {
	for _, code := range []int{0, 3} {
		b := newBench(t, podOf(nil))
		b.runc = filepath.Join(t.TempDir(), "runc")
		if err := os.WriteFile(b.runc, []byte(fmt.Sprintf("#!/bin/sh\ntest \"$*\" = '--root /r delete abc' && exit %d\nexit 99\n", code)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := b.layout.WriteContainer(layout.Container{ID: "abc", PodUID: "uid-1"}); err != nil {
			t.Fatal(err)
		}
		args := []string{"--root", "/r", "delete", "abc"}
		err := b.delete(parse(args), args)
		var runc runcFailed
		if errors.As(err, &runc); runc.code != code || (err == nil) != (code == 0) {
			t.Errorf("runc ends with %d: got %v", code, err)
		}
		note, err := b.layout.ReadContainer("abc")
		if err != nil || (note == nil) != (code == 0) {
			t.Errorf("runc ends with %d: the note is %+v, %v", code, note, err)
		}
	}
}

// TestDeleteIsKilled: a runc that is killed tells nobody why; and it does not outlive this
// program, which the container runtime kills when its patience ends.
func TestDeleteIsKilled(t *testing.T) {
	const inside = "DROVER_TEST_DELETE"
	args := []string{"--root", "/r", "delete", "abc"}
	if run := os.Getenv(inside); run != "" {
		w := &Wrapper{layout: layout.Layout{Run: run}, runc: filepath.Join(run, "runc")}
		_ = w.delete(parse(args), args)
		return
	}
	b := newBench(t, podOf(nil))
	b.runc = filepath.Join(b.layout.Run, "runc")
	script := func(text string) {
		if err := os.WriteFile(b.runc, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.layout.WriteContainer(layout.Container{ID: "abc", PodUID: "uid-1"}); err != nil {
		t.Fatal(err)
	}
	script("kill -9 $$\n")
	if err := b.delete(parse(args), args); errors.As(err, new(runcFailed)) || err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("runc is killed: got %v", err)
	}
	script("echo $$\nexec sleep 600\n")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestDeleteIsKilled$")
	cmd.Env = append(os.Environ(), inside+"="+b.layout.Run)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	runc, err := process.Of(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = runc.Kill() })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := runc.Wait(ctx); err != nil {
		t.Errorf("runc outlives its caller: %v", err)
	}
}
