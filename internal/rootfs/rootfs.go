// Package rootfs says where something lies in a container's root file system, as runc finds it.
package rootfs

import (
	"fmt"
	"path"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// Place gives where in the root file system at root a mount's destination lies when links are followed, none
// of which leads out of it: the key by which runc knows the mount (libcontainer/criu_linux.go).
func Place(root, destination string) (string, error) {
	where, err := securejoin.SecureJoin(root, destination)
	if err != nil {
		return "", fmt.Errorf("find %s in the container's root file system %s: %w", destination, root, err)
	}
	return path.Join("/", strings.TrimPrefix(where, root)), nil
}
