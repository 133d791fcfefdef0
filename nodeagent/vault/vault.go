// Package vault is where a node keeps what holds the memory of pods: the images that leave
// it and those that came. They are treated as Secrets. By default they are on a tmpfs of
// Drover's own that is never swapped out, so that no disk ever holds them and unlinking
// wipes them; an operator may name a directory of an encrypted file system instead.
// See docs/decisions/0013.
package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/model"
)

// Config of a Vault.
type Config struct {
	// Dir is where it is mounted, for the agent and for the node; layout.Layout.Vault.
	Dir string
	// Size is how large the tmpfs may grow, as tmpfs(5) takes it: "50%" of the memory, "8G".
	Size string
	// Disk is a directory of the node to keep images in, instead of the tmpfs; or empty.
	Disk string
	// Proc is the node's procfs.
	Proc string
	// InMounts calls a function in the node's mount namespace; hosted.InMounts fits.
	InMounts func(func() error) error
	// Limit tells how much more memory the agent's own control group may have, if it is
	// limited: the pages of images that come are charged to it.
	Limit func() (left model.Bytes, limited bool, err error)
}

// Vault is the mounted directory. Safe for concurrent use.
type Vault struct {
	cfg Config

	mu sync.Mutex
	// closed says why nothing may be kept here; nil: it is open.
	closed error
	// swappable: the kernel might write the tmpfs to swap, if there were any.
	swappable bool
}

// New makes a Vault that is not open yet. It does no I/O.
func New(cfg Config) *Vault {
	return &Vault{cfg: cfg, closed: errors.New("it has not been mounted yet")}
}

// Open mounts the vault on the node, unless it is. A vault that cannot be opened stays
// closed, and says why whenever somebody wants to keep something.
func (v *Vault) Open() error {
	swappable, err := v.open()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("no safe place for the images of moves: %w", err)
	}
	v.swappable, v.closed = swappable, err
	return err
}

func (v *Vault) open() (swappable bool, err error) {
	var theirs unix.Stat_t
	err = v.cfg.InMounts(func() error {
		if swappable, err = v.mount(); err != nil {
			return err
		}
		return unix.Stat(v.cfg.Dir, &theirs)
	})
	if err != nil {
		return false, err
	}
	var own unix.Stat_t
	if err := unix.Stat(v.cfg.Dir, &own); err != nil {
		return false, fmt.Errorf("look at %s: %w", v.cfg.Dir, err)
	}
	if own.Dev != theirs.Dev || own.Ino != theirs.Ino {
		return false, fmt.Errorf("%s is mounted on the node and not seen in the agent's container: its volume needs mountPropagation HostToContainer",
			v.cfg.Dir)
	}
	return swappable, os.Chmod(v.cfg.Dir, 0o700)
}

// mount is called in the node's mount namespace.
func (v *Vault) mount() (swappable bool, err error) {
	if err := os.MkdirAll(v.cfg.Dir, 0o700); err != nil {
		return false, err
	}
	old, err := mounted(v.cfg.Dir)
	if err != nil {
		return false, err
	}
	if v.cfg.Disk != "" {
		return false, v.bind(old)
	}
	if old != nil && old.kind != "tmpfs" {
		// An earlier agent's directory on disk. It is busy as long as something is held.
		if err := unix.Unmount(v.cfg.Dir, 0); err != nil {
			return false, fmt.Errorf("unmount the directory that held images until now from %s: %w", v.cfg.Dir, err)
		}
		old = nil
	}
	if old != nil {
		return !old.has("noswap"), v.resize()
	}
	return v.memory()
}

const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// memory mounts the tmpfs. The kernel has noswap from 6.4 on.
func (v *Vault) memory() (swappable bool, err error) {
	options := "mode=0700,size=" + v.cfg.Size
	err = unix.Mount("drover", v.cfg.Dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		swappable = true
		err = unix.Mount("drover", v.cfg.Dir, "tmpfs", flags, options)
	}
	if err != nil {
		return false, fmt.Errorf("mount a tmpfs of size %s on %s: %w", v.cfg.Size, v.cfg.Dir, err)
	}
	return swappable, nil
}

// resize gives a tmpfs of an earlier agent the size of this one's.
func (v *Vault) resize() error {
	if err := unix.Mount("drover", v.cfg.Dir, "tmpfs", flags|unix.MS_REMOUNT, "size="+v.cfg.Size); err != nil {
		return fmt.Errorf("give the tmpfs on %s the size %s: %w", v.cfg.Dir, v.cfg.Size, err)
	}
	return nil
}

// bind mounts the operator's directory.
func (v *Vault) bind(old *mount) error {
	disk, err := os.Stat(v.cfg.Disk)
	if err != nil {
		return fmt.Errorf("the directory for images: %w", err)
	}
	if !disk.IsDir() {
		return fmt.Errorf("the directory for images: %s is none", v.cfg.Disk)
	}
	if old != nil {
		if now, err := os.Stat(v.cfg.Dir); err == nil && os.SameFile(now, disk) {
			return nil
		}
		if err := unix.Unmount(v.cfg.Dir, 0); err != nil {
			return fmt.Errorf("unmount what held images until now from %s: %w", v.cfg.Dir, err)
		}
	}
	if err := unix.Mount(v.cfg.Disk, v.cfg.Dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", v.cfg.Disk, v.cfg.Dir, err)
	}
	if err := unix.Mount("", v.cfg.Dir, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("take devices and programs away from %s: %w", v.cfg.Dir, err)
	}
	return nil
}

// Problem says in one line why nothing can be kept here; empty: it can.
func (v *Vault) Problem() string {
	if err := v.usable(); err != nil {
		return err.Error()
	}
	return ""
}

func (v *Vault) usable() error {
	v.mu.Lock()
	closed, swappable := v.closed, v.swappable
	v.mu.Unlock()
	if closed != nil || !swappable {
		return closed
	}
	// Asked every time: swap can be turned on at any moment.
	device, err := swap(filepath.Join(v.cfg.Proc, "swaps"))
	if err != nil {
		return fmt.Errorf("tell whether images could be written to swap: %w", err)
	}
	if device != "" {
		return fmt.Errorf("images might be written to the swap space %s: turn swap off, use Linux 6.4 or newer (whose tmpfs knows noswap), or name a directory on an encrypted file system",
			device)
	}
	return nil
}
