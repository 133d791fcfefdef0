package measure

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
)

func under(s string) string { return strings.ReplaceAll(s, "-", "_") }

// The same three pods as each cgroup driver and runtime name them, on v1 and v2.
func TestContainers(t *testing.T) {
	cgroupfs := map[string]string{
		"pod" + uidA + "/" + idA:                 uidA + " " + idA, // guaranteed
		"burstable/pod" + uidB + "/" + idB:       uidB + " " + idB,
		"besteffort/pod" + uidStatic + "/" + idS: uidStatic + " " + idS,
	}
	systemd := func(prefix, runtime string) map[string]string {
		burstable, besteffort := prefix+"-burstable", prefix+"-besteffort"
		return map[string]string{
			prefix + "-pod" + under(uidA) + ".slice/" + runtime + idA + ".scope":                                   uidA + " " + idA,
			burstable + ".slice/" + burstable + "-pod" + under(uidB) + ".slice/" + runtime + idB + ".scope":        uidB + " " + idB,
			besteffort + ".slice/" + besteffort + "-pod" + under(uidStatic) + ".slice/" + runtime + idS + ".scope": uidStatic + " " + idS,
		}
	}
	for _, c := range []struct {
		name     string
		v1       bool
		kubepods Group
		groups   map[string]string
	}{
		{"cgroupfs, v1", true, "/kubepods", cgroupfs},
		{"cgroupfs, v2", false, "/kubepods", cgroupfs},
		{"cgroupfs below a root of its own", true, "/lab/one/n1/kubepods", cgroupfs},
		{"systemd with containerd", false, "/kubepods.slice", systemd("kubepods", "cri-containerd-")},
		{"systemd with CRI-O", false, "/kubepods.slice", systemd("kubepods", "crio-")},
		{"systemd with Docker, v1", true, "/kubepods.slice", systemd("kubepods", "docker-")},
		{"systemd below a root of its own", false, "/lab.slice/lab-kubepods.slice", systemd("lab-kubepods", "cri-containerd-")},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, base := tree{"cgroup.controllers": ""}, ""
			if c.v1 {
				files, base = tree{"cpu/": ""}, "cpu"
			}
			var want []string
			for group, entry := range c.groups {
				files[path.Join(base, string(c.kubepods), group)+"/"] = ""
				// Neither of these is a container: something beside it, and a monitor.
				files[path.Join(base, string(c.kubepods), path.Dir(group), "crio-conmon-"+idA+".scope")+"/"] = ""
				files[path.Join(base, string(c.kubepods), path.Dir(group), "other")+"/"] = ""
				want = append(want, entry)
			}
			files[path.Join(base, "system.slice", "kubelet.service")+"/"] = ""
			cgroups := files.open(t)
			got, err := cgroups.Containers(c.kubepods)
			if err != nil {
				t.Fatal(err)
			}
			var entries []string
			for _, container := range got {
				entries = append(entries, container.PodUID+" "+container.ID)
				if container.Group.parent() != container.Pod || podUIDOf(path.Base(string(container.Pod))) != container.PodUID {
					t.Errorf("groups of %+v do not fit", container)
				}
				if want := []uint64{inode(t, cgroups.dir(container.Group))}; !slices.Equal(container.Cgroups, want) {
					t.Errorf("cgroup IDs %v, want the inode %v", container.Cgroups, want)
				}
			}
			slices.Sort(want)
			if slices.Sort(entries); !slices.Equal(entries, want) {
				t.Errorf("got %q\nwant %q", entries, want)
			}
			for _, uid := range []string{"", uidA, uidB, uidStatic} {
				if found, err := cgroups.FindKubepods(uid); err != nil || found != c.kubepods {
					t.Errorf("kubepods of pod %q: %q, %v, want %q", uid, found, err, c.kubepods)
				}
			}
		})
	}
}

// Groups that a container makes for itself are its own.
func TestNestedGroupsBelongToTheContainer(t *testing.T) {
	cgroups := tree{"cpu/kubepods/pod" + uidA + "/" + idA + "/init/deep/": ""}.open(t)
	got, err := cgroups.Containers("/kubepods")
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	want := []uint64{inode(t, cgroups.dir(got[0].Group)), inode(t, cgroups.dir(got[0].Group+"/init")), inode(t, cgroups.dir(got[0].Group+"/init/deep"))}
	if !slices.Equal(got[0].Cgroups, want) {
		t.Errorf("got %v, want %v", got[0].Cgroups, want)
	}
}

func TestFindKubepodsAmongSeveral(t *testing.T) {
	cgroups := tree{
		"cpu/lab/n1/kubepods/burstable/pod" + uidA + "/":  "",
		"cpu/lab/n2/kubepods/besteffort/pod" + uidB + "/": "",
		"cpu/lab/n3/kubepods/":                            "",
	}.open(t)
	if got, err := cgroups.FindKubepods(uidB); err != nil || got != "/lab/n2/kubepods" {
		t.Errorf("of %s: %q, %v", uidB, got, err)
	}
	if got, err := cgroups.FindKubepods(""); err == nil || !strings.Contains(err.Error(), "/lab/n3/kubepods") {
		t.Errorf("without a UID: %q, %v; want an error that names the three", got, err)
	}
	if got, err := cgroups.FindKubepods(uidStatic); !errors.Is(err, ErrNoKubepods) {
		t.Errorf("of a pod that is on none: %q, %v", got, err)
	}
}

func TestNoKubepods(t *testing.T) {
	cgroups := tree{"cpu/system.slice/": ""}.open(t)
	if got, err := cgroups.FindKubepods(""); !errors.Is(err, ErrNoKubepods) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := cgroups.Containers("/kubepods"); err == nil {
		t.Errorf("containers of a group that is not there: %v", got)
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"pod" + uidA, "kubepods-burstable-pod" + under(uidB) + ".slice", "cri-containerd-" + idA + ".scope", idB, ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if uid := podUIDOf(name); uid != "" && !strings.Contains(under(name), under(uid)) {
			t.Errorf("UID %q of %q", uid, name)
		}
		if id := containerIDOf(name); id != "" && (len(id) != 64 || !strings.Contains(name, id)) {
			t.Errorf("ID %q of %q", id, name)
		}
	})
}
