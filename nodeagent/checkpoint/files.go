package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// packFiles packs what the containers have in files beside their images, while they are held:
// nothing changes any more, and CRIU has noted how large open files are.
func (d *Dumps) packFiles(ctx context.Context, parts []part) error {
	if d.cfg.Files == nil {
		return nil
	}
	all, err := d.withFiles(parts, part.images)
	if err != nil {
		return err
	}
	packed, err := d.cfg.Files.Pack(ctx, all)
	if err != nil {
		return fmt.Errorf("take the files of pod %s along: %w", parts[0].move.Source.Name, err)
	}
	d.cfg.Log.Info("files that travel", "pod", parts[0].move.Source.UID, "bytes", packed.Bytes, "entries", packed.Entries, "took", packed.Took)
	return nil
}

// HintFiles gives to add what m's containers have in files while they run, in whole pages. It is a
// hint: what is the same at the freeze need not be sent again.
func (d *Dumps) HintFiles(ctx context.Context, m migrate.Move, add func(pages []byte) error) (files.Packed, error) {
	_, parts, err := d.parts(m)
	if err != nil || d.cfg.Files == nil {
		return files.Packed{}, err
	}
	all, err := d.withFiles(parts, part.images)
	if err != nil {
		return files.Packed{}, err
	}
	return d.cfg.Files.Hint(ctx, all, add)
}

func (d *Dumps) withFiles(parts []part, images func(part) string) ([]files.Container, error) {
	var all []files.Container
	for _, p := range parts {
		c, err := d.container(p)
		if c == nil {
			return nil, errors.Join(err, fmt.Errorf("container %s: drover-runc left no note about it", p.ID))
		}
		all = append(all, files.Container{PodUID: c.PodUID, Bundle: c.Bundle, Images: images(p)})
	}
	return all, nil
}

// Files is about how large the image files of what m's containers have in files will be. It looks at
// every file, and ends with ctx.
func (d *Dumps) Files(ctx context.Context, m migrate.Move) (model.Bytes, error) {
	_, parts, err := d.parts(m)
	if err != nil || d.cfg.Files == nil {
		return 0, err
	}
	all, err := d.withFiles(parts, part.images)
	if err != nil {
		return 0, err
	}
	// What cannot be taken along is the guard's to find, and the packing's.
	bytes, _, err := d.cfg.Files.Survey(ctx, all)
	return bytes, err
}
