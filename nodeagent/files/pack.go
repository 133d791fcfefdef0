package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-project/drover/internal/filetree"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/movable"
)

// Packed tells what was packed.
type Packed struct {
	Bytes   model.Bytes // of data files
	Entries int
	Took    time.Duration
}

// Pack packs the files of a pod's containers, which stand still, in the order in which kubelet
// creates them: what several have goes with the first.
func (n Node) Pack(ctx context.Context, all []Container) (Packed, error) {
	return n.packAll(all, func(c Container, t tree) (*filetree.Index, error) { return n.pack(ctx, c, t) })
}

// Hint gives to add the content of the files of a pod's containers, which run, in whole pages as
// Pack would lay it out: what is the same when they stand still need not be sent then.
func (n Node) Hint(ctx context.Context, all []Container, add func(pages []byte) error) (Packed, error) {
	return n.packAll(all, func(_ Container, t tree) (*filetree.Index, error) {
		return filetree.Pack(ctx, t.path, filetree.Options{Layer: t.layer, Live: true, Limits: n.Limits}, pages(add))
	})
}

// pages takes what is packed and keeps none of it.
type pages func([]byte) error

// WriteAt gives b as whole pages; what is missing of the last is a hole in a data file.
func (p pages) WriteAt(b []byte, _ int64) (int, error) {
	whole := len(b) / filetree.Page * filetree.Page
	err := p(b[:whole])
	if rest := b[whole:]; err == nil && len(rest) > 0 {
		last := make([]byte, filetree.Page)
		copy(last, rest)
		err = p(last)
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (pages) Truncate(int64) error { return nil }

func (n Node) packAll(all []Container, pack func(Container, tree) (*filetree.Index, error)) (Packed, error) {
	began := time.Now()
	var p Packed
	err := n.each(all, func(c Container, t tree) error {
		x, err := pack(c, t)
		if err = errors.Join(t.unfit, err); err != nil {
			return fmt.Errorf("pack %s: %w", t.what, err)
		}
		p.Bytes += model.Bytes(x.DataSize())
		p.Entries += len(x.Entries)
		return nil
	})
	p.Took = time.Since(began)
	return p, err
}

// each calls for every tree of the containers once.
func (n Node) each(all []Container, do func(Container, tree) error) error {
	seen := map[string]bool{}
	for _, c := range all {
		trees, err := n.trees(c, false)
		if err != nil {
			return err
		}
		for _, t := range trees {
			if seen[t.path] && t.unfit == nil {
				continue
			}
			seen[t.path] = true
			if err := do(c, t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n Node) pack(ctx context.Context, c Container, t tree) (*filetree.Index, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	data, err := os.OpenFile(filepath.Join(c.Images, t.image+dataSuffix), flags, 0o600)
	if err != nil {
		return nil, err
	}
	// A pod may have written much since it was surveyed.
	limits := n.Limits
	if n.Own != nil {
		own, err := n.Own()
		if err != nil {
			return nil, errors.Join(err, data.Close())
		}
		limits.Bytes = min(limits.Bytes, int64(own))
	}
	x, err := filetree.Pack(ctx, t.path, filetree.Options{Layer: t.layer, Limits: limits}, data)
	if err := errors.Join(err, data.Close()); err != nil {
		return nil, err
	}
	b, err := x.Encode()
	if err != nil {
		return nil, err
	}
	return x, os.WriteFile(filepath.Join(c.Images, t.image+indexSuffix), b, 0o600)
}

// Survey looks at the files of a pod's containers without reading or stopping anything: how
// much their packing would write, and what speaks against a move.
func (n Node) Survey(ctx context.Context, all []Container) (model.Bytes, []movable.Finding, error) {
	var bytes model.Bytes
	var found []movable.Finding
	err := n.each(all, func(_ Container, t tree) error {
		// A running program may take files away while they are looked at.
		used, err := filetree.Survey(ctx, t.path, filetree.Options{Layer: t.layer, Live: true, Limits: n.Limits})
		err = errors.Join(t.unfit, err)
		bytes += model.Bytes(used.Bytes) + model.Bytes(used.Entries)*perEntry
		if errors.Is(err, filetree.ErrUnfit) {
			found = append(found, movable.Found(movable.ReasonFiles, "%s: %v", t.what, err).
				But("remove such files, or keep them on a volume that travels by itself"))
			return nil
		}
		return err
	})
	return bytes, found, err
}

// perEntry is about what an entry takes in an index, in bytes.
const perEntry = 64
