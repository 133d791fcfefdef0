package inspect

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// links are the symbolic links of a file system, by their paths in it.
type links map[string]bool

// through gives the first part of a path that is a link; last tells whether the whole path counts.
func (l links) through(p string, last bool) string {
	parts := strings.Split(strings.Trim(p, "/"), "/")
	for i := range parts {
		if part := path.Join("/", path.Join(parts[:i+1]...)); l[part] && (last || i+1 < len(parts)) {
			return part
		}
	}
	return ""
}

// tmpfs reads the content of a tmpfs, an archive that CRIU has tar(1) unpack as root. It may
// hold what the container could have made there.
func (b *bundle) tmpfs(device uint32, r io.Reader) (links, error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	found := links{}
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if err := b.inTmpfs(h, found); err != nil {
			return nil, refusedIn(fmt.Sprintf("tmpfs-dev-%d.tar.gz.img", device), err)
		}
	}
}

func (b *bundle) inTmpfs(h *tar.Header, found links) error {
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	if link := found.through(name, true); link != "" {
		return refuse(tampered, "a file's own path", "the file %q lies behind the link %s", h.Name, link)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeFifo, tar.TypeGNUSparse:
	case tar.TypeSymlink:
		found[name] = true
	case tar.TypeLink:
		to, err := inside(h.Linkname)
		if err != nil {
			return err
		}
		if link := found.through(to, false); link != "" {
			return refuse(tampered, "a file's own path", "the link %q to a file behind the link %s", h.Name, link)
		}
		if found[to] {
			found[name] = true
		}
	case tar.TypeChar:
		return b.node(h.Name, "c", h.Devmajor, h.Devminor)
	case tar.TypeBlock:
		return b.node(h.Name, "b", h.Devmajor, h.Devminor)
	default:
		return refuse(tampered, "files, directories, links, pipes and devices", "%q is of the type %q", h.Name, h.Typeflag)
	}
	return nil
}

// inside gives the path of an archive's member in its file system.
func inside(name string) (string, error) {
	if path.IsAbs(name) || dots(name) {
		return "", refuse(tampered, "a path below its mount point", "the file %q", name)
	}
	return path.Join("/", name), nil
}

// dots tells whether a path has a part "..".
func dots(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}
