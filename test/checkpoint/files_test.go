package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/filetree"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/files"
)

// desks are the directories in which a scribe works: in its own file system, in emptyDirs on
// disk, by a part of it, and in memory, and in the pod's shared memory.
var desks = []string{"/work/desk", "/scratch", "/part", "/mem", "/dev/shm"}

// image is what scribes' containers are made from.
const image = "/tmp/scribe-image"

// newScribe makes a container with an overlay and volumes, as containerd and kubelet do.
func newScribe(t *testing.T, name string, annotations map[string]string) *container {
	t.Helper()
	return newContainer(t, name, annotations, func(rootfs string, spec map[string]any) {
		bundle := filepath.Dir(rootfs)
		pod := "/var/lib/kubelet/pods/uid-" + filepath.Base(bundle)
		volumes := pod + "/volumes/kubernetes.io~empty-dir/"
		// A disk of the node's: CRIU (4.2.1) takes what is mapped from an overlay, which the root of this
		// node is, for a file of the container's own.
		run(t, "mkdir", "-p", pod)
		mounted(t, "disk", pod, "tmpfs", 0, "")
		run(t, "mkdir", "-p", volumes+"scratch", volumes+"parts/of/it", volumes+"mem", pod+"/volume-subpaths/parts/main/0")
		run(t, "chmod", "2777", volumes+"scratch")
		mounted(t, volumes+"parts/of/it", pod+"/volume-subpaths/parts/main/0", "", unix.MS_BIND, "")
		mounted(t, "tmpfs", volumes+"mem", "tmpfs", 0, "size=32m")
		if _, err := os.Stat(image); err != nil {
			run(t, "cp", "-a", rootfs, image)
			run(t, "sh", "-c", `cd "$1" && mkdir -p work/old/deep etc/app && echo old > work/old/deep/f && echo 1 > etc/app/1 && cp /drover/scribe . && ln -s /etc work/link`, "", image)
		}
		run(t, "mkdir", bundle+"/upper", bundle+"/work")
		mounted(t, "overlay", rootfs, "overlay", 0, "lowerdir="+image+",upperdir="+bundle+"/upper,workdir="+bundle+"/work")
		bind := func(from, to string) map[string]any {
			return map[string]any{"destination": to, "type": "bind", "source": from, "options": []string{"rbind", "rprivate", "rw"}}
		}
		spec["mounts"] = append(spec["mounts"].([]map[string]any), bind(volumes+"scratch", "/scratch"),
			bind(pod+"/volume-subpaths/parts/main/0", "/part"), bind(volumes+"mem", "/mem"))
		process := spec["process"].(map[string]any)
		process["args"] = append([]string{"/scribe"}, desks...)
	})
}

// mounted mounts something for as long as the test lasts.
func mounted(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Fatalf("mount %s at %s: %v", source, target, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
}

// changed is what a scribe's program does to its image's files, by way of the mounted overlay.
const changed = `cd "$1" && rm -r work/old && mkdir -p work/old && echo new > work/old/g && rm etc/app/1 && rm work/link && mkdir work/link && mkdir work/desk`

// scribble starts a scribe that has written a little.
func scribble(t *testing.T, a *agent) (*container, count) {
	t.Helper()
	c := newScribe(t, "src", nil)
	run(t, "sh", "-c", changed, "", c.bundle+"/rootfs")
	c.run()
	var last count
	for last.n < 5 {
		last = c.next()
	}
	return c, last
}

// beginScribe is an attempt with a scribe.
func beginScribe(t *testing.T) *attempt {
	t.Helper()
	a := startAgent(t)
	source, last := scribble(t, a)
	m := move(source, nil)
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	last = source.mustRest(last)
	target := newScribe(t, "dst", map[string]string{"drover.dev/migration": m.Name})
	at := &attempt{a: a, source: source, target: target, m: move(source, target), last: last, frozenAt: d.FrozenAt}
	at.images = filepath.Join(layout.Default.Images(), m.UID+"-1")
	if err := os.CopyFS(at.images, os.DirFS(d.Dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(at.images) })
	at.wait(t)
	return at
}

// tree tells of everything below a container's directories, as other programs see it. What
// CRIU does with sockets and pipes, and needs of directories for that, changes their times; on the
// source there are its names yet for files that have lost theirs.
func (c *container) tree(t *testing.T) string {
	t.Helper()
	const all = `for d; do cd "$d" && find . ! -type d ! -type s ! -type p -printf "$d %p %y %m %U %G %T@ %l %b\n" -o -printf "$d %p %y %m %U %G\n" | grep -v 'link_remap\|/dev' | sort
		find . -type f -print0 | grep -zv link_remap | sort -z | xargs -0r sha256sum; done`
	pod := "/var/lib/kubelet/pods/" + c.podUID + "/volumes/kubernetes.io~empty-dir"
	out := run(t, "sh", "-c", all, "", c.bundle+"/rootfs", pod+"/scratch", pod+"/parts", pod+"/mem", c.bundle+"/shm")
	out = strings.ReplaceAll(out, c.bundle, "BUNDLE")
	return strings.ReplaceAll(out, c.podUID, "UID")
}

// A program finds its files as it left them, open and closed, wherever it has them; and they
// are the same to others while the copy is held.
func TestFilesMove(t *testing.T) {
	at := beginScribe(t)
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	at.a.expect("held " + at.target.id)
	at.mustBeHeld(t)
	if was, is := at.source.tree(t), at.target.tree(t); was != is {
		t.Errorf("the files of the copy are\n%s\nthose of the source\n%s", is, was)
	}
	at.resume(t)
	if _, err := os.Lstat(at.target.bundle + "/rootfs/etc/app/1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of the image that the program has deleted: %v", err)
	}
}

