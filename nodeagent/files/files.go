// Package files takes what a pod's containers have written to files along with them: the
// emptyDir volumes, the writable layer of an overlay, and /dev/shm. On the source each such
// tree is packed into two files beside CRIU's images of the first container that has it; on
// the target it is unpacked before that container is restored from them.
//
// The images come from another node, which is not trusted: package filetree lets nothing out
// of a tree, and which trees there are, and where, is read from the OCI bundle that this
// node's own runtime made.
package files

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/filetree"
	"github.com/drover-project/drover/internal/model"
)

// Node is where files are.
type Node struct {
	// Host is where the node's root file system is seen, with its /proc.
	Host string
	// Limits of each tree.
	Limits filetree.Limits
	// Own is how much memory this process may take; nil: any. Images that are packed are charged to it, and so
	// is what is unpacked into a file system in memory, beside the images.
	Own func() (model.Bytes, error)
}

// DefaultLimits are 10 GiB and 200,000 files.
var DefaultLimits = filetree.Limits{Bytes: 10 << 30, Entries: 200_000}

// Container is one whose files travel.
type Container struct {
	PodUID string
	// Bundle is the directory of its OCI bundle on the node, Images that of its images.
	Bundle, Images string
}

// tree is one that travels.
type tree struct {
	// image is the name of its image files, without their endings, what it is in words.
	image, what string
	// path is where it is, as this process sees it.
	path  string
	layer bool
	// must: without its images the container is not restored.
	must bool
	// unfit: a container has a part of it in a way that the target's kubelet would not make.
	unfit error
}

// Endings of a tree's image files. The names are none that CRIU writes or reads.
const (
	prefix      = "drover-"
	indexSuffix = ".index"
	dataSuffix  = ".data"
)

// imageName matches the image files of this package; their content is checked when they are unpacked.
var imageName = regexp.MustCompile(`^drover-(layer|shm|volume-[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)\.(index|data)$`)

// Image tells whether a file in a directory of images is one of this package's.
func Image(name string) bool { return imageName.MatchString(name) }

// bundle is what counts here of an OCI bundle's config.json (runtime-spec, config.md).
type bundle struct {
	Root struct {
		Path     string `json:"path"`
		Readonly bool   `json:"readonly"`
	} `json:"root"`
	Mounts []mount `json:"mounts"`
}

type mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

func (n Node) bundle(dir string) (*bundle, error) {
	file, err := securejoin.SecureJoin(n.Host, filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the container's bundle: %w", err)
	}
	b := &bundle{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("read the container's bundle: %w", err)
	}
	if !filepath.IsAbs(b.Root.Path) {
		b.Root.Path = filepath.Join(dir, b.Root.Path)
	}
	return b, nil
}

// trees are those of a container. The layer is in the overlay's upper directory, which the
// source reads, or, where all is merged, in the mounted overlay, by which the target writes it.
func (n Node) trees(c Container, merged bool) ([]tree, error) {
	b, err := n.bundle(c.Bundle)
	if err != nil {
		return nil, err
	}
	var all []tree
	for _, m := range b.Mounts {
		t, ok, err := n.mounted(c.PodUID, m)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if i := slices.IndexFunc(all, func(o tree) bool { return o.image == t.image }); i < 0 {
			all = append(all, t)
		} else if all[i].unfit == nil {
			all[i].unfit = t.unfit
		}
	}
	if b.Root.Readonly {
		return all, nil // nothing was written to it
	}
	layer := b.Root.Path
	if !merged {
		if layer, err = n.upper(layer); err != nil || layer == "" {
			return all, err
		}
	}
	path, err := securejoin.SecureJoin(n.Host, layer)
	if err != nil {
		return nil, err
	}
	return append(all, tree{image: prefix + "layer", what: "the container's own file system", path: path, layer: true}), nil
}

