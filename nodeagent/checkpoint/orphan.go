package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Pods are the UIDs of the pods that are held or dumped here, whoever's move that is.
func (d *Dumps) Pods() ([]string, error) {
	var uids []string
	parts, err := d.all()
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		_, frozen, _, err := d.look(p)
		if err != nil {
			return nil, fmt.Errorf("look for the container of dump %s: %w", p.dir, err)
		}
		// A script that waits keeps CRIU and runc, also when the container has ended.
		running, err := working(p.dir)
		if err != nil {
			return nil, err
		}
		if frozen || running {
			uids = append(uids, p.move.Source.UID)
		}
	}
	held, err := d.fenced()
	for _, c := range held {
		uids = append(uids, c.PodUID)
	}
	return uids, err
}

// EndPod kills what is held of a pod of which neither the object nor the record of its move is
// there any more, without a moment in which it runs, and removes its dumps.
func (d *Dumps) EndPod(ctx context.Context, uid string) error {
	parts, err := d.all()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range parts {
		if p.move.Source.UID == uid {
			errs = append(errs, d.end(ctx, p))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, p := range parts {
		if p.move.Source.UID == uid {
			errs = append(errs, os.RemoveAll(p.dump))
		}
	}
	held, err := d.fenced()
	errs = append(errs, err)
	for _, c := range held {
		if c.PodUID == uid {
			group, err := d.cfg.Groups.At(c.CgroupsPath)
			if err == nil {
				err = group.Kill(ctx)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// all are the parts of all dumps on the disk.
func (d *Dumps) all() ([]part, error) {
	dirs, err := partsOf(filepath.Join(d.cfg.Layout.Dumps(), "*"))
	if err != nil {
		return nil, err
	}
	var parts []part
	for _, dir := range dirs {
		n, err := readNote(dir)
		if err != nil {
			return nil, err
		}
		if n != nil {
			parts = append(parts, part{dir: dir, dump: filepath.Dir(filepath.Dir(dir)), move: migrate.Move{Source: migrate.Pod{UID: n.PodUID}},
				Container: migrate.Container{Name: filepath.Base(dir), ID: n.ContainerID}})
		}
	}
	return parts, nil
}

// fenced are the containers that are frozen and whose pod is fenced: also those whose dump is
// gone, for kubelet is not let at them either.
func (d *Dumps) fenced() ([]layout.Container, error) {
	ids, err := d.cfg.Layout.Containers()
	if err != nil {
		return nil, err
	}
	var held []layout.Container
	for _, id := range ids {
		c, err := d.cfg.Layout.ReadContainer(id)
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue
		}
		if f, err := d.cfg.Layout.Fences().Check(c.PodUID); f == nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		group, err := d.cfg.Groups.At(c.CgroupsPath)
		if err != nil {
			return nil, err
		}
		if frozen, err := group.Frozen(); err == nil && frozen {
			held = append(held, *c)
		} else if err != nil && group.Exists() {
			return nil, err
		}
	}
	return held, nil
}
