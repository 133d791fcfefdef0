package precopy

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/drover-project/drover/internal/model"
)

const (
	page = 4096
	// stretch is how much is read at once: the kernel holds the process's map meanwhile.
	stretch = 256 << 10
	// tableSize is of how many pages it is asked at once whether they are there.
	tableSize = 4096
)

// reader reads rounds.
type reader struct {
	sink          Sink
	buffer, table []byte
	read, fresh   model.Bytes
}

func (r *reader) round(ctx context.Context, list func() ([]int, error)) error {
	pids, err := list()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if ctx.Err() != nil {
			return errOver
		}
		if err := r.process(ctx, pid, list); err != nil {
			return err
		}
	}
	return nil
}

// process reads one process. Only an error of the sink, of list, or the end of the time counts.
func (r *reader) process(ctx context.Context, pid int, list func() ([]int, error)) error {
	// What is opened below this directory is of the process that has the PID now.
	dir, err := os.OpenRoot("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return nil
	}
	defer dir.Close()
	// It may have ended since it was listed, and another have got its PID, of another pod.
	if pids, err := list(); err != nil || !slices.Contains(pids, pid) {
		return err
	}
	var files [3]*os.File
	for i, name := range []string{"maps", "pagemap", "mem"} {
		if files[i], err = dir.Open(name); err != nil {
			return nil
		}
		defer files[i].Close()
	}
	areas, _ := parseMaps(files[0]) // those that could be read
	for _, a := range areas {
		if err := r.area(ctx, a, files[1], files[2]); err != nil {
			return err
		}
	}
	return nil
}

// area reads the pages of a mapping that are there.
func (r *reader) area(ctx context.Context, a area, pagemap, mem io.ReaderAt) error {
	for at := a.start; at < a.end; at += tableSize * page {
		if ctx.Err() != nil { // a mapping may be huge and have no pages at all
			return errOver
		}
		pages := int(min(tableSize, (a.end-at)/page))
		n, _ := pagemap.ReadAt(r.table[:8*pages], int64(at/page*8))
		pages = n / 8
		for i := 0; i < pages; {
			from := i
			for i < pages && i-from < stretch/page && a.wants(binary.NativeEndian.Uint64(r.table[8*i:])) {
				i++
			}
			if i == from {
				i++
				continue
			}
			if ctx.Err() != nil {
				return errOver
			}
			b := r.buffer[:(i-from)*page]
			n, _ := mem.ReadAt(b, int64(at)+int64(from)*page)
			fresh, err := r.sink.Add(b[:n/page*page])
			r.read += model.Bytes(n)
			r.fresh += fresh
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// area is a mapping that a dump holds pages of.
type area struct {
	start, end uint64
	// shared: anonymous memory of several processes.
	shared bool
}

// Bits of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const (
	present = 1 << 63
	ofFile  = 1 << 61 // of a file, or shared anonymous memory
)

// wants tells whether a page is there and in no file that the target has.
func (a area) wants(entry uint64) bool {
	return entry&present != 0 && (a.shared || entry&ofFile == 0)
}

// parseMaps reads proc(5) maps and gives what CRIU dumps of memory: private mappings, and
// shared ones that have no file.
func parseMaps(r io.Reader) ([]area, error) {
	var all []area
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		a, ok, err := parseMapping(lines.Text())
		if err != nil {
			return all, err
		}
		if ok {
			all = append(all, a)
		}
	}
	return all, lines.Err()
}

func parseMapping(line string) (area, bool, error) {
	f := strings.Fields(line)
	if len(f) < 5 || len(f[1]) < 4 {
		return area{}, false, fmt.Errorf("a mapping %q: too few fields", line)
	}
	from, to, _ := strings.Cut(f[0], "-")
	start, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return area{}, false, fmt.Errorf("a mapping %q: %w", line, err)
	}
	end, err := strconv.ParseUint(to, 16, 64)
	if err != nil || end < start || start%page != 0 || end%page != 0 {
		return area{}, false, fmt.Errorf("a mapping %q: its end is not one (%v)", line, err)
	}
	path := ""
	if len(f) > 5 {
		path = f[5]
	}
	a := area{start: start, end: end, shared: f[1][3] == 's'}
	switch {
	case strings.HasPrefix(path, "[v"), end > 1<<62: // vdso, vvar, vsyscall: the kernel's
		return a, false, nil
	case a.shared:
		return a, strings.HasPrefix(path, "/memfd:") || strings.HasPrefix(path, "/SYSV") || strings.HasPrefix(path, "/dev/zero"), nil
	}
	// A device may take a read for more than that. CRIU dumps no such mapping.
	device := strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/dev/zero") || strings.HasPrefix(path, "/sys/")
	return a, !device, nil
}
