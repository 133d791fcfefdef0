package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/filetree"
	"github.com/drover-project/drover/internal/model"
)

// ErrMissing: the images of a container lack the files of a volume.
var ErrMissing = errors.New("the images hold no files of it: is the agent on the source older than this one?")

// Unpack makes the files that came with a container, which waits to be restored. others are
// the directories of the images of the pod's other containers: what several have came with
// one of them, and is not touched here, for that one's processes may have it open.
func (n Node) Unpack(ctx context.Context, c Container, others []string) error {
	trees, err := n.trees(c, true)
	if err != nil {
		return err
	}
	if err := mine(c.Images, trees); err != nil {
		return err
	}
	for _, t := range trees {
		if err := n.unpack(ctx, c, t, others); err != nil {
			return fmt.Errorf("unpack %s: %w", t.what, err)
		}
	}
	return nil
}

// mine refuses images of trees that the container has not.
func mine(images string, trees []tree) error {
	names, err := os.ReadDir(images)
	if err != nil {
		return err
	}
	for _, e := range names {
		if !Image(e.Name()) {
			continue
		}
		image := e.Name()[:len(e.Name())-len(filepath.Ext(e.Name()))]
		if slices.ContainsFunc(trees, func(t tree) bool { return t.image == image }) {
			continue
		}
		return fmt.Errorf("%w: the images hold %s, and the container has no such files", filetree.ErrUnfit, e.Name())
	}
	return nil
}

func (n Node) unpack(ctx context.Context, c Container, t tree, others []string) error {
	index, err := open(c.Images, t.image+indexSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		if !t.must || slices.ContainsFunc(others, func(dir string) bool { return exists(dir, t.image+indexSuffix) }) {
			return nil
		}
		return ErrMissing
	}
	if err != nil {
		return err
	}
	defer index.Close()
	x, err := filetree.Decode(index, n.Limits)
	if err != nil {
		return err
	}
	if x.Layer != t.layer {
		return fmt.Errorf("%w: a layer (%t) comes for %s", filetree.ErrUnfit, x.Layer, t.what)
	}
	data, err := open(c.Images, t.image+dataSuffix)
	if err != nil {
		return err
	}
	defer data.Close()
	if err := n.room(t.path, model.Bytes(x.DataSize())); err != nil {
		return err
	}
	return filetree.Unpack(ctx, t.path, x, data)
}

// room wants what is unpacked into memory to fit in what this process may have. Other file systems tell
// themselves what they have room for.
func (n Node) room(path string, need model.Bytes) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if n.Own == nil || st.Type != unix.TMPFS_MAGIC {
		return nil
	}
	own, err := n.Own()
	if err == nil && need > own {
		err = fmt.Errorf("%d MiB of files in memory do not fit in the memory of the agent, which may have %d MiB more: give it more, or move less",
			need/model.MiB, own/model.MiB)
	}
	return err
}

func open(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|unix.O_NOFOLLOW, 0)
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}
