package movable

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// volumes lets those through that kubelet makes anew on the target with the same content, and
// emptyDirs, whose files are taken along (package nodeagent/files).
func volumes(p *corev1.Pod, claims Claims) []Finding {
	const only = "only emptyDir, configMap, secret, downwardAPI and projected volumes can be taken along"
	var all []Finding
	for _, v := range p.Spec.Volumes {
		switch {
		case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
		case v.EmptyDir != nil:
			if m := v.EmptyDir.Medium; m != corev1.StorageMediumDefault && m != corev1.StorageMediumMemory {
				all = append(all, Found(ReasonUnsupportedVolume, "volume %s is an emptyDir on the medium %s, whose pages are reserved on its node", v.Name, m).
					But("use the medium Memory, or leave the volume out"))
			}
		case v.HostPath != nil:
			all = append(all, Found(ReasonUnsupportedVolume, "volume %s is a hostPath (%s), which is its node's: %s", v.Name, v.HostPath.Path, only).
				But("leave the volume out"))
		case v.PersistentVolumeClaim != nil:
			all = append(all, claimed(v.Name, v.PersistentVolumeClaim.ClaimName, claims))
		case v.Ephemeral != nil:
			all = append(all, claimed(v.Name, p.Name+"-"+v.Name, claims))
		default:
			all = append(all, Found(ReasonUnsupportedVolume, "volume %s is of the kind %s: %s", v.Name, volumeKind(v), only).
				But("leave the volume out"))
		}
	}
	for _, c := range append(Sidecars(&p.Spec), p.Spec.Containers...) {
		if f, found := twice(c, p.Spec.Volumes); found {
			all = append(all, f)
		}
	}
	return all
}

// twice finds a directory that a container has read-only at two places: of two such mounts
// CRIU (4.2.1) restores one writable. All are read-only but those of emptyDirs.
func twice(c corev1.Container, all []corev1.Volume) (Finding, bool) {
	writable := func(m corev1.VolumeMount) bool {
		return !m.ReadOnly && slices.ContainsFunc(all, func(v corev1.Volume) bool { return v.Name == m.Name && v.EmptyDir != nil })
	}
	for i, m := range c.VolumeMounts {
		for _, other := range c.VolumeMounts[:i] {
			if m.Name == other.Name && !writable(m) && !writable(other) && (within(m.SubPath, other.SubPath) || within(other.SubPath, m.SubPath)) {
				return Found(ReasonUnsupportedVolume, "container %s has volume %s at %s and again at %s: one would be writable after the move",
					c.Name, m.Name, other.MountPath, m.MountPath).But("mount it once, or different files of it by subPath"), true
			}
		}
	}
	return Finding{}, false
}

// within tells whether a path in a volume is another, or in it.
func within(path, dir string) bool {
	path, dir = filepath.Clean("/"+path), filepath.Clean("/"+dir)
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// claimed tells of a claim that one node alone can mount, and of any other.
func claimed(volume, claim string, claims Claims) Finding {
	c := claims[claim]
	if c == nil {
		return Found(ReasonUnsupportedVolume, "volume %s is a persistentVolumeClaim (%s): files that lie on one cannot be handed over yet", volume, claim).
			But("leave the volume out")
	}
	for _, m := range c.Spec.AccessModes {
		if m == corev1.ReadWriteMany || m == corev1.ReadOnlyMany {
			return Found(ReasonUnsupportedVolume, "volume %s is a persistentVolumeClaim (%s, %s): files that lie on one cannot be handed over yet", volume, claim, m).
				But("leave the volume out")
		}
	}
	return Found(ReasonReadWriteOnce, "volume %s is a persistentVolumeClaim (%s) that one node alone can mount (%s): the source holds it while the target would need it",
		volume, claim, joined(c.Spec.AccessModes)).But("leave the volume out")
}

func joined(modes []corev1.PersistentVolumeAccessMode) string {
	words := make([]string, len(modes))
	for i, m := range modes {
		words[i] = string(m)
	}
	return strings.Join(words, ", ")
}

// volumeKind is the name of the field that is set, as users write it.
func volumeKind(v corev1.Volume) string {
	data, err := json.Marshal(v.VolumeSource)
	if err != nil {
		return "unknown"
	}
	var set map[string]json.RawMessage
	if err := json.Unmarshal(data, &set); err != nil || len(set) == 0 {
		return "unknown"
	}
	return slices.Sorted(maps.Keys(set))[0]
}

// extended are the resources that no kubelet knows by itself: devices.
func extended(r corev1.ResourceRequirements) []string {
	names := map[string]bool{}
	for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
		for name, q := range list {
			domain, _, qualified := strings.Cut(string(name), "/")
			if qualified && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") && !q.IsZero() {
				names[string(name)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
