package inspect

import (
	"bufio"
	"encoding/binary"
	"errors"
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
	mountsMagic    = 0x55563928
	filesMagic     = 0x56303138
	ghostMagic     = 0x52583605
	netnsMagic     = 0x55933752
)

// maxEntry bounds an entry that is read; those looked at here have some kilobytes.
const maxEntry = 4 << 20

func list(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// read gives what a regular file in root holds.
func read(root *os.Root, name string, do func(io.Reader) error) error {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("inspect images: %w", err)
	}
	defer f.Close()
	err = do(f)
	if err != nil && !errors.Is(err, ErrRefused) {
		err = fmt.Errorf("inspect images: %s: %w", name, err)
	}
	return err
}

// readOne reads an image that holds one entry: CRIU reads the first, and more would only be
// hidden.
func readOne(root *os.Root, name string, magic uint32, into proto.Message) error {
	return read(root, name, func(r io.Reader) error { return decodeOne(r, magic, into) })
}

// readFirst reads the first entry of an image that holds data of another form after it.
func readFirst(root *os.Root, name string, magic uint32, into proto.Message) error {
	return read(root, name, func(r io.Reader) error {
		if err := begin(r, magic); err != nil {
			return err
		}
		return next(r, into)
	})
}

// readEach reads an image that holds any number of entries.
func readEach[T any, M interface {
	*T
	proto.Message
}](root *os.Root, name string, magic uint32, do func(M) error) error {
	return read(root, name, func(r io.Reader) error { return decodeEach(bufio.NewReader(r), magic, do) })
}

func decodeEach[T any, M interface {
	*T
	proto.Message
}](r io.Reader, magic uint32, do func(M) error) error {
	if err := begin(r, magic); err != nil {
		return err
	}
	for {
		m := M(new(T))
		switch err := next(r, m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := do(m); err != nil {
			return err
		}
	}
}

func decodeOne(r io.Reader, magic uint32, into proto.Message) error {
	if err := begin(r, magic); err != nil {
		return err
	}
	if err := next(r, into); err != nil {
		return err
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return errors.New("more than one entry")
	}
	return nil
}

// begin reads the magic number.
func begin(r io.Reader, magic uint32) error {
	var got uint32
	err := binary.Read(r, binary.LittleEndian, &got)
	if err == nil && got == commonMagic {
		err = binary.Read(r, binary.LittleEndian, &got)
	}
	if err != nil || got != magic {
		return fmt.Errorf("magic number %#x (%v), want %#x", got, err, magic)
	}
	return nil
}

// next reads an entry; at the end it gives io.EOF.
func next(r io.Reader, into proto.Message) error {
	var size uint32
	if err := binary.Read(r, binary.LittleEndian, &size); err != nil {
		return err
	}
	if size > maxEntry {
		return fmt.Errorf("an entry of %d bytes, want at most %d", size, maxEntry)
	}
	data := make([]byte, size)
	if n, err := io.ReadFull(r, data); err != nil {
		return fmt.Errorf("an entry of %d bytes was announced, and there are %d", size, n)
	}
	return proto.Unmarshal(data, into)
}
