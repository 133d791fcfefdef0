package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/refusals"
	"github.com/drover-project/drover/nodeagent/checkpoint"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// spacious dumps only what fits, here and on the target: a pod is not frozen for images that
// nobody has room for.
type spacious struct {
	migrate.Checkpointer
	// loaded waits until the processes have all of their memory, of which some may come later.
	loaded func(context.Context, migrate.Move) error
	// size is about how large the images of a move's processes will be, files those of its files.
	size  func(migrate.Move) (model.Bytes, error)
	files func(context.Context, migrate.Move) (model.Bytes, error)
	// own is how much the agent itself may write, which packs the files.
	own func() (model.Bytes, error)
	// here is how much this node has room for, there asks the target.
	here     func() (model.Bytes, error)
	there    func(context.Context, migrate.Move, model.Bytes) error
	refusals *refusals.Counter
}

// spare stays free on this node beside a dump.
const spare = 256 * model.MiB

// Dump implements migrate.Checkpointer.
func (s spacious) Dump(ctx context.Context, m migrate.Move) (migrate.Dumped, error) {
	// What is still to be loaded has no size yet, and cannot be read before the freeze.
	err := s.loaded(ctx, m)
	if err == nil {
		err = s.fits(ctx, m)
	}
	if err != nil {
		if errors.Is(err, checkpoint.ErrForeign) {
			s.refusals.Count(refusals.Container)
		}
		return migrate.Dumped{}, fmt.Errorf("pod %s was not frozen: %w", m.Source.Name, err)
	}
	return s.Checkpointer.Dump(ctx, m)
}

func (s spacious) fits(ctx context.Context, m migrate.Move) error {
	size, err := s.size(m)
	if err != nil {
		return err
	}
	files, err := s.files(ctx, m)
	if err != nil {
		return err
	}
	own, err := s.own()
	if err != nil {
		return err
	}
	if files > own {
		return fmt.Errorf("the images of about %d MiB of files do not fit in the memory of the agent, which may have %d MiB more",
			files/model.MiB, own/model.MiB)
	}
	size += files
	room, err := s.here()
	if err != nil {
		return err
	}
	if size > room-spare {
		return fmt.Errorf("images of about %d MiB do not fit on this node: there is room for %d MiB, of which %d stay free",
			size/model.MiB, room/model.MiB, spare/model.MiB)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return s.there(ctx, m, size)
}

// roomForRounds asks whether so much memory, in rounds and a dump after them, fits here and at a target
// that joins them.
func (a *agent) roomForRounds(ctx context.Context, m migrate.Move, size model.Bytes) error {
	room, err := a.vault.ForDump()
	if err != nil {
		return err
	}
	if size > room-spare {
		return fmt.Errorf("rounds of memory and the dump after them, of up to %d MiB, do not fit on this node: there is room for %d MiB, of which %d stay free",
			size/model.MiB, room/model.MiB, spare/model.MiB)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return a.sender.RoomForRounds(ctx, m, size)
}
