package inspect

import (
	"encoding/json"
	"io"
	"regexp"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
)

// descriptors checks runc's own file beside the images. It tells which of CRIU's open files
// the container is given by its number, and has the standard streams.
func descriptors(r io.Reader) error {
	var names []string
	if err := json.NewDecoder(io.LimitReader(r, maxEntry)).Decode(&names); err != nil {
		return err
	}
	if len(names) > 3 {
		return refusedIn("descriptors.json", refuse(tampered, "3, the standard streams", "%d files are handed to the container: %.200q", len(names), names))
	}
	return nil
}

// runID is what CRIU names its lock of the network after.
var runID = regexp.MustCompile(`^[0-9a-fA-F-]{0,36}$`)

func whole(i *inventory.InventoryEntry) error {
	if id := i.GetDumpCriuRunId(); !runID.MatchString(id) {
		return refuse(tampered, "a UUID", "the dump is called %q", id)
	}
	return nil
}

// imageName matches the names of what a dump of runc's consists of. CRIU reads more: forms of its
// older versions, and what it dumps of namespaces that runc does not leave to it.
var imageName = regexp.MustCompile(`^(` +
	`(inventory|pstree|files|remap-fpath|cgroup|seccomp|filelocks|memfd|cpuinfo|stats-dump)` +
	`|(pipes|fifo|tty|bpfmap)-data|bpfmap-file|sk-queues|tty-info` +
	`|(core|ids|mm|fs|fdinfo|pagemap|pagemap-shmem|pages|timens|pidns|utsns|netns|mountpoints)-[0-9]+` +
	`|ipcns-(var|shm|msg|sem)-[0-9]+` +
	`|(ghost-file|tcp-stream)-[0-9a-f]+` +
	`|tmpfs-dev-[0-9]+\.tar\.gz` +
	`)\.img$|^descriptors\.json$`)

func known(name string) error {
	if !imageName.MatchString(name) {
		return refuse(tampered, "images that CRIU writes for runc", "an image of that name")
	}
	return nil
}
