package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// What is written is an OCI layout whose digests hold, of an image that says whose checkpoint it is.
func TestWriteImage(t *testing.T) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "spec.dump", Size: 2, Typeflag: tar.TypeReg}), second(w.Write([]byte("{}"))), w.Close()); err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	size, err := writeImage(&image, bytes.NewReader(layer.Bytes()), "example.com/x:1", "main")
	if err != nil || size != int64(layer.Len()) {
		t.Fatalf("size %d, %v; want %d", size, err, layer.Len())
	}
	dir := t.TempDir()
	unpack(t, &image, dir)
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil || len(blobs) != 3 { // layer, configuration, manifest
		t.Fatalf("%d blobs, %v; want 3", len(blobs), err)
	}
	for _, b := range blobs {
		data, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", b.Name()))
		if sum := fmt.Sprintf("%x", sha256.Sum256(data)); err != nil || sum != b.Name() {
			t.Errorf("blob %s has digest %s, %v", b.Name(), sum, err)
		}
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if name := list.Manifests[0].Annotations["io.containerd.image.name"]; name != "example.com/x:1" {
		t.Errorf("it is imported as %q", name)
	}
	img, err := index.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))
	if l := manifest.Layers; len(l) != 1 || l[0].Digest.String() != want || len(config.RootFS.DiffIDs) != 1 || config.RootFS.DiffIDs[0].String() != want {
		t.Errorf("layers %v, file systems %v; want %s", l, config.RootFS.DiffIDs, want)
	}
	for _, a := range nameAnnotations {
		if manifest.Annotations[a] != "main" {
			t.Errorf("annotations %v: want %s", manifest.Annotations, a)
		}
	}
}

func second(_ int, err error) error { return err }

func unpack(t *testing.T, from io.Reader, dir string) {
	t.Helper()
	r := tar.NewReader(from)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		path := filepath.Join(dir, h.Name)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServe(t *testing.T) {
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte("layer"), types.DockerLayer))
	if err != nil {
		t.Fatal(err)
	}
	handler, err := serve(img)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, path, kind, body string
		status                   int
	}{
		{"GET", "/v2/", "", "", 200},
		{"GET", "/v2/apps/manifests/1", string(manifest.MediaType), string(raw), 200},
		{"HEAD", "/v2/apps/manifests/sha256:0", string(manifest.MediaType), "", 200},
		{"GET", "/v2/apps/blobs/" + manifest.Layers[0].Digest.String(), string(types.DockerLayer), "layer", 200},
		{"GET", "/v2/apps/blobs/sha256:0", "text/plain; charset=utf-8", "no blob sha256:0\n", 404},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		body := w.Body.String()
		if test.method == "HEAD" {
			body = "" // the server sends none
		}
		if kind := w.Header().Get("Content-Type"); w.Code != test.status || kind != test.kind || body != test.body {
			t.Errorf("%s %s: %d %q %q; want %d %q %q", test.method, test.path, w.Code, kind, body, test.status, test.kind, test.body)
		}
	}
	config := httptest.NewRecorder()
	handler.ServeHTTP(config, httptest.NewRequest("GET", "/v2/apps/blobs/"+manifest.Config.Digest.String(), nil))
	if !strings.Contains(config.Body.String(), "rootfs") {
		t.Errorf("configuration: %q", config.Body)
	}
}
