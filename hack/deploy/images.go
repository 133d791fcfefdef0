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
)

// Version is the tag of the images that this checkout builds: the chart's appVersion.
const Version = "0.1.0"

// Image is one image to build: its name, and the programs in it by import path.
type Image struct {
	Name     string
	Programs []string // import paths below the module; the first is the entry point
}

// Images of the product, then of the tests and the demo.
var (
	Product = []Image{
		{Name: "drover-agent", Programs: []string{"cmd/drover-agent", "cmd/drover-runc"}},
		{Name: "drover-controller", Programs: []string{"cmd/drover-controller"}},
		{Name: "drover-scheduler", Programs: []string{"cmd/drover-scheduler"}},
	}
	Apps = []Image{
		{Name: "ticker", Programs: []string{"test/apps/ticker"}},
	}
)

// Ref is the image's full reference.
func (i Image) Ref() string { return "drover.dev/" + i.Name + ":" + Version }

// Build compiles the images' programs as static binaries into out/bin and writes one tar
// file an image into out/images; it returns the tar files in order. An image whose
// programs did not change is not written again. root is the checkout.
func Build(ctx context.Context, root string, log io.Writer, images []Image) ([]string, error) {
	bin, tars := filepath.Join(root, "out", "bin"), filepath.Join(root, "out", "images")
	if err := os.MkdirAll(tars, 0o755); err != nil {
		return nil, err
	}
	if err := compile(ctx, root, bin, log, images); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(images))
	for _, i := range images {
		tar, err := writeImage(bin, tars, i)
		if err != nil {
			return nil, err
		}
		out = append(out, tar)
	}
	return out, nil
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

func writeImage(bin, tars string, i Image) (string, error) {
	files := map[string]string{"/tmp": ""}
	sum := sha256.New()
	for _, p := range i.Programs {
		name := filepath.Base(p)
		src := filepath.Join(bin, name)
		files["/"+name] = src
		f, err := os.Open(src)
		if err != nil {
			return "", fmt.Errorf("image %s: %w", i.Name, err)
		}
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("image %s: read %s: %w", i.Name, src, err)
		}
	}
	tar := filepath.Join(tars, fmt.Sprintf("%s-%s.tar", i.Name, hex.EncodeToString(sum.Sum(nil))[:16]))
	if _, err := os.Stat(tar); err == nil {
		return tar, nil
	}
	old, _ := filepath.Glob(filepath.Join(tars, i.Name+"-????????????????.tar"))
	for _, o := range old {
		os.Remove(o)
	}
	return tar, image.Write(tar, i.Ref(), files, []string{"/" + filepath.Base(i.Programs[0])})
}
