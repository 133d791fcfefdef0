package netlock

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func attr(kind uint16, value string) []byte {
	b := make([]byte, 4, 4+len(value)+4)
	binary.NativeEndian.PutUint16(b, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func TestTableName(t *testing.T) {
	flags := attr(unix.NFTA_TABLE_FLAGS, "\x00\x00\x00\x00")
	name := attr(unix.NFTA_TABLE_NAME, "CRIU-1\x00")
	for what, test := range map[string]struct {
		attrs []byte
		want  string
	}{
		"alone":          {name, "CRIU-1"},
		"behind another": {append(append([]byte{}, flags...), name...), "CRIU-1"},
		"none":           {flags, ""},
		"empty":          {nil, ""},
		"size 0":         {[]byte{0, 0, 1, 0}, ""},
		"too long":       {[]byte{200, 0, 1, 0, 'x'}, ""},
	} {
		if got := tableName(test.attrs); got != test.want {
			t.Errorf("%s: got %q, want %q", what, got, test.want)
		}
	}
}

func FuzzTableName(f *testing.F) {
	f.Add(attr(unix.NFTA_TABLE_NAME, "CRIU-1\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) { tableName(b) })
}