// Where kubelet keeps the emptyDirs of a pod, and where it mounts parts of a volume that a
// container has by subPath (k8s.io/kubernetes/pkg/kubelet/config/defaults.go).
var (
	emptyDir = regexp.MustCompile(`^(/.+/pods/([^/]+)/)volumes/kubernetes\.io~empty-dir/([^/]+)(/.*)?$`)
	subPath  = regexp.MustCompile(`^(/.+/pods/([^/]+)/)volume-subpaths/([^/]+)/[^/]+/[0-9]+$`)
	volume   = regexp.MustCompile(`^/.+/pods/[^/]+/(volumes|volume-subpaths)/`)
)

// mounted gives the tree that a mount is of, or is a part of; ok: there is one.
func (n Node) mounted(podUID string, m mount) (t tree, ok bool, err error) {
	if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
		return tree{}, false, nil
	}
	source := filepath.Clean(m.Source)
	parts, part := emptyDir.FindStringSubmatch(source), false
	if parts == nil {
		parts, part = subPath.FindStringSubmatch(source), true
	}
	if parts != nil && parts[2] == podUID {
		dir := parts[1] + "volumes/kubernetes.io~empty-dir/" + parts[3]
		path, err := securejoin.SecureJoin(n.Host, dir)
		if err != nil {
			return tree{}, false, err
		}
		if info, err := os.Lstat(path); err != nil || !info.IsDir() {
			return tree{}, false, nil // a part of another kind of volume
		}
		t = tree{image: prefix + "volume-" + parts[3], what: "the emptyDir " + parts[3], path: path, must: true}
		if part {
			t.unfit = n.whole(source, m.Destination)
		}
		return t, true, nil
	}
	// kubelet makes other volumes anew, also those that are mounted there.
	if m.Destination == "/dev/shm" && !volume.MatchString(source) {
		path, err := securejoin.SecureJoin(n.Host, source)
		return tree{image: prefix + "shm", what: "/dev/shm", path: path}, err == nil, err
	}
	return tree{}, false, nil
}

// whole wants what a container has of a volume by subPath to be a directory that is still in it:
// kubelet makes one, empty, where it finds nothing yet.
func (n Node) whole(source, destination string) error {
	path, err := securejoin.SecureJoin(n.Host, source)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Nlink == 0 {
		return fmt.Errorf("%w: what is mounted of it by subPath at %s is no directory of it (any more)", filetree.ErrUnfit, destination)
	}
	return nil
}

// upper gives the upper directory of the overlay that is mounted as a root file system on
// the node; empty: it is no overlay.
func (n Node) upper(rootfs string) (string, error) {
	// As the kernel names it: without links.
	seen, err := securejoin.SecureJoin(n.Host, rootfs)
	if err != nil {
		return "", err
	}
	where := filepath.Join("/", strings.TrimPrefix(seen, strings.TrimSuffix(n.Host, "/")))
	f, err := os.Open(filepath.Join(n.Host, "proc/1/mountinfo"))
	if err != nil {
		return "", fmt.Errorf("look for the container's file system: %w", err)
	}
	defer f.Close()
	found := ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		point, kind, options, ok := mountLine(lines.Text())
		if !ok || point != where {
			continue
		}
		// Of several the last covers the others.
		if found = ""; kind == "overlay" {
			found = option(options, "upperdir")
		}
	}
	return found, lines.Err()
}

// mountLine reads a line of mountinfo (proc_pid_mountinfo(5)).
func mountLine(line string) (point, kind, options string, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 5 || len(right) < 3 {
		return "", "", "", false
	}
	return unescape(left[4]), right[0], right[2], true
}

// option gives the value of a file system's option.
func option(options, name string) string {
	for o := range strings.SplitSeq(options, ",") {
		if v, ok := strings.CutPrefix(o, name+"="); ok {
			return unescape(v)
		}
	}
	return ""
}

var octal = regexp.MustCompile(`\\[0-7]{3}`)

func unescape(s string) string {
	return octal.ReplaceAllStringFunc(s, func(code string) string {
		n, err := strconv.ParseUint(code[1:], 8, 8)
		if err != nil {
			return code
		}
		return string([]byte{byte(n)})
	})
}
