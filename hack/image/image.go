// Package image builds container images from static binaries, if need be on top of given
// layers, without a container engine and without a registry: reproducible to the byte,
// written as the tar file that "ctr images import" and "docker load" read.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// epoch stamps every file, so that the same input gives the same digest.
var epoch = time.Unix(0, 0).UTC()

// Write builds the image ref and writes it to tarPath, atomically. files maps a path in
// the image to a file on this machine; every file becomes 0755, owned by root. A source
// given as "" makes an empty directory. base are files that hold a layer each (tar or
// tar.gz), the lowest first; files lies over them.
func Write(tarPath, ref string, files map[string]string, entrypoint []string, base ...string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("image reference %q: %w", ref, err)
	}
	content, err := layer(files)
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	})
	if err != nil {
		return fmt.Errorf("image %s: layer: %w", ref, err)
	}
	layers, err := fromFiles(base)
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	img, err := mutate.AppendLayers(empty.Image, append(layers, l)...)
	if err != nil {
		return fmt.Errorf("image %s: append layer: %w", ref, err)
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Created:      v1.Time{Time: epoch},
		Config:       v1.Config{Entrypoint: entrypoint, Env: []string{"PATH=/:/usr/sbin:/usr/bin"}},
		RootFS:       rootFS(img),
	})
	if err != nil {
		return fmt.Errorf("image %s: config: %w", ref, err)
	}
	tmp := tarPath + ".tmp"
	if err := tarball.WriteToFile(tmp, tag, img); err != nil {
		return fmt.Errorf("image %s: write %s: %w", ref, tmp, err)
	}
	return os.Rename(tmp, tarPath)
}

func fromFiles(paths []string) ([]v1.Layer, error) {
	var layers []v1.Layer
	for _, p := range paths {
		l, err := tarball.LayerFromFile(p)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", p, err)
		}
		layers = append(layers, l)
	}
	return layers, nil
}

func rootFS(img v1.Image) v1.RootFS {
	c, err := img.ConfigFile()
	if err != nil {
		return v1.RootFS{Type: "layers"}
	}
	return c.RootFS
}

// layer is a tar of the files, their parent directories first, in sorted order.
func layer(files map[string]string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{".": true, "/": true}
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		clean := strings.TrimPrefix(path.Clean("/"+n), "/")
		if files[n] == "" {
			if err := directories(w, made, clean); err != nil {
				return nil, err
			}
			continue
		}
		if err := directories(w, made, path.Dir(clean)); err != nil {
			return nil, err
		}
		data, err := os.ReadFile(files[n])
		if err != nil {
			return nil, fmt.Errorf("file for /%s: %w", clean, err)
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: clean, Mode: 0o755, Size: int64(len(data)), ModTime: epoch}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func directories(w *tar.Writer, made map[string]bool, dir string) error {
	if made[dir] {
		return nil
	}
	if err := directories(w, made, path.Dir(dir)); err != nil {
		return err
	}
	made[dir] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch})
}
