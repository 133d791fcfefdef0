package inspect

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/drover-project/drover/nodeagent/imagefile"
)

// Magic numbers at the beginning of an image (CRIU's magic.h).
const (
	inventoryMagic = 0x58313116
	coreMagic      = 0x55053847
	idsMagic       = 0x54432030
	mountsMagic    = 0x55563928
	filesMagic     = 0x56303138
	ghostMagic     = 0x52583605
	netnsMagic     = 0x55933752
)

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

// readOne reads an image that holds one entry.
func readOne(root *os.Root, name string, magic uint32, into proto.Message) error {
	return read(root, name, func(r io.Reader) error { return imagefile.One(r, magic, into) })
}

// readFirst reads the first entry of an image that holds data of another form after it.
func readFirst(root *os.Root, name string, magic uint32, into proto.Message) error {
	return read(root, name, func(from io.Reader) error {
		r, err := imagefile.NewReader(from, magic)
		if err != nil {
			return err
		}
		return r.Next(into)
	})
}

// readEach reads an image that holds any number of entries.
func readEach[T any, M interface {
	*T
	proto.Message
}](root *os.Root, name string, magic uint32, do func(M) error) error {
	return read(root, name, func(r io.Reader) error { return imagefile.Each(r, magic, do) })
}
