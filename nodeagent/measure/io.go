package measure

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/drover-project/drover/internal/kernelfile"
)

// sector is the unit of /proc/diskstats, whatever the device's own is.
const sector = 512

// IOBytes is what a group and all below it have read from block devices and written to them. A
// group without the io controller has none. With cgroup v1, what is written back later is
// nobody's.
func (c Cgroups) IOBytes(g Group) (int64, error) {
	if c.v1 {
		text, err := readOptional(c.file("blkio", g, "blkio.throttle.io_service_bytes_recursive"))
		if err != nil || text == "" {
			return 0, err
		}
		_, total, ok := strings.Cut("\n"+text, "\nTotal ")
		n, err := strconv.ParseInt(strings.TrimSpace(total), 10, 64)
		if !ok || err != nil {
			return 0, fmt.Errorf("read the IO of %s: no total in %q", g, text)
		}
		return n, nil
	}
	text, err := readOptional(c.file("io", g, "io.stat"))
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, field := range strings.Fields(text) {
		key, value, _ := strings.Cut(field, "=")
		if key != "rbytes" && key != "wbytes" {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the IO of %s: %q is no number of bytes", g, field)
		}
		sum += n
	}
	return sum, nil
}

// processIO is what each living process of a group, and of all below it, has read from block
// devices and written to them (proc(5), /proc/PID/io). With cgroup v1 the kernel often keeps no
// other account: only a group with a limit, or with the scheduler BFQ, has one.
func (c Cgroups) processIO(g Group, proc string) (map[int]int64, error) {
	found := map[int]int64{}
	err := c.each(g, func(dir string, _ uint64) error {
		text, err := readOptional(filepath.Join(dir, "cgroup.procs"))
		for _, field := range strings.Fields(text) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return fmt.Errorf("read the processes of %s: %w", g, err)
			}
			// It may have ended, or the kernel keeps no such account.
			io, err := readFields(filepath.Join(proc, field, "io"), "read_bytes:", "write_bytes:")
			if err == nil {
				found[pid] = io["read_bytes:"] + io["write_bytes:"]
			}
		}
		return err
	})
	return found, err
}

// ioLimited says whether a group has a limit of its own for some device.
func (c Cgroups) ioLimited(g Group) (bool, error) {
	names := []string{"io.max"}
	if c.v1 {
		names = []string{"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
			"blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"}
	}
	for _, name := range names {
		text, err := readOptional(c.file("blkio", g, name))
		if err != nil || text != "" {
			return text != "", err
		}
	}
	return false, nil
}

var partition = regexp.MustCompile(`^p?[0-9]+$`)

// readDiskBytes is what all block devices have read and written since boot. Partitions are left
// out: their disks have it. What a device hands on to another, as those of LVM do, is in
// it twice.
func readDiskBytes(proc string) (int64, error) {
	file := filepath.Join(proc, "diskstats")
	text, err := kernelfile.Read(file)
	if err != nil {
		return 0, err
	}
	sum, disk := int64(0), ""
	for line := range strings.Lines(text) {
		// major minor name reads merged sectors ms writes merged sectors ...
		fields := strings.Fields(line)
		if len(fields) < 10 {
			continue
		}
		if rest, ok := strings.CutPrefix(fields[2], disk); ok && disk != "" && partition.MatchString(rest) {
			continue
		}
		disk = fields[2]
		for _, i := range []int{5, 9} {
			n, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %q: %w", file, line, err)
			}
			sum += n * sector
		}
	}
	return sum, nil
}
