package inspect

import (
	"encoding/json"
	"io"
	"regexp"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"

	podfiles "github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/imagefile"
)

// descriptors checks runc's own file beside the images. It tells which of CRIU's open files
// the container is given by its number, and has the standard streams.
func descriptors(r io.Reader) error {
	var names []string
	if err := json.NewDecoder(io.LimitReader(r, imagefile.MaxEntry)).Decode(&names); err != nil {
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

// number is written as CRIU does: with zeros before it an image would be read here alone.
const number = `(0|[1-9][0-9]*)`

// imageName matches the names of what a dump of runc's consists of. CRIU reads more: forms of its
// older versions, and what it dumps of namespaces that runc does not leave to it.
var imageName = regexp.MustCompile(`^(` +
	`(inventory|pstree|files|remap-fpath|cgroup|seccomp|filelocks|memfd|cpuinfo|stats-dump|lacking)` +
	`|(pipes|fifo|tty|bpfmap)-data|bpfmap-file|sk-queues|tty-info` +
	`|(core|ids|mm|fs|fdinfo|pagemap|pagemap-shmem|pages|timens|pidns|utsns|netns|mountpoints)-` + number +
	`|ipcns-(var|shm|msg|sem)-` + number +
	`|(ghost-file|tcp-stream)-[0-9a-f]+` +
	`|tmpfs-dev-` + number + `\.tar\.gz` +
	`)\.img$|^descriptors\.json$`)

// known refuses all but those, and what package files has unpacked from beside them.
func known(name string) error {
	if strings.HasPrefix(name, "userns-") {
		// Its numbers are those that the source's kubelet gave the pod; here they are another's.
		return refuse("leave out hostUsers: false, or start the pod anew", "the node's users", "a user namespace")
	}
	if !imageName.MatchString(name) && !podfiles.Image(name) {
		return refuse(tampered, "images that CRIU writes for runc", "an image of that name")
	}
	return nil
}
