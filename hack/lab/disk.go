package lab

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// diskSuffix ends the names of files that are disks; before it is the escaped path in the node.
const diskSuffix = ".ext4"

func (m machine) disk(path string) string {
	return filepath.Join(m.dir(), "disk", url.PathEscape(filepath.Clean(path))+diskSuffix)
}

// makeDisk makes the file system for a folder of the node, if there is none yet.
func (m machine) makeDisk(path string, mib int) error {
	file := m.disk(path)
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	if err := writeFile(file, nil); err != nil {
		return err
	}
	if err := os.Truncate(file, int64(mib)<<20); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	// Without a journal: a node's end is no power cut for the kernel that all nodes share.
	out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make disk %s of %d MiB: %w: %s", path, mib, err, out)
	}
	return nil
}

// disks are those that makeDisk made, by their paths in the node.
func (m machine) disks() map[string]string {
	disks := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(m.dir(), "disk", "*"+diskSuffix))
	for _, f := range files {
		if path, err := url.PathUnescape(strings.TrimSuffix(filepath.Base(f), diskSuffix)); err == nil {
			disks[path] = f
		}
	}
	return disks
}
