// Package inspect looks into the images of a copy before they are restored. CRIU restores
// what they say as root: mounts, files, capabilities, users, namespaces, limits. They came
// from another node, whose root could have changed them, so what the processes would have is
// held against what the OCI bundle of the waiting create allows. That bundle was made by this
// node's own container runtime from the replacement's spec.
//
// What cannot be told from outside stays with the source: the processes' memory, the content
// of their seccomp filters, which of the container's own files they have open. See
// docs/threat-model.md.
package inspect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/ghost-file"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/netdev"
)

// ErrRefused says that a copy would have more than its container may.
var ErrRefused = errors.New("the copy is not restored: its images ask for more than its container may have")

// Copy checks the images in a directory against the bundle in another, which is the node's;
// host is where the node's root file system is seen. An error that wraps ErrRefused is a
// refusal; any other says that the images or the bundle cannot be read. begun is where the bundle's mounts
// lay when runc looked, if it has: before the container's files came.
func Copy(dir, host, bundle string, begun ...string) error {
	allowed, err := readBundle(host, bundle)
	if err != nil {
		return err
	}
	if err := allowed.stayed(begun); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("inspect images: %w", err)
	}
	defer root.Close()
	c := &images{bundle: allowed, root: root}
	for _, look := range []func() error{c.list, c.inventory, c.tasks, c.network, c.filesystem, c.opened} {
		if err := look(); err != nil {
			return err
		}
	}
	return nil
}

// images are those of a copy.
type images struct {
	*bundle
	root  *os.Root
	names []string
	node  *criu_core.TaskKobjIdsEntry // the namespaces that CRIU was in
	ids   *criu_core.TaskKobjIdsEntry // those of the container's processes
	files *files
}

func refusedIn(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", ErrRefused, name, err)
}

func (d *images) list() error {
	names, err := list(d.root)
	if err != nil {
		return fmt.Errorf("inspect images: %w", err)
	}
	for _, name := range names {
		if err := known(name); err != nil {
			return refusedIn(name, err)
		}
	}
	d.names = names
	return nil
}

// each calls for all images of a kind, those with a number.
func (d *images) each(prefix string, do func(name string) error) (found int, err error) {
	for _, name := range d.names {
		if strings.HasPrefix(name, prefix) {
			if err := do(name); err != nil {
				return found, err
			}
			found++
		}
	}
	return found, nil
}

func (d *images) inventory() error {
	i := &inventory.InventoryEntry{}
	if err := readOne(d.root, "inventory.img", inventoryMagic, i); err != nil {
		return err
	}
	if d.node = i.GetRootIds(); d.node == nil {
		return refusedIn("inventory.img", refuse(tampered, "their numbers", "it does not tell which namespaces are the node's"))
	}
	if err := whole(i); err != nil {
		return refusedIn("inventory.img", err)
	}
	return read(d.root, "descriptors.json", descriptors)
}

func (d *images) tasks() error {
	ids, err := d.each("ids-", func(name string) error {
		e := &criu_core.TaskKobjIdsEntry{}
		if err := readOne(d.root, name, idsMagic, e); err != nil {
			return err
		}
		if d.ids == nil {
			d.ids = e
		}
		return refusedIn(name, d.namespaces(e, d.node, d.ids))
	})
	if err != nil {
		return err
	}
	cores, err := d.each("core-", func(name string) error {
		e := &criu_core.CoreEntry{}
		if err := readOne(d.root, name, coreMagic, e); err != nil {
			return err
		}
		if err := d.core(e); err != nil || e.GetIds() == nil {
			return refusedIn(name, err)
		}
		return refusedIn(name, d.namespaces(e.GetIds(), d.node, d.ids))
	})
	if err == nil && (cores == 0 || ids == 0) {
		err = fmt.Errorf("%w: %d core and %d ids images, want some of both", ErrRefused, cores, ids)
	}
	return err
}

// network wants the container to be restored into the network that its node has made for it.
func (d *images) network() error {
	path, _ := d.namespace("network")
	found, err := d.each("netns-", func(name string) error {
		e := &netdev.NetnsEntry{}
		if err := readOne(d.root, name, netnsMagic, e); err != nil {
			return err
		}
		if path != "" && e.GetExtKey() != outerNetwork {
			return refusedIn(name, refuse(tampered, path+" ("+outerNetwork+")", "the network namespace is %q", e.GetExtKey()))
		}
		return nil
	})
	if err == nil && path != "" && found != 1 {
		err = fmt.Errorf("%w: %d netns images, want the one of %s", ErrRefused, found, path)
	}
	return err
}

// outerNetwork is the key by which runc gives CRIU a network namespace.
const outerNetwork = "extRootNetNS"

func (d *images) filesystem() error {
	want := fmt.Sprintf("mountpoints-%d.img", d.ids.GetMntNsId())
	d.files = &files{bundle: d.bundle, links: map[uint32]links{}, ids: d.ids}
	found, err := d.each("mountpoints-", func(name string) error {
		if name != want {
			return refusedIn(name, refuse(tampered, want, "mounts of another namespace"))
		}
		var entries []*mnt.MntEntry
		err := readEach(d.root, name, mountsMagic, func(e *mnt.MntEntry) error { entries = append(entries, e); return nil })
		if err != nil {
			return err
		}
		d.files.mounts, err = d.bundle.mounts(entries)
		return refusedIn(name, err)
	})
	if err != nil {
		return err
	}
	if found == 0 {
		return fmt.Errorf("%w: no %s, so nothing would be mounted for the container", ErrRefused, want)
	}
	_, err = d.each("tmpfs-dev-", func(name string) error {
		var device uint32
		if _, err := fmt.Sscanf(name, "tmpfs-dev-%d.tar.gz.img", &device); err != nil {
			return fmt.Errorf("inspect images: %s: %w", name, err)
		}
		return read(d.root, name, func(r io.Reader) error {
			found, err := d.tmpfs(device, r)
			d.files.links[device] = found
			return err
		})
	})
	return err
}

func (d *images) opened() error {
	const name = "files.img"
	err := readEach(d.root, name, filesMagic, func(e *fdinfo.FileEntry) error {
		return refusedIn(name, d.files.open(e))
	})
	if err != nil {
		return err
	}
	_, err = d.each("ghost-file-", func(name string) error {
		e := &ghost_file.GhostFileEntry{}
		if err := readFirst(d.root, name, ghostMagic, e); err != nil {
			return err
		}
		return refusedIn(name, d.files.ghost(e))
	})
	return err
}
