package cache

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	// release is where the software in test images comes from: what users run today, and it
	// does not change from day to day as the machines' suite does.
	release = "trixie"
	// layerFormat changes when a layer is made differently from the same packages.
	layerFormat = "1"
	layerFile   = "layer.tar.gz"
)

// essential is in every layer: the root's links into /usr, root's name, a shell.
var essential = []string{"base-files", "base-passwd", "coreutils", "dash", "mawk"}

// DebianLayer makes sure that an image layer with these Debian packages and all that they
// depend on is in the cache, and gives its path (tar.gz). Nothing is installed on the
// machine, and no maintainer script is run: a program finds its files, but no user or
// configuration that its package's installation would have made.
func DebianLayer(ctx context.Context, packages []string, report Report) (string, error) {
	packages = slices.Sorted(slices.Values(slices.Concat(essential, packages)))
	e := entry{
		kind:  "debian",
		key:   release + "-" + digest(release, layerFormat, runtime.GOARCH, strings.Join(packages, ",")),
		about: "an image layer of packages, about 1 min",
		build: func(ctx context.Context, dir string, report Report) error {
			return buildLayer(ctx, dir, packages, report)
		},
	}
	if err := e.have(ctx, report); err != nil {
		return "", fmt.Errorf("image layer of %s: %w", strings.Join(packages, " "), err)
	}
	return filepath.Join(e.path(), layerFile), nil
}

func buildLayer(ctx context.Context, dir string, packages []string, report Report) error {
	if err := Prerequisites(ctx, report); err != nil { // the archive's keys
		return err
	}
	work := filepath.Join(dir, "apt")
	report("  fetching %s from %s of the machine's own mirror", strings.Join(packages, " "), release)
	apt, err := newApt(ctx, work, release)
	if err != nil {
		return err
	}
	debs, err := apt.fetch(ctx, packages)
	if err != nil {
		return err
	}
	report("  making a layer of %d packages", len(debs))
	if err := writeLayer(ctx, filepath.Join(dir, layerFile), debs); err != nil {
		return err
	}
	return os.RemoveAll(work)
}

// apt is the machine's apt-get in a world of its own: the machine's lists and packages are
// neither read nor changed.
type apt struct {
	work    string
	options []string
}

// newApt makes a world under work that knows the packages of one release, and has none.
func newApt(ctx context.Context, work, release string) (apt, error) {
	a, err := machineArchive()
	if err != nil {
		return apt{}, err
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			return apt{}, err
		}
	}
	source, signed := filepath.Join(work, "sources.list"), ""
	if a.keyring != "" {
		signed = "[signed-by=" + a.keyring + "] "
	}
	for name, content := range map[string]string{source: "deb " + signed + a.mirror + " " + release + " main\n", filepath.Join(work, "status"): ""} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			return apt{}, err
		}
	}
	w := apt{work: work, options: []string{
		"-o", "Dir::State=" + filepath.Join(work, "state"), "-o", "Dir::State::status=" + filepath.Join(work, "status"),
		"-o", "Dir::Cache=" + filepath.Join(work, "cache"), "-o", "Dir::Etc::SourceList=" + source,
		"-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Dir::Etc::Preferences=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null",
		"-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3",
	}}
	return w, aptGet(ctx, w.args("update"))
}

func (a apt) args(more ...string) []string { return slices.Concat(a.options, more) }

// fetch downloads packages with their dependencies, and gives the files.
func (a apt) fetch(ctx context.Context, packages []string) ([]string, error) {
	install := a.args("install", "-y", "--download-only", "--no-install-recommends")
	if err := aptGet(ctx, append(install, packages...)); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(a.work, "cache/archives/*.deb"))
	if err == nil && len(debs) == 0 {
		err = fmt.Errorf("apt-get fetched nothing into %s", filepath.Join(a.work, "cache/archives"))
	}
	return debs, err
}

func writeLayer(ctx context.Context, name string, debs []string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	l := layer{to: tar.NewWriter(z), has: map[string]bool{}}
	for _, deb := range debs {
		if err := l.unpack(ctx, deb); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	return errors.Join(l.to.Close(), z.Close(), f.Close())
}

// layer is a tar made of several packages' files.
type layer struct {
	to  *tar.Writer
	has map[string]bool
}

func (l layer) unpack(ctx context.Context, deb string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	copied := l.copy(tar.NewReader(out))
	if copied != nil {
		out.Close() // dpkg-deb ends
	}
	if err := cmd.Wait(); copied == nil && err != nil {
		return fmt.Errorf("dpkg-deb: %w: %s", err, stderr.String())
	}
	return copied
}

// epoch stamps every file: no time of a build is in the layer.
var epoch = time.Unix(0, 0)

func (l layer) copy(from *tar.Reader) error {
	for {
		h, err := from.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		h.Name = rooted(h.Name)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = rooted(h.Linkname)
		}
		if h.Name == "" || unread(h.Name) || l.has[h.Name] {
			continue
		}
		l.has[h.Name] = true
		h.ModTime, h.Format = epoch, tar.FormatUnknown
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := l.to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(l.to, from); err != nil {
			return err
		}
		// What base-passwd's installation does, and programs look up their users in.
		if name, ok := strings.CutPrefix(h.Name, "usr/share/base-passwd/"); ok && strings.HasSuffix(name, ".master") {
			err := l.to.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/" + strings.TrimSuffix(name, ".master"), Linkname: "/" + h.Name, ModTime: epoch, Mode: 0o777})
			if err != nil {
				return err
			}
		}
	}
}

func rooted(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// unread tells of what no program in a test reads.
func unread(name string) bool {
	for _, p := range []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/zoneinfo", "usr/include"} {
		if name == p || strings.HasPrefix(name, p+"/") {
			return true
		}
	}
	return false
}
