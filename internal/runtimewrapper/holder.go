package runtimewrapper

import (
	"encoding/json"
	"fmt"
	"slices"
)

// holderProgram is what images of holders have: Kubernetes' pause, and all that are made like it.
const holderProgram = "/pause"

// kubelets are the files and directories that kubelet and the container runtime give every container.
var kubelets = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/dev/termination-log"}

// hold makes the bundle that of a process which does nothing. A pod's command, its volumes and its
// working directory cannot be changed with the image, and of none of them anything may run again:
// not even out of a volume.
func (b *bundle) hold() error {
	var process map[string]json.RawMessage
	if err := json.Unmarshal(b.fields["process"], &process); err != nil {
		return fmt.Errorf("%s: process: %w", b.path, err)
	}
	var mounts []struct {
		Destination, Type string
		Options           []string
	}
	var all []json.RawMessage
	for _, into := range []any{&mounts, &all} {
		if raw, ok := b.fields["mounts"]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return fmt.Errorf("%s: mounts: %w", b.path, err)
			}
		}
	}
	kept := []json.RawMessage{}
	for i, m := range mounts {
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		if !bind || slices.Contains(kubelets, m.Destination) {
			kept = append(kept, all[i])
		}
	}
	for name, value := range map[string]any{"args": []string{holderProgram}, "cwd": "/", "env": []string{}} {
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		process[name] = raw
	}
	for name, value := range map[string]any{"process": process, "mounts": kept} {
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		b.fields[name] = raw
	}
	delete(b.fields, "hooks") // the runtime's, for devices above all
	b.changed = true
	return nil
}
