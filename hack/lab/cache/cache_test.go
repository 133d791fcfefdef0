package cache

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func quiet(string, ...any) {}

func newEntry(builds *int, fail error) entry {
	return entry{kind: "thing", key: "1", build: func(_ context.Context, dir string, _ Report) error {
		*builds++
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
			return err
		}
		return fail
	}}
}

func TestBuiltOnceByMany(t *testing.T) {
	t.Setenv("DROVER_CACHE", t.TempDir())
	builds := 0
	e := newEntry(&builds, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := e.make(t.Context(), quiet); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if builds != 1 || !e.exists() {
		t.Errorf("built %d times, exists %t; want once", builds, e.exists())
	}
}

// What fails, and what was killed while it built, never counts as built.
func TestHalfBuilt(t *testing.T) {
	t.Setenv("DROVER_CACHE", t.TempDir())
	builds, broken := 0, errors.New("broken")
	if err := newEntry(&builds, broken).make(t.Context(), quiet); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	killed := filepath.Join(Dir(), ".thing.tmp-1")
	if err := os.MkdirAll(killed, 0o755); err != nil {
		t.Fatal(err)
	}
	e := newEntry(&builds, nil)
	if e.exists() {
		t.Error("a failed build counts")
	}
	if err := e.make(t.Context(), quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(killed); !os.IsNotExist(err) {
		t.Errorf("leftover %s is still there", killed)
	}
}

func TestArchive(t *testing.T) {
	for _, test := range []struct {
		name  string
		parse func(string) (archive, bool)
		text  string
		want  archive
	}{
		{"deb822", parseSources, `Types: deb
# a comment: with a colon
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/k.gpg
`, archive{"http://mirror.example/debian", "/usr/share/keyrings/k.gpg"}},
		{"deb822: security first", parseSources, `Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://mirror.example/debian/
Suites: bookworm
Components: main contrib
`, archive{"https://mirror.example/debian/", ""}},
		{"deb822: disabled", parseSources, "Types: deb\nEnabled: no\nURIs: http://m.example/debian\nSuites: x\nComponents: main\n", archive{}},
		{"deb822: somebody else's", parseSources, "Types: deb\nURIs: http://m.example/tool\nSuites: x\nComponents: main\n", archive{}},
		{"one line", parseSourcesList, "# deb http://no.example/debian x main\ndeb http://m.example/debian bookworm main contrib\n", archive{"http://m.example/debian", ""}},
		{"one line with options", parseSourcesList, "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main\n", archive{"http://m.example/debian", "/k.gpg"}},
		{"one line: sources only", parseSourcesList, "deb-src http://m.example/debian bookworm main\n", archive{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := test.parse(test.text)
			if got != test.want || ok != (test.want.mirror != "") {
				t.Errorf("got %+v, %t; want %+v", got, ok, test.want)
			}
		})
	}
}

// Kubernetes is built again when what it is made of changes, and not when anything else does.
func TestKubeRequirements(t *testing.T) {
	const mod = "require (\n\tk8s.io/kubernetes v1.34.9\n\tk8s.io/client-go v0.34.9\n\tx.example/y v1.0.0\n)\nreplace k8s.io/kube-proxy => k8s.io/kube-proxy v0.34.10\n"
	base := kubeRequirements(mod)
	for _, test := range []struct {
		old, new string
		same     bool
	}{
		{"x.example/y v1.0.0", "x.example/y v1.1.0", true},
		{"\tx.example/y v1.0.0", "\tk8s.io/metrics v0.34.9\n", true},
		{"client-go v0.34.9", "client-go v0.34.9 // indirect", true},
		{"client-go v0.34.9", "client-go v0.34.10", false},
		{"=> k8s.io/kube-proxy v0.34.10", "=> k8s.io/kube-proxy v0.34.11", false},
	} {
		if got := kubeRequirements(strings.Replace(mod, test.old, test.new, 1)) == base; got != test.same {
			t.Errorf("%q for %q: same %t, want %t", test.new, test.old, got, test.same)
		}
	}
}

// A layer has what programs read, each path once, root's name, and no time of its making.
func TestLayerOfPackages(t *testing.T) {
	pack := func(headers ...tar.Header) *tar.Reader {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Size, h.ModTime = int64(len(h.Name)), time.Now()
			if h.Typeflag != tar.TypeReg {
				h.Size = 0
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				fmt.Fprint(w, h.Name)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return tar.NewReader(&b)
	}
	var b bytes.Buffer
	l := layer{to: tar.NewWriter(&b), has: map[string]bool{}}
	for _, p := range []*tar.Reader{
		pack(tar.Header{Typeflag: tar.TypeDir, Name: "./"}, tar.Header{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755},
			tar.Header{Typeflag: tar.TypeReg, Name: "./usr/bin/a", Mode: 0o755}, tar.Header{Typeflag: tar.TypeLink, Name: "./usr/bin/b", Linkname: "./usr/bin/a"}),
		pack(tar.Header{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755}, tar.Header{Typeflag: tar.TypeReg, Name: "./usr/share/doc/x"},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin"}, tar.Header{Typeflag: tar.TypeReg, Name: "./usr/share/base-passwd/passwd.master"}),
	} {
		if err := l.copy(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.to.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(epoch) {
			t.Errorf("%s is of %s", h.Name, h.ModTime)
		}
		got = append(got, strings.TrimSuffix(h.Name+" "+h.Linkname, " "))
	}
	want := []string{"usr/", "usr/bin/a", "usr/bin/b usr/bin/a", "bin usr/bin",
		"usr/share/base-passwd/passwd.master", "etc/passwd /usr/share/base-passwd/passwd.master"}
	if !slices.Equal(got, want) {
		t.Errorf("the layer has %q, want %q", got, want)
	}
}
