package criu

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/stats"
)

// DumpStats is what CRIU says of a dump that has ended.
type DumpStats struct {
	// Freezing is how long the processes took to stop, Memory how long their memory took to
	// be written. How long they stood still is not CRIU's to say: they are held after it.
	Freezing, Memory time.Duration
	// Pages of memory that were written.
	Pages uint64
}

// ReadDumpStats reads the statistics that CRIU leaves in its working directory.
func ReadDumpStats(dir string) (DumpStats, error) {
	file := filepath.Join(dir, stats.StatsDump)
	data, err := os.ReadFile(file)
	if err != nil {
		return DumpStats{}, err
	}
	// The decoder takes the file's own word for its size.
	if len(data) < stats.PayloadOffset || uint64(len(data)) < stats.PayloadOffset+uint64(binary.LittleEndian.Uint32(data[stats.SizeOffset:])) {
		return DumpStats{}, fmt.Errorf("%s: %d bytes are not all", file, len(data))
	}
	d, err := os.Open(dir)
	if err != nil {
		return DumpStats{}, err
	}
	defer d.Close()
	s, err := stats.CriuGetDumpStats(d)
	if err != nil {
		return DumpStats{}, fmt.Errorf("%s: %w", file, err)
	}
	micro := func(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }
	return DumpStats{
		Freezing: micro(s.GetFreezingTime()),
		Memory:   micro(s.GetMemdumpTime()) + micro(s.GetMemwriteTime()),
		Pages:    s.GetPagesWritten(),
	}, nil
}
