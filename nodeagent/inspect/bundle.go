package inspect

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// bundle is what an OCI bundle's config.json allows its processes (runtime-spec, config.md
// and config-linux.md).
type bundle struct {
	Process struct {
		User struct {
			UID            uint32   `json:"uid"`
			GID            uint32   `json:"gid"`
			AdditionalGids []uint32 `json:"additionalGids"`
		} `json:"user"`
		Capabilities struct {
			Bounding    []string `json:"bounding"`
			Effective   []string `json:"effective"`
			Inheritable []string `json:"inheritable"`
			Permitted   []string `json:"permitted"`
			Ambient     []string `json:"ambient"`
		} `json:"capabilities"`
		NoNewPrivileges bool   `json:"noNewPrivileges"`
		AppArmorProfile string `json:"apparmorProfile"`
		SelinuxLabel    string `json:"selinuxLabel"`
		Terminal        bool   `json:"terminal"`
		OOMScoreAdj     *int32 `json:"oomScoreAdj"`
		Rlimits         []struct {
			Type string `json:"type"`
			Hard uint64 `json:"hard"`
		} `json:"rlimits"`
		Scheduler *struct {
			Policy string `json:"policy"`
		} `json:"scheduler"`
	} `json:"process"`
	Root struct {
		Path     string `json:"path"`
		Readonly bool   `json:"readonly"`
	} `json:"root"`
	Mounts []mountSpec `json:"mounts"`
	Linux  struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
		Seccomp           *struct{} `json:"seccomp"`
		MaskedPaths       []string  `json:"maskedPaths"`
		ReadonlyPaths     []string  `json:"readonlyPaths"`
		RootfsPropagation string    `json:"rootfsPropagation"`
		Devices           []device  `json:"devices"`
	} `json:"linux"`

	// bounding and all are sets of capabilities: all is what a process can have come by.
	bounding, all capabilities
	// host is where the node's root file system is seen, rootfs where the container's is.
	host, rootfs string
}

// readBundle reads the bundle that a node has in dir.
func readBundle(host, dir string) (*bundle, error) {
	data, err := os.ReadFile(filepath.Join(host, dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("inspect images: read the waiting container's bundle: %w", err)
	}
	b, err := parseBundle(data)
	if err != nil {
		return nil, err
	}
	rootfs := b.Root.Path
	if !filepath.IsAbs(rootfs) {
		rootfs = filepath.Join(dir, rootfs)
	}
	b.host = host
	if b.rootfs, err = securejoin.SecureJoin(host, rootfs); err != nil {
		return nil, fmt.Errorf("inspect images: find the waiting container's root file system %s: %w", rootfs, err)
	}
	return b, nil
}

func parseBundle(data []byte) (*bundle, error) {
	b := &bundle{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("inspect images: read the waiting container's bundle: %w", err)
	}
	var err error
	c := b.Process.Capabilities
	if b.bounding, err = named(c.Bounding); err != nil {
		return nil, err
	}
	b.all, err = named(slices.Concat(c.Bounding, c.Effective, c.Inheritable, c.Permitted, c.Ambient))
	return b, err
}

// namespace gives the path by which the container joins a namespace, and whether it has one
// that is not the node's.
func (b *bundle) namespace(kind string) (path string, own bool) {
	for _, ns := range b.Linux.Namespaces {
		if ns.Type == kind {
			return ns.Path, true
		}
	}
	return "", false
}
