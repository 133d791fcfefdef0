package inspect

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// Magic numbers at the beginning of an image (CRIU's magic.h). Those of now begin with one
// that is common to all.
const (
	commonMagic    = 0x54564319
	inventoryMagic = 0x58313116
	coreMagic      = 0x55053847
	idsMagic       = 0x54432030
)

// maxImage bounds an image that is read; those looked at here have some kilobytes.
const maxImage = 4 << 20

func list(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// readOne reads an image that holds one entry.
func readOne(root *os.Root, name string, magic uint32, into proto.Message) error {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("inspect images: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxImage+1))
	if err != nil {
		return fmt.Errorf("inspect images: %w", err)
	}
	if err := decodeOne(data, magic, into); err != nil {
		return fmt.Errorf("inspect images: %s: %w", name, err)
	}
	return nil
}

// decodeOne wants exactly one entry: CRIU reads the first, and more would only be hidden.
func decodeOne(data []byte, magic uint32, into proto.Message) error {
	if len(data) > maxImage {
		return fmt.Errorf("more than %d bytes", maxImage)
	}
	next := func() (uint32, bool) {
		if len(data) < 4 {
			return 0, false
		}
		n := binary.LittleEndian.Uint32(data)
		data = data[4:]
		return n, true
	}
	got, ok := next()
	if ok && got == commonMagic {
		got, ok = next()
	}
	if !ok || got != magic {
		return fmt.Errorf("magic number %#x, want %#x", got, magic)
	}
	size, ok := next()
	if !ok || int64(size) != int64(len(data)) {
		return fmt.Errorf("one entry of %d bytes was announced, and there are %d", size, len(data))
	}
	return proto.Unmarshal(data, into)
}
