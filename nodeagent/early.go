package nodeagent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/precopy"
	"github.com/drover-project/drover/nodeagent/transfer"
)

// early sends memory before the dump is complete: what the processes have while they still
// run, then what CRIU writes while it writes the rest. Whatever of it fails, the dump is made
// and sent as if it had not been tried.
type early struct {
	migrate.Checkpointer
	sender *transfer.Sender
	// size is about how large the images will be, processes are those that have the memory,
	// images where the dump will be.
	size      func(migrate.Move) (model.Bytes, error)
	processes func(migrate.Move) ([]int, error)
	images    func(migrate.Move) (string, error)
	// limits bound what is read before the freeze; no rounds: nothing is.
	limits precopy.Limits
	log    *slog.Logger
}

// worthwhile is from how much memory on it is read before the freeze: less is dumped and sent
// in the time that a connection takes.
const worthwhile = 16 * model.MiB

// defaultPrecopy keeps well within the time that a create waits.
var defaultPrecopy = precopy.Limits{Rounds: 5, Time: 15 * time.Second, Little: 8 * model.MiB}

// Dump implements migrate.Checkpointer.
func (e early) Dump(ctx context.Context, m migrate.Move) (migrate.Dumped, error) {
	log := e.log.With("migration", m.Namespace+"/"+m.Name)
	size, err := e.size(m)
	if err == nil && size >= worthwhile && e.limits.Rounds > 0 {
		if err := e.precopy(ctx, m, size, log); err != nil {
			log.Warn("memory was not sent before the freeze: all of it goes after it", "err", err)
		}
	}
	if dir, derr := e.images(m); err == nil && derr == nil && ctx.Err() == nil {
		e.sender.Follow(m, dir, size)
	}
	dumped, err := e.Checkpointer.Dump(ctx, m)
	if err != nil || ctx.Err() != nil { // nobody will send it
		e.sender.Drop(m)
	}
	return dumped, err
}

func (e early) precopy(ctx context.Context, m migrate.Move, size model.Bytes, log *slog.Logger) error {
	ahead, err := e.sender.Ahead(ctx, m, min(size, transfer.MostAhead))
	if err != nil {
		return err
	}
	stats, err := precopy.Copy(ctx, func() ([]int, error) { return e.processes(m) }, ahead, e.limits)
	if errors.Is(err, transfer.ErrFull) {
		err = nil
	}
	err = errors.Join(err, ahead.Close())
	log.Info("memory was read before the freeze", "bytes", stats.Read, "new in each round", stats.Fresh, "took", stats.Took)
	return err
}

// Release implements migrate.Checkpointer.
func (e early) Release(ctx context.Context, m migrate.Move) error {
	e.sender.Drop(m)
	return e.Checkpointer.Release(ctx, m)
}

// End implements migrate.Checkpointer.
func (e early) End(ctx context.Context, m migrate.Move) error {
	e.sender.Drop(m)
	return e.Checkpointer.End(ctx, m)
}
