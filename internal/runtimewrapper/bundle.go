package runtimewrapper

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-project/drover/internal/durable"
	"github.com/drover-project/drover/internal/rootfs"
)

// Annotations of the pod that containerd hands on (pod_annotations = ["drover.dev/*"]).
// They are the API's constants, spelled out here to keep Kubernetes out of this binary;
// a test compares them.
const (
	annotationMigrate   = "drover.dev/migrate"
	annotationMigration = "drover.dev/migration"
)

// criuPrefix begins the annotations by which runc takes CRIU's options.
const criuPrefix = "org.criu."

// criuConfig names the file with CRIU's options.
const criuConfig = criuPrefix + "config"

// bundle is an OCI bundle's config.json. Only what Drover changes is understood; all else
// is kept as it is.
type bundle struct {
	path        string
	fields      map[string]json.RawMessage
	annotations map[string]string
	cgroupsPath string
	// SELinux's labels for the processes, and for file systems made for them.
	processLabel, mountLabel string
	// rootfs is the directory of the container's root file system, mounts are the destinations of its mounts.
	rootfs  string
	mounts  []string
	changed bool
}

func readBundle(dir string) (*bundle, error) {
	b := &bundle{path: filepath.Join(dir, "config.json")}
	data, err := os.ReadFile(b.path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &b.fields); err != nil {
		return nil, fmt.Errorf("%s: %w", b.path, err)
	}
	if raw, ok := b.fields["annotations"]; ok {
		if err := json.Unmarshal(raw, &b.annotations); err != nil {
			return nil, fmt.Errorf("%s: annotations: %w", b.path, err)
		}
	}
	var linux struct {
		CgroupsPath string `json:"cgroupsPath"`
		MountLabel  string `json:"mountLabel"`
	}
	var process struct {
		SelinuxLabel string `json:"selinuxLabel"`
	}
	var root struct {
		Path string `json:"path"`
	}
	var mounts []struct {
		Destination string `json:"destination"`
	}
	for field, into := range map[string]any{"linux": &linux, "process": &process, "root": &root, "mounts": &mounts} {
		if raw, ok := b.fields[field]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", b.path, field, err)
			}
		}
	}
	b.cgroupsPath, b.processLabel, b.mountLabel = linux.CgroupsPath, process.SelinuxLabel, linux.MountLabel
	for _, m := range mounts {
		b.mounts = append(b.mounts, m.Destination)
	}
	if b.rootfs = root.Path; !filepath.IsAbs(b.rootfs) {
		b.rootfs = filepath.Join(dir, b.rootfs)
	}
	return b, nil
}

// places gives where the mounts lie in the root file system, in their order.
func (b *bundle) places() ([]string, error) {
	root, err := filepath.EvalSymlinks(b.rootfs)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	var all []string
	for _, m := range b.mounts {
		where, err := rootfs.Place(root, m)
		if err != nil {
			return nil, err
		}
		all = append(all, where)
	}
	return all, nil
}

// stripCriu takes away every org.criu annotation, whoever set it: an action script is code
// that root runs.
func (b *bundle) stripCriu() {
	for key := range b.annotations {
		// runc compares exactly; other spellings have no effect but no place here either.
		if strings.HasPrefix(strings.ToLower(key), criuPrefix) {
			delete(b.annotations, key)
			b.changed = true
		}
	}
}

func (b *bundle) annotate(key, value string) {
	if b.annotations == nil {
		b.annotations = map[string]string{}
	}
	b.annotations[key] = value
	b.changed = true
}

// save writes config.json if something was changed, with the mode it had.
func (b *bundle) save() error {
	if !b.changed {
		return nil
	}
	raw, err := json.Marshal(b.annotations)
	if err != nil {
		return err
	}
	b.fields["annotations"] = raw
	data, err := json.Marshal(b.fields)
	if err != nil {
		return err
	}
	info, err := os.Stat(b.path)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(b.path, data, info.Mode().Perm()); err != nil {
		return fmt.Errorf("change the bundle's annotations: %w", err)
	}
	b.changed = false
	return nil
}

// pod is what the container runtime says of the pod that a container belongs to.
type pod struct {
	namespace, name, uid, container string
	// image is the one that kubelet asked for, as the pod's spec names it.
	image   string
	sandbox bool
	// optedIn: the pod may be moved, or is a replacement.
	optedIn bool
	// migration is the PodMigration that a replacement belongs to.
	migration string
}

// Annotations by which a container runtime says what a container is.
const (
	containerdPrefix = "io.kubernetes.cri."
	crioType         = "io.kubernetes.cri-o.ContainerType"
)

// pod reads the annotations of containerd or of CRI-O. CRI-O hands on all of a pod's own
// annotations, so those in the other runtime's words are the user's: with both nothing is
// known for sure.
func (b *bundle) pod() (pod, error) {
	_, crio := b.annotations[crioType]
	for key := range b.annotations {
		if crio && strings.HasPrefix(key, containerdPrefix) {
			return pod{}, fmt.Errorf("%s has the annotation %s of containerd and %s of CRI-O: "+
				"the pod has set one of them itself; remove it from the pod", b.path, key, crioType)
		}
	}
	p := pod{
		namespace: b.annotations["io.kubernetes.cri.sandbox-namespace"],
		name:      b.annotations["io.kubernetes.cri.sandbox-name"],
		uid:       b.annotations["io.kubernetes.cri.sandbox-uid"],
		container: b.annotations["io.kubernetes.cri.container-name"],
		image:     b.annotations["io.kubernetes.cri.image-name"],
		sandbox:   b.annotations["io.kubernetes.cri.container-type"] == "sandbox",
		migration: b.annotations[annotationMigration],
	}
	if crio {
		p.namespace = b.annotations["io.kubernetes.pod.namespace"]
		p.name = b.annotations["io.kubernetes.pod.name"]
		p.uid = b.annotations["io.kubernetes.pod.uid"]
		p.container = b.annotations["io.kubernetes.container.name"]
		p.image = b.annotations["io.kubernetes.cri-o.ImageName"]
		p.sandbox = b.annotations[crioType] == "sandbox"
	}
	p.optedIn = b.annotations[annotationMigrate] == "true" || p.migration != ""
	return p, nil
}
