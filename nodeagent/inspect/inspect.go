// Package inspect looks into the images of a copy before they are restored. CRIU restores
// what they say as root: capabilities, users, seccomp, namespaces. They came from another
// node, whose root could have changed them, so what the processes would have is held against
// what the OCI bundle of the waiting create allows. That bundle was made by this node's own
// container runtime from the replacement's spec.
//
// What cannot be told from outside stays with the source: the processes' memory, the content
// of their seccomp filters, their open files. See docs/threat-model.md.
package inspect

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
)

// ErrRefused says that a copy would have more than its container may.
var ErrRefused = errors.New("the copy is not restored: its images ask for more than its container may have")

// Copy checks the images in a directory against the bundle in another. An error that wraps
// ErrRefused is a refusal; any other says that the images or the bundle cannot be read.
func Copy(images, bundle string) error {
	allowed, err := readBundle(bundle)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(images)
	if err != nil {
		return fmt.Errorf("inspect images: %w", err)
	}
	defer root.Close()
	return inspect(root, allowed)
}

func inspect(root *os.Root, allowed *bundle) error {
	names, err := list(root)
	if err != nil {
		return fmt.Errorf("inspect images: %w", err)
	}
	host := &inventory.InventoryEntry{}
	if err := readOne(root, "inventory.img", inventoryMagic, host); err != nil {
		return err
	}
	if host.GetRootIds() == nil {
		return fmt.Errorf("%w: inventory.img does not tell which namespaces are the node's", ErrRefused)
	}
	cores, ids := 0, 0
	for _, name := range names {
		switch {
		case numbered(name, "core-"):
			cores++
			core := &criu_core.CoreEntry{}
			if err := readOne(root, name, coreMagic, core); err != nil {
				return err
			}
			if err := allowed.core(core); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrRefused, name, err)
			}
			if core.GetIds() != nil {
				if err := allowed.namespaces(core.GetIds(), host.GetRootIds()); err != nil {
					return fmt.Errorf("%w: %s: %w", ErrRefused, name, err)
				}
			}
		case numbered(name, "ids-"):
			ids++
			entry := &criu_core.TaskKobjIdsEntry{}
			if err := readOne(root, name, idsMagic, entry); err != nil {
				return err
			}
			if err := allowed.namespaces(entry, host.GetRootIds()); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrRefused, name, err)
			}
		}
	}
	if cores == 0 || ids == 0 {
		return fmt.Errorf("%w: %d core and %d ids images, want some of both", ErrRefused, cores, ids)
	}
	return nil
}

// numbered tells whether a file is an image of one task, "core-7.img".
func numbered(name, prefix string) bool {
	number, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	number, ok = strings.CutSuffix(number, ".img")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}
