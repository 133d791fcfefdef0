package kernels

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drover-project/drover/hack/lab/cache"
)

// initramfs is what a kernel unpacks and starts /init of: the guest's program, and the modules
// for its disks. The format is newc, of Linux's Documentation/driver-api/early-userspace/buffer-format.rst.
func initramfs(k cache.Kernel, init string) ([]byte, error) {
	modules, err := diskModules(k)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	const directory, program, file = 0o040755, 0o100755, 0o100644
	for _, dir := range []string{"dev", "modules"} {
		member(&b, dir, directory, nil)
	}
	content, err := os.ReadFile(init)
	if err != nil {
		return nil, err
	}
	member(&b, "init", program, content)
	for i, m := range modules {
		if content, err = os.ReadFile(filepath.Join(k.Modules, m)); err != nil {
			return nil, err
		}
		member(&b, fmt.Sprintf("modules/%03d-%s", i, filepath.Base(m)), file, content)
	}
	member(&b, "TRAILER!!!", 0, nil)
	return b.Bytes(), nil
}

func member(b *bytes.Buffer, name string, mode int, content []byte) {
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	fmt.Fprintf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	_, _ = io.WriteString(b, name+"\x00")
	pad()
	b.Write(content)
	pad()
}

// diskModules are the modules that virtio's disks need, in the order in which they are loaded.
func diskModules(k cache.Kernel) ([]string, error) {
	dep, err := os.ReadFile(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range []string{"virtio_pci.ko", "virtio_blk.ko"} {
		if bytes.Contains(builtin, []byte("/"+name+"\n")) {
			continue
		}
		needs, err := dependencies(string(dep), name)
		if err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.Release, err)
		}
		for _, m := range needs {
			if !slices.Contains(all, m) {
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// dependencies reads modules.dep: a module, and what it needs, the last of that first.
func dependencies(dep, name string) ([]string, error) {
	for line := range strings.Lines(dep) {
		module, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		if filepath.Base(module) != name {
			continue
		}
		all := append([]string{module}, strings.Fields(needs)...)
		slices.Reverse(all)
		return all, nil
	}
	return nil, fmt.Errorf("modules.dep does not tell of %s", name)
}
