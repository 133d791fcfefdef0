// Package deploy builds Drover's images from this checkout and installs its Helm chart,
// the way a user does: the lab and the tests have no other way in.
package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/drover-project/drover/hack/image"
	"github.com/drover-project/drover/hack/lab/cache"
)

// Image is one image to build: its name, and the programs in it by import path.
type Image struct {
	Name     string
	Programs []string // import paths below the module; the first is the entry point
	Debian   []string // Debian packages that lie below the programs; none: the programs are all there is
}

// Images of the product, then of the tests and the demo.
var (
	Product = []Image{
		{Name: "drover-agent", Programs: []string{"cmd/drover-agent", "cmd/drover-runc"}},
		{Name: "drover-controller", Programs: []string{"cmd/drover-controller"}},
		{Name: "drover-scheduler", Programs: []string{"cmd/drover-scheduler"}},
	}
	Apps = []Image{
		{Name: "ticker", Programs: []string{"test/apps/ticker", "test/checkpoint/odd", "test/apps/chain", "test/apps/beat", "test/apps/load"}},
	}
	// Software is what people run, for the tests that move it.
	Software = []Image{
		{Name: "software", Programs: []string{"test/apps/threads"}, Debian: []string{"redis-server", "python3", "nodejs", "nginx"}},
	}
)

// Ref is the image's full reference.
func (i Image) Ref(tag string) string { return "drover.dev/" + i.Name + ":" + tag }

// Built is what Build made.
type Built struct {
	// Tag is all images': a digest of their programs, so that an upgrade with other programs
	// replaces what runs.
	Tag string
	// Tars hold an image each, in the order of the images.
	Tars []string
}

// Build compiles the images' programs as static binaries into out/bin and writes one tar
// file an image into out/images, unless it is there. root is the checkout; who builds in it meanwhile is waited for.
func Build(ctx context.Context, root string, log io.Writer, images []Image) (Built, error) {
	bin, tars := filepath.Join(root, "out", "bin"), filepath.Join(root, "out", "images")
	if err := os.MkdirAll(tars, 0o755); err != nil {
		return Built{}, err
	}
	unlock, err := cache.Lock(ctx, filepath.Join(tars, ".lock"), func() { fmt.Fprintln(log, "waiting for another build of the images") })
	if err != nil {
		return Built{}, err
	}
	defer unlock()
	if err := compile(ctx, root, bin, log, images); err != nil {
		return Built{}, err
	}
	tag, err := digest(bin, images)
	if err != nil {
		return Built{}, err
	}
	b := Built{Tag: tag}
	for _, i := range images {
		tar, err := writeImage(ctx, bin, tars, i, tag, log)
		if err != nil {
			return Built{}, err
		}
		b.Tars = append(b.Tars, tar)
	}
	return b, nil
}

// digest is over the programs of all images, and the packages below them.
func digest(bin string, images []Image) (string, error) {
	sum := sha256.New()
	for _, i := range images {
		if len(i.Debian) > 0 {
			fmt.Fprintln(sum, i.Debian)
		}
		for _, p := range i.Programs {
			f, err := os.Open(filepath.Join(bin, filepath.Base(p)))
			if err != nil {
				return "", fmt.Errorf("image %s: %w", i.Name, err)
			}
			_, err = io.Copy(sum, f)
			f.Close()
			if err != nil {
				return "", fmt.Errorf("image %s: read %s: %w", i.Name, p, err)
			}
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

func compile(ctx context.Context, root, bin string, log io.Writer, images []Image) error {
	args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", bin + "/"}
	for _, i := range images {
		for _, p := range i.Programs {
			args = append(args, "./"+p)
		}
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s in %s: %w", strings.Join(args, " "), root, err)
	}
	return nil
}

func writeImage(ctx context.Context, bin, tars string, i Image, tag string, log io.Writer) (string, error) {
	tar := filepath.Join(tars, i.Name+"-"+tag+".tar")
	if _, err := os.Stat(tar); err == nil {
		return tar, nil
	}
	old, err := filepath.Glob(filepath.Join(tars, i.Name+"-????????????.tar"))
	if err != nil {
		return "", err
	}
	for _, o := range old {
		if err := os.Remove(o); err != nil {
			return "", err
		}
	}
	files := map[string]string{"/tmp": ""}
	for _, p := range i.Programs {
		files["/"+filepath.Base(p)] = filepath.Join(bin, filepath.Base(p))
	}
	var base []string
	if len(i.Debian) > 0 {
		layer, err := cache.DebianLayer(ctx, i.Debian, func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) })
		if err != nil {
			return "", fmt.Errorf("image %s: %w", i.Name, err)
		}
		base = append(base, layer)
	}
	return tar, image.Write(tar, i.Ref(tag), files, []string{"/" + filepath.Base(i.Programs[0])}, base...)
}
