package boot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// mountDisk mounts an image. A node that is started again right after its end waits for its
// former life's mount to be gone: two mounts of one image would destroy it.
func mountDisk(image, path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("mount disk on %s: %w", path, err)
	}
	const patience = 30 * time.Second
	for began := time.Now(); attached(image); time.Sleep(poll) {
		if time.Since(began) > patience {
			return fmt.Errorf("mount disk on %s: %s is still attached after %s", path, image, patience)
		}
	}
	out, err := exec.Command("mount", "-o", "loop,nosuid,nodev", image, path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount disk %s on %s: %w: %s", image, path, err, out)
	}
	return nil
}

// attached tells whether a loop device holds the file.
func attached(image string) bool {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == image {
			return true
		}
	}
	return false
}
