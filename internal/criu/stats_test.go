package criu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/stats"
)

// statsFile is a file as CRIU writes it: two magic numbers, a size, a message.
func statsFile(t testing.TB) []byte {
	t.Helper()
	n32 := func(v uint32) *uint32 { return &v }
	n64 := func(v uint64) *uint64 { return &v }
	e := &stats.StatsEntry{Dump: &stats.DumpStatsEntry{
		FreezingTime: n32(1500), FrozenTime: n32(9), MemdumpTime: n32(2000), MemwriteTime: n32(500),
		PagesScanned: n64(9), PagesSkippedParent: n64(0), PagesWritten: n64(42), PagesLazy: n64(0),
	}}
	payload, err := e.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	b := binary.LittleEndian.AppendUint32(nil, stats.ImgServiceMagic)
	b = binary.LittleEndian.AppendUint32(b, stats.StatsMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

func TestReadDumpStats(t *testing.T) {
	whole := statsFile(t)
	dir := t.TempDir()
	write := func(b []byte) {
		if err := os.WriteFile(filepath.Join(dir, stats.StatsDump), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(whole)
	got, err := ReadDumpStats(dir)
	// 2000 us of dumping and 500 us of writing.
	want := DumpStats{Freezing: 1500 * time.Microsecond, Memory: 2500 * time.Microsecond, Pages: 42}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for n := range whole {
		write(whole[:n])
		if got, err := ReadDumpStats(dir); err == nil {
			t.Errorf("cut to %d bytes: %+v", n, got)
		}
	}
	if _, err := ReadDumpStats(t.TempDir()); err == nil {
		t.Error("no file: no error")
	}
}

func FuzzReadDumpStats(f *testing.F) {
	f.Add(statsFile(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stats.StatsDump), b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = ReadDumpStats(dir) // must not panic
	})
}
