package image

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestWriteIsReproducibleAndReadable(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.WriteFile(bin, []byte("static"), 0o700); err != nil {
		t.Fatal(err)
	}
	var digests []string
	for _, name := range []string{"a.tar", "b.tar"} {
		out := filepath.Join(dir, name)
		if err := Write(out, "drover.dev/x:1", map[string]string{"/opt/x/bin": bin, "/tmp": ""}, []string{"/opt/x/bin"}); err != nil {
			t.Fatal(err)
		}
		img, err := tarball.ImageFromPath(out, nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if len(cfg.RootFS.DiffIDs) != 1 {
			t.Fatalf("layers in config: %d, want 1", len(cfg.RootFS.DiffIDs))
		}
		digests = append(digests, d.String())
	}
	if digests[0] != digests[1] {
		t.Fatalf("two builds of one input differ: %v", digests)
	}
}

// An image lies on the layers that it is given, which are as they were.
func TestWriteOnLayers(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "below.tar")
	content, err := layer(map[string]string{"/etc": ""})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(below, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.tar")
	if err := Write(out, "drover.dev/x:1", map[string]string{"/tmp": ""}, []string{"/x"}, below); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(out, nil)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatalf("%d layers, want 2 (%v)", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the lowest layer is another than the one that was given (%v)", err)
	}
}

func TestWriteSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		ref   string
		files map[string]string
	}{
		{"Not A Ref", nil},
		{"drover.dev/x:1", map[string]string{"/x": filepath.Join(dir, "missing")}},
	} {
		out := filepath.Join(dir, "out.tar")
		if err := Write(out, c.ref, c.files, nil); err == nil {
			t.Errorf("Write(%q, %v) gave no error", c.ref, c.files)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("Write(%q) left %s behind", c.ref, out)
		}
	}
}
