package remains

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
)

// layout is Drover's directories of the node, as seen from outside.
func (n node) layout() layout.Layout {
	return layout.Layout{Run: filepath.Join(n.root, layout.Default.Run), State: filepath.Join(n.root, layout.Default.State)}
}

// files: images, dumps, logs of restores, marks.
func (n node) files() ([]string, error) {
	l := n.layout()
	var left []string
	for what, dir := range map[string]string{
		"images": l.Images(), "staged images": l.Staged(""), "dump": l.Dumps(), "log of a restore": l.Work(""), "mark": filepath.Join(l.Run, "begun"),
	} {
		names, err := names(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if what == "log of a restore" && n.exists(name) {
				continue
			}
			left = append(left, what+" "+name)
		}
	}
	return left, nil
}

// exists tells whether runc knows the container.
func (n node) exists(id string) bool {
	_, err := os.Stat(filepath.Join(n.root, "run/containerd/runc/k8s.io", id))
	return err == nil
}

// notes: of restores that do not run, of containers that do not exist.
func (n node) notes() ([]string, error) {
	l := n.layout()
	var left []string
	ids, err := l.RestoreNotes()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		var note struct{ PodUID, Stage string }
		if ok, err := layout.ReadNote(l.RestoreNote(id), &note); err != nil || !ok {
			return nil, err
		}
		if note.Stage != layout.CopyLet || !n.on(n.name, types.UID(note.PodUID)) || !n.exists(id) {
			left = append(left, fmt.Sprintf("note of the restore of pod %s, which is %q", note.PodUID, note.Stage))
		}
	}
	for _, dir := range []string{"containers", "criu"} {
		names, err := names(filepath.Join(l.Run, dir))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if id := strings.TrimSuffix(name, filepath.Ext(name)); !n.exists(id) {
				left = append(left, "note "+dir+"/"+name+" of a container that does not exist")
			}
		}
	}
	return left, nil
}

// leases: notes of sandboxes in which something was made for an old address.
func (n node) leases() ([]string, error) {
	all, err := names(filepath.Join(n.layout().Run, "leases"))
	for i := range all {
		all[i] = "note of an old address " + all[i]
	}
	return all, err
}

// fences: of pods that may run, or that nothing can bring back any more; and notes of
// arrivals of pods that are gone.
func (n node) fences() ([]string, error) {
	l := n.layout()
	fences, err := l.Fences().List()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, f := range fences {
		if why := n.spent(f); why != "" {
			left = append(left, fmt.Sprintf("fence of pod %s by %s, epoch %d: %s", f.PodUID, f.Migration, f.Epoch, why))
		}
	}
	arrivals, err := names(string(l.Restored()))
	if err != nil {
		return nil, err
	}
	for _, name := range arrivals {
		uid := strings.TrimSuffix(name, ".json")
		if !n.on(n.name, types.UID(uid)) && !n.known(uid) && !n.recorded(func(m *v1alpha1.PodMigration) bool { return string(m.Status.Target.PodUID) == uid }) {
			left = append(left, "note of the arrival of pod "+uid+", which is gone")
		}
	}
	return left, nil
}

// spent tells why a fence should have been lifted; empty: it must stay.
func (n node) spent(f fence.Fence) string {
	there := n.on(n.name, types.UID(f.PodUID))
	recorded := n.recorded(func(m *v1alpha1.PodMigration) bool { return m.Namespace+"/"+m.Name == f.Migration })
	ended := n.recorded(func(m *v1alpha1.PodMigration) bool {
		return m.Namespace+"/"+m.Name == f.Migration && v1alpha1.Finished(m)
	})
	switch {
	case there && ended:
		return "the move has ended, and the pod is there and could not be started again"
	case there && !recorded:
		return "the move's record is gone, and the pod is there and could not be started again"
	case !there && !recorded && !n.known(f.PodUID):
		return "neither the pod nor the move's record exists any more"
	}
	return ""
}

func (n node) recorded(is func(*v1alpha1.PodMigration) bool) bool {
	for _, m := range n.moves {
		if is(m) {
			return true
		}
	}
	return false
}

// known tells whether kubelet still has something of the pod.
func (n node) known(uid string) bool {
	_, err := os.Stat(filepath.Join(n.root, "var/lib/kubelet/pods", uid))
	return err == nil
}

func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}
