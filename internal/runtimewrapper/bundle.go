package runtimewrapper

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-project/drover/internal/durable"
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
	changed     bool
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
	}
	if raw, ok := b.fields["linux"]; ok {
		if err := json.Unmarshal(raw, &linux); err != nil {
			return nil, fmt.Errorf("%s: linux: %w", b.path, err)
		}
	}
	b.cgroupsPath = linux.CgroupsPath
	return b, nil
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
	sandbox                         bool
	// optedIn: the pod may be moved, or is a replacement.
	optedIn bool
	// migration is the PodMigration that a replacement belongs to.
	migration string
}

// pod reads containerd's annotations, or else CRI-O's.
func (b *bundle) pod() pod {
	first := func(keys ...string) string {
		for _, k := range keys {
			if v := b.annotations[k]; v != "" {
				return v
			}
		}
		return ""
	}
	p := pod{
		namespace: first("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
		name:      first("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
		uid:       first("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"),
		container: first("io.kubernetes.cri.container-name", "io.kubernetes.container.name"),
		sandbox:   first("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType") == "sandbox",
		migration: b.annotations[annotationMigration],
	}
	p.optedIn = b.annotations[annotationMigrate] == "true" || p.migration != ""
	return p
}
