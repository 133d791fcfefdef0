package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/filetree"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/movable"
)

const (
	kubelet = "/var/lib/kubelet/pods/"
	uid     = "0f5a-1"
	volumes = kubelet + uid + "/volumes/kubernetes.io~empty-dir/"
)

// node is one below a directory.
func node(t *testing.T) Node {
	t.Helper()
	n := Node{Host: t.TempDir(), Limits: filetree.Limits{Bytes: 1 << 20, Entries: 100}}
	n.write(t, "/proc/1/mountinfo", "")
	return n
}

func (n Node) write(t *testing.T, file, content string) {
	t.Helper()
	p := filepath.Join(n.Host, file)
	try(t, os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644))
}

func (n Node) read(file string) string {
	data, err := os.ReadFile(filepath.Join(n.Host, file))
	if err != nil {
		return ""
	}
	return string(data)
}

func try(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// container makes a bundle, by what is mounted where, and an empty directory of images.
func (n Node) container(t *testing.T, podUID, name string, readonly bool, mounts ...string) Container {
	t.Helper()
	b := bundle{}
	b.Root.Path, b.Root.Readonly = "rootfs", readonly
	for _, m := range mounts {
		from, to, _ := strings.Cut(m, ":")
		b.Mounts = append(b.Mounts, mount{Source: from, Destination: to, Type: "bind", Options: []string{"rbind"}})
	}
	data, err := json.Marshal(b)
	try(t, err)
	c := Container{PodUID: podUID, Bundle: "/run/" + name, Images: filepath.Join(n.Host, "images", name)}
	n.write(t, c.Bundle+"/config.json", string(data))
	try(t, os.MkdirAll(filepath.Join(n.Host, c.Bundle, "rootfs"), 0o755), os.MkdirAll(c.Images, 0o755))
	return c
}

// overlay says that a container's root file system is one, with its upper layer at a place.
func (n Node) overlay(t *testing.T, c Container, upper string) {
	t.Helper()
	try(t, os.MkdirAll(filepath.Join(n.Host, upper), 0o755))
	n.write(t, "/proc/1/mountinfo", n.read("/proc/1/mountinfo")+fmt.Sprintf("%s\n%s\n",
		"29 1 0:25 / /run rw shared:5 - tmpfs tmpfs rw",
		`66 29 0:50 / `+c.Bundle+`/rootfs rw,relatime shared:32 - overlay overlay rw,lowerdir=/l/1/fs:/l/2/fs,upperdir=`+upper+`,workdir=/w`))
}

func (n Node) images(c Container) string {
	var all []string
	names, _ := os.ReadDir(c.Images)
	for _, e := range names {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// What travels is what the pod alone can write to, once: with the first container that has it.
func TestTrees(t *testing.T) {
	n := node(t)
	for file, content := range map[string]string{
		volumes + "scratch/a":   "a",
		volumes + "parts/x/y/b": "b",
		kubelet + uid + "/volumes/kubernetes.io~configmap/config/c":      "c",
		kubelet + "other/volumes/kubernetes.io~empty-dir/theirs/d":       "d",
		kubelet + uid + "/volume-subpaths/parts/app/0/b":                 "mounted",
		kubelet + uid + "/volume-subpaths/config/app/1/c":                "mounted",
		"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s1/shm/sem": "sem",
		"/snapshots/7/fs/etc/e":                                          "e",
		"/srv/host":                                                      "h",
	} {
		n.write(t, file, content)
	}
	app := n.container(t, uid, "app", false, volumes+"scratch:/scratch", kubelet+uid+"/volume-subpaths/parts/app/0:/y",
		kubelet+uid+"/volume-subpaths/config/app/1:/etc/config", kubelet+uid+"/volumes/kubernetes.io~configmap/config:/config",
		kubelet+"other/volumes/kubernetes.io~empty-dir/theirs:/theirs", "/srv:/srv",
		"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s1/shm:/dev/shm")
	n.overlay(t, app, "/snapshots/7/fs")
	proxy := n.container(t, uid, "proxy", true, volumes+"scratch:/here", volumes+"scratch:/and-here",
		"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s1/shm:/dev/shm")
	all := []Container{app, proxy}
	size, found, err := n.Survey(t.Context(), all)
	if err != nil || len(found) != 0 || size < 4*filetree.Page {
		t.Errorf("surveyed %d bytes, %v, %v", size, found, err)
	}
	p, err := n.Pack(t.Context(), all)
	if err != nil || p.Bytes != 4*filetree.Page {
		t.Errorf("packed %+v, %v", p, err)
	}
	const want = "drover-layer.data drover-layer.index drover-shm.data drover-shm.index drover-volume-parts.data drover-volume-parts.index " +
		"drover-volume-scratch.data drover-volume-scratch.index"
	if got := n.images(app); got != want {
		t.Errorf("app's images: %s", got)
	}
	if got := n.images(proxy); got != "" {
		t.Errorf("proxy's images: %s", got)
	}
	for _, name := range strings.Fields(want) {
		if !Image(name) {
			t.Errorf("%s is no image", name)
		}
	}
	for _, name := range []string{"drover-volume-.index", "drover-volume-a/b.index", "drover-volume-A.index", "drover-x.data", "pages-1.img", "drover-layer.index.img"} {
		if Image(name) {
			t.Errorf("%s is an image", name)
		}
	}
}

// What is given while the pod runs is, page by page, what is packed when it stands still.
func TestHint(t *testing.T) {
	n := node(t)
	n.write(t, volumes+"scratch/page", strings.Repeat("p", filetree.Page))
	n.write(t, volumes+"scratch/more", strings.Repeat("m", 2*filetree.Page+5))
	n.write(t, volumes+"scratch/none", "")
	n.write(t, "/snapshots/7/fs/etc/e", "e")
	app := n.container(t, uid, "app", false, volumes+"scratch:/scratch")
	n.overlay(t, app, "/snapshots/7/fs")
	proxy := n.container(t, uid, "proxy", true, volumes+"scratch:/scratch")
	all := []Container{app, proxy}
	var early, packed []byte
	p, err := n.Hint(t.Context(), all, func(pages []byte) error {
		if len(pages)%filetree.Page != 0 {
			t.Errorf("%d bytes are no whole pages", len(pages))
		}
		early = append(early, pages...)
		return nil
	})
	try(t, err)
	if got := n.images(app) + n.images(proxy); got != "" {
		t.Errorf("a hint leaves images: %s", got)
	}
	_, err = n.Pack(t.Context(), all)
	try(t, err)
	for _, name := range []string{"drover-volume-scratch.data", "drover-layer.data"} {
		data, err := os.ReadFile(filepath.Join(app.Images, name))
		try(t, err)
		packed = append(packed, data...)
	}
	if !bytes.Equal(early, packed) || p.Bytes != model.Bytes(len(packed)) || len(packed) != 5*filetree.Page {
		t.Errorf("%d bytes given, %d of them counted, %d packed", len(early), p.Bytes, len(packed))
	}
	full := errors.New("full")
	if _, err := n.Hint(t.Context(), all, func([]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("nobody takes them: %v", err)
	}
}

// The target makes the files of volumes where its own kubelet has them, once.
func TestUnpack(t *testing.T) {
	source, target := node(t), node(t)
	source.write(t, volumes+"scratch/a", "a")
	source.write(t, "/snapshots/7/fs/etc/e", "e")
	app := source.container(t, uid, "app", false, volumes+"scratch:/scratch")
	source.overlay(t, app, "/snapshots/7/fs")
	proxy := source.container(t, uid, "proxy", false, volumes+"scratch:/scratch")
	_, err := source.Pack(t.Context(), []Container{app, proxy})
	try(t, err)

	const theirs = kubelet + "9e9e/volumes/kubernetes.io~empty-dir/scratch"
	try(t, os.MkdirAll(filepath.Join(target.Host, theirs), 0o755))
	first := target.container(t, "9e9e", "app", false, theirs+":/scratch")
	second := target.container(t, "9e9e", "proxy", false, theirs+":/scratch")
	first.Images, second.Images = app.Images, proxy.Images
	try(t, target.Unpack(t.Context(), first, []string{second.Images}))
	if got := target.read(theirs + "/a"); got != "a" {
		t.Errorf("in the volume: %q", got)
	}
	if got := target.read("/run/app/rootfs/etc/e"); got != "e" {
		t.Errorf("in the layer: %q", got)
	}
	target.write(t, theirs+"/a", "changed")
	try(t, target.Unpack(t.Context(), second, []string{first.Images}))
	if got := target.read(theirs + "/a"); got != "changed" {
		t.Errorf("the second container has made it again: %q", got)
	}
	if err := target.Unpack(t.Context(), second, nil); !errors.Is(err, ErrMissing) {
		t.Errorf("a volume without images: %v", err)
	}
}

// Images are taken for what the container has, and in the form that it has it.
func TestHostileImages(t *testing.T) {
	for name, c := range map[string]struct {
		readonly bool
		mounts   []string
		change   func(images string) error
		says     string
	}{
		"a volume that it has not":     {false, nil, func(string) error { return nil }, "the container has no such files"},
		"a read-only file system":      {true, []string{volumes + "scratch:/scratch"}, func(string) error { return nil }, "drover-layer"},
		"a layer as a volume":          {false, []string{volumes + "scratch:/scratch"}, swap, "a layer (true) comes for the emptyDir scratch"},
		"an index that is a link":      {false, []string{volumes + "scratch:/scratch"}, linked, "too many levels"},
		"an index of another kind":     {false, []string{volumes + "scratch:/scratch"}, func(d string) error { return os.WriteFile(d+"/drover-layer.index", []byte("x"), 0o600) }, "another version"},
		"no content":                   {false, []string{volumes + "scratch:/scratch"}, func(d string) error { return os.Truncate(d+"/drover-layer.data", 0) }, "the data file ends at 0"},
		"content of a file is missing": {false, []string{volumes + "scratch:/scratch"}, func(d string) error { return os.Remove(d + "/drover-layer.data") }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			n := node(t)
			n.write(t, volumes+"scratch/a", "a")
			n.write(t, "/snapshots/7/fs/etc/e", "e")
			app := n.container(t, uid, "app", false, volumes+"scratch:/scratch")
			n.overlay(t, app, "/snapshots/7/fs")
			_, err := n.Pack(t.Context(), []Container{app})
			try(t, err, c.change(app.Images))
			target := n.container(t, uid, "target", c.readonly, c.mounts...)
			target.Images = app.Images
			if err := n.Unpack(t.Context(), target, nil); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

func swap(d string) error {
	var errs []error
	for _, end := range []string{indexSuffix, dataSuffix} {
		errs = append(errs, os.Rename(d+"/drover-layer"+end, d+"/drover-volume-scratch"+end))
	}
	return errors.Join(errs...)
}

func linked(d string) error {
	return errors.Join(os.Rename(d+"/drover-layer.index", d+"/x"), os.Symlink("x", d+"/drover-layer.index"))
}

// What cannot be taken along is a finding, and names the volume and the file.
func TestSurveyFinds(t *testing.T) {
	n := node(t)
	n.write(t, volumes+"scratch/big", strings.Repeat("x", 2<<20))
	app := n.container(t, uid, "app", false, volumes+"scratch:/scratch")
	_, found, err := n.Survey(t.Context(), []Container{app})
	if err != nil || len(found) != 1 || found[0].Reason != movable.ReasonFiles || !strings.Contains(found[0].Message, "the emptyDir scratch") || found[0].Remedy == "" {
		t.Errorf("%v, %v", found, err)
	}
}

// kubelet makes a directory where it finds no file for a subPath yet, so a file cannot be handed over.
func TestSubPathOfAFile(t *testing.T) {
	n := node(t)
	n.write(t, volumes+"parts/file", "f")
	n.write(t, kubelet+uid+"/volume-subpaths/parts/proxy/0", "f")
	app := n.container(t, uid, "app", false, volumes+"parts:/all")
	proxy := n.container(t, uid, "proxy", false, kubelet+uid+"/volume-subpaths/parts/proxy/0:/etc/file")
	all := []Container{app, proxy}
	if _, found, err := n.Survey(t.Context(), all); err != nil || len(found) != 1 || !strings.Contains(found[0].Message, "by subPath at /etc/file") {
		t.Errorf("found %v, %v", found, err)
	}
	if _, err := n.Pack(t.Context(), all); !errors.Is(err, filetree.ErrUnfit) {
		t.Errorf("packed: %v", err)
	}
	if _, found, err := n.Survey(t.Context(), all[:1]); err != nil || len(found) != 0 {
		t.Errorf("without it: %v, %v", found, err)
	}
}

// A volume that kubelet fills is kubelet's to fill on the target, also where it takes the place of /dev/shm.
func TestOtherVolumeAtShm(t *testing.T) {
	n := node(t)
	const config = kubelet + uid + "/volumes/kubernetes.io~configmap/config"
	n.write(t, config+"/c", "c")
	app := n.container(t, uid, "app", true, config+":/dev/shm")
	if _, err := n.Pack(t.Context(), []Container{app}); err != nil || n.images(app) != "" {
		t.Errorf("packed %q, %v", n.images(app), err)
	}
}

// A volume in memory is charged to the agent while it is unpacked, beside the images that it comes from: an agent
// that may have no more is not killed for it.
func TestVolumeInMemory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a tmpfs")
	}
	source := node(t)
	source.write(t, volumes+"cache/a", strings.Repeat("a", 3*filetree.Page))
	app := source.container(t, uid, "app", true, volumes+"cache:/cache")
	_, err := source.Pack(t.Context(), []Container{app})
	try(t, err)
	for own, fits := range map[model.Bytes]bool{3 * filetree.Page: true, 3*filetree.Page - 1: false} {
		target := node(t)
		target.Own = func() (model.Bytes, error) { return own, nil }
		cache := filepath.Join(target.Host, volumes, "cache")
		try(t, os.MkdirAll(cache, 0o755), unix.Mount("tmpfs", cache, "tmpfs", 0, "size=1m"))
		defer unix.Unmount(cache, unix.MNT_DETACH)
		c := target.container(t, uid, "app", true, volumes+"cache:/cache")
		c.Images = app.Images
		if err := target.Unpack(t.Context(), c, nil); (err == nil) != fits || err != nil && !strings.Contains(err.Error(), "the memory of the agent") {
			t.Errorf("with %d bytes left: %v", own, err)
		}
		if got := target.read(volumes + "cache/a"); (got != "") != fits {
			t.Errorf("with %d bytes left there are %d of the file", own, len(got))
		}
	}
}

// A pod that writes much between its survey and the freeze does not have the agent killed, to which its images are
// charged.
func TestGrownSinceTheSurvey(t *testing.T) {
	for own, fits := range map[model.Bytes]bool{3 * filetree.Page: true, 3*filetree.Page - 1: false} {
		n := node(t)
		n.Own = func() (model.Bytes, error) { return own, nil }
		n.write(t, volumes+"scratch/a", strings.Repeat("a", 3*filetree.Page))
		app := n.container(t, uid, "app", true, volumes+"scratch:/scratch")
		if _, err := n.Pack(t.Context(), []Container{app}); (err == nil) != fits || !fits && !errors.Is(err, filetree.ErrUnfit) {
			t.Errorf("with %d bytes left: %v", own, err)
		}
	}
}

func TestMountinfo(t *testing.T) {
	point, kind, options, ok := mountLine(`36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:3 - overlay none rw,lowerdir=/a,upperdir=/u\054p,workdir=/w`)
	if !ok || point != "/mnt 2" || kind != "overlay" || option(options, "upperdir") != "/u,p" {
		t.Errorf("%q %q %q %v", point, kind, options, ok)
	}
	if _, _, _, ok := mountLine("36 35 98:0 /"); ok {
		t.Error("half a line was taken")
	}
}
