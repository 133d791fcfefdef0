package measure

import (
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
)

// Container is one container of a pod as the control groups show it. The sandbox (pause)
// is one too: only the container runtime can tell them apart.
type Container struct {
	// PodUID is the pod's UID; of a static pod, the hash of its manifest.
	PodUID string
	// ID is the runtime's ID without a scheme.
	ID string
	// Pod and Group are the groups of the pod and of the container.
	Pod, Group Group
	// Cgroups are the kernel's IDs of the container's group and of all below it.
	Cgroups []uint64
}

// How kubelet and the runtimes name groups. With the cgroupfs driver:
// kubepods/burstable/pod<UID>/<ID>; with the systemd driver, where "_" stands for "-":
// kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID>.slice/cri-containerd-<ID>.scope.
// A kubelet with a cgroup root of its own puts that before "kubepods".
var (
	kubepodsName  = regexp.MustCompile(`^(?:.*-)?kubepods(?:\.slice)?$`)
	podName       = regexp.MustCompile(`^(?:.*-)?pod([0-9a-f][0-9a-f_-]{30,})(\.slice)?$`)
	containerName = regexp.MustCompile(`^(?:cri-containerd-|crio-|docker-)?([0-9a-f]{64})(?:\.scope)?$`)
)

// podUIDOf gives the UID in the name of a pod's group, "" when it is not one.
func podUIDOf(name string) string {
	m := podName.FindStringSubmatch(name)
	if m == nil {
		return ""
	}
	if m[2] != "" {
		return strings.ReplaceAll(m[1], "_", "-")
	}
	return m[1]
}

// containerIDOf gives the ID in the name of a container's group, "" when it is not one.
func containerIDOf(name string) string {
	m := containerName.FindStringSubmatch(name)
	if m == nil {
		return ""
	}
	return m[1]
}

// Containers lists the containers below kubepods. What vanishes meanwhile is left out.
func (c Cgroups) Containers(kubepods Group) ([]Container, error) {
	if _, err := os.Stat(c.dir(kubepods)); err != nil {
		return nil, fmt.Errorf("list the containers of %s: %w", kubepods, err)
	}
	var found []Container
	for _, pod := range c.pods(kubepods) {
		for _, name := range c.children(pod) {
			id := containerIDOf(name)
			if id == "" {
				continue
			}
			g := Group(path.Join(string(pod), name))
			var ids []uint64
			if err := c.each(g, func(_ string, id uint64) error { ids = append(ids, id); return nil }); err != nil {
				return nil, fmt.Errorf("list the groups of container %s: %w", id, err)
			}
			if len(ids) > 0 {
				found = append(found, Container{podUIDOf(path.Base(string(pod))), id, pod, g, ids})
			}
		}
	}
	return found, nil
}

// pods lists the groups of pods: directly below kubepods and below its classes of service.
func (c Cgroups) pods(kubepods Group) []Group {
	var found []Group
	for _, name := range c.children(kubepods) {
		g := Group(path.Join(string(kubepods), name))
		if podUIDOf(name) != "" {
			found = append(found, g)
			continue
		}
		if !strings.Contains(name, "burstable") && !strings.Contains(name, "besteffort") {
			continue
		}
		for _, name := range c.children(g) {
			if podUIDOf(name) != "" {
				found = append(found, Group(path.Join(string(g), name)))
			}
		}
	}
	return found
}

// children lists the names of a group's children; none when it is gone.
func (c Cgroups) children(g Group) []string {
	entries, _ := os.ReadDir(c.dir(g))
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// ErrNoKubepods is returned when no group looks like the one that kubelet keeps pods in.
var ErrNoKubepods = errors.New("no kubepods group")

// kubepodsDepth is how deep below the root a kubelet's group is looked for.
const kubepodsDepth = 6

// FindKubepods looks for the group that holds all pods of this node. Where several kubelets
// share a machine there are several: the one is taken that holds the pod with the given
// UID, the caller's own. podUID may be empty when there can be only one.
func (c Cgroups) FindKubepods(podUID string) (Group, error) {
	candidates := c.kubepods("/", kubepodsDepth)
	if podUID == "" && len(candidates) == 1 {
		return candidates[0], nil
	}
	for _, g := range candidates {
		for _, pod := range c.pods(g) {
			if podUID != "" && podUIDOf(path.Base(string(pod))) == podUID {
				return g, nil
			}
		}
	}
	if podUID == "" && len(candidates) > 1 {
		return "", fmt.Errorf("%v in %s all hold pods: say which is this node's, or the UID of a pod on it", candidates, c.dir("/"))
	}
	return "", fmt.Errorf("find the group of pod %q in %s, looked into %v: %w", podUID, c.dir("/"), candidates, ErrNoKubepods)
}

func (c Cgroups) kubepods(below Group, depth int) []Group {
	var found []Group
	for _, name := range c.children(below) {
		g := Group(path.Join(string(below), name))
		if kubepodsName.MatchString(name) {
			found = append(found, g)
		} else if depth > 1 {
			found = append(found, c.kubepods(g, depth-1)...)
		}
	}
	return found
}
