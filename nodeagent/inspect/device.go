package inspect

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// device is one of a bundle's device nodes (runtime-spec, config-linux.md).
type device struct {
	Path  string `json:"path"`
	Type  string `json:"type"`
	Major int64  `json:"major"`
	Minor int64  `json:"minor"`
}

// usual are the device nodes that every container has (runtime-spec, default devices).
var usual = []device{
	{"/dev/null", "c", 1, 3}, {"/dev/zero", "c", 1, 5}, {"/dev/full", "c", 1, 7}, {"/dev/random", "c", 1, 8},
	{"/dev/urandom", "c", 1, 9}, {"/dev/tty", "c", 5, 0},
}

func (b *bundle) devicePath(path string) bool {
	return slices.ContainsFunc(slices.Concat(usual, b.Linux.Devices), func(d device) bool { return d.Path == path })
}

// node checks a device node of a type ("c", "b") that an image holds.
func (b *bundle) node(name, kind string, major, minor int64) error {
	all := slices.Concat(usual, b.Linux.Devices)
	if b.all.has(unix.CAP_MKNOD) || slices.ContainsFunc(all, func(d device) bool {
		return strings.Replace(d.Type, "u", "c", 1) == kind && d.Major == major && d.Minor == minor
	}) {
		return nil
	}
	return refuse(tampered, "those of the container's specification, since it cannot make others (MKNOD)", "the device node %s, %s %d:%d", name, kind, major, minor)
}