// An abort leaves the source with its files, whatever was made of them on the target.
func TestFilesStay(t *testing.T) {
	at := beginScribe(t)
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); err != nil {
		t.Fatal(err)
	}
	at.a.expect("held " + at.target.id)
	if err := at.a.copies.Kill(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	at.mustBeGone(t)
	released(t, at.a, at.source, move(at.source, nil), at.last)
}

// A target without room for the files gives the move up, and the source goes on.
func TestFilesDoNotFit(t *testing.T) {
	at := beginScribe(t)
	mem := "/var/lib/kubelet/pods/" + at.target.podUID + "/volumes/kubernetes.io~empty-dir/mem"
	if err := unix.Mount("tmpfs", mem, "tmpfs", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images)
	if err == nil || !strings.Contains(err.Error(), "the emptyDir mem") || !strings.Contains(err.Error(), "do not fit") {
		t.Errorf("restore: %v", err)
	}
	if err := at.a.copies.Kill(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	at.mustBeGone(t)
	released(t, at.a, at.source, move(at.source, nil), at.last)
}

// A file that came after the look at what can travel gives the move up at the packing, and the
// source goes on.
func TestFilesThatCannotTravel(t *testing.T) {
	a := startAgent(t)
	source, last := scribble(t, a)
	run(t, "mknod", source.bundle+"/rootfs/work/null", "c", "1", "3")
	m := move(source, nil)
	if _, err := a.dumps.Dump(within(t), m); !errors.Is(err, filetree.ErrUnfit) || !strings.Contains(err.Error(), `"work/null" is a device node (1:3)`) {
		t.Errorf("dump: %v", err)
	}
	last = source.mustRest(last)
	released(t, a, source, m, last)
}

// Images without a volume's files are not restored: its programs would find it empty.
func TestFilesAreMissing(t *testing.T) {
	at := beginScribe(t)
	for _, end := range []string{"index", "data"} {
		if err := os.Remove(filepath.Join(at.images, "main", "drover-volume-scratch."+end)); err != nil {
			t.Fatal(err)
		}
	}
	if err := at.a.copies.Restore(within(t), at.m, at.target.id, at.images); !errors.Is(err, files.ErrMissing) {
		t.Errorf("restore: %v", err)
	}
	if err := at.a.copies.Kill(within(t), at.m); err != nil {
		t.Fatal(err)
	}
	at.mustBeGone(t)
	released(t, at.a, at.source, move(at.source, nil), at.last)
}

// What was packed while the program ran holds the pages of what did not change since, at the
// same places: they need not be sent again.
func TestHintOfFiles(t *testing.T) {
	a := startAgent(t)
	source, last := scribble(t, a)
	m := move(source, nil)
	early := map[string]bool{}
	if _, err := a.dumps.HintFiles(within(t), m, func(pages []byte) error {
		for page := range slices.Chunk(pages, 4096) {
			early[string(page)] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	last = source.next()
	bytes, err := a.dumps.Files(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	d, err := a.dumps.Dump(within(t), m)
	if err != nil {
		t.Fatal(err)
	}
	last = source.mustRest(last)
	var total int64
	for _, name := range []string{"layer", "shm", "volume-scratch", "volume-parts", "volume-mem"} {
		all, known := 0, 0
		for page := range pages(t, filepath.Join(d.Dir, "main", "drover-"+name+".data")) {
			if all++; early[page] {
				known++
			}
		}
		total += int64(all) * 4096
		if all < 700 || known < all-5 {
			t.Errorf("%s: %d of %d pages were known", name, known, all)
		}
	}
	if int64(bytes) < total || int64(bytes) > 2*total {
		t.Errorf("estimated %d bytes, packed %d", bytes, total)
	}
	released(t, a, source, m, last)
}

// pages are the contents of a data file's pages.
func pages(t *testing.T, file string) map[string]bool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for ; len(data) > 0; data = data[4096:] {
		all[string(data[:4096])] = true
	}
	return all
}
