package nodeagent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/files"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/precopy"
	"github.com/drover-project/drover/nodeagent/transfer"
)

// early sends memory and files before the dump is complete: what the processes have while they still
// run, then what CRIU writes while it writes the rest. Whatever of it fails, the dump is made
// and sent as if it had not been tried.
type early struct {
	migrate.Checkpointer
	sender *transfer.Sender
	// size is about how large the images of the processes will be, files those of their files; processes
	// are those that have the memory, hint gives what they have in files, images is where the
	// dump will be.
	size      func(migrate.Move) (model.Bytes, error)
	files     func(context.Context, migrate.Move) (model.Bytes, error)
	processes func(migrate.Move) ([]int, error)
	hint      func(context.Context, migrate.Move, func(pages []byte) error) (files.Packed, error)
	images    func(migrate.Move) (string, error)
	// limits bound what is read before the freeze, and the time for files as for memory; no
	// rounds: nothing is.
	limits precopy.Limits
	// rounds are tried first. May be nil.
	rounds *tracked
	log    *slog.Logger
}

// worthwhile is from how much memory and files on they are read before the freeze: less is dumped
// and sent in the time that a connection takes.
const worthwhile = 16 * model.MiB

// surveying is how long it may take to find how large the files are.
const surveying = 5 * time.Second

// defaultPrecopy keeps well within the time that a create waits.
var defaultPrecopy = precopy.Limits{Rounds: 5, Time: 15 * time.Second, Little: 8 * model.MiB}

// Dump implements migrate.Checkpointer.
func (e early) Dump(ctx context.Context, m migrate.Move) (migrate.Dumped, error) {
	log := e.log.With("migration", m.Namespace+"/"+m.Name)
	memory, err := e.size(m)
	inFiles := model.Bytes(0)
	if err == nil && e.limits.Rounds > 0 {
		inFiles = e.survey(ctx, m)
	}
	dir, derr := e.images(m)
	if err = errors.Join(err, derr); err == nil {
		there := e.ahead(ctx, m, memory, inFiles, dir, log)
		if ctx.Err() == nil {
			e.sender.Follow(m, dir, there+memory+inFiles)
		}
	}
	dumped, err := e.Checkpointer.Dump(ctx, m)
	if err != nil || ctx.Err() != nil { // nobody will send it
		e.sender.Drop(m)
	}
	return dumped, err
}

// ahead sends memory, and the content of files, while the processes run, and gives how much of the memory is in
// images already. Files do not go ahead of a dump in rounds.
func (e early) ahead(ctx context.Context, m migrate.Move, memory, inFiles model.Bytes, dir string, log *slog.Logger) model.Bytes {
	if memory+inFiles < worthwhile || e.limits.Rounds == 0 {
		return 0
	}
	if e.rounds != nil && memory >= worthwhile {
		if there := e.rounds.ahead(ctx, m, memory, dir, log); there > 0 || ctx.Err() != nil {
			return there
		}
	}
	if err := e.precopy(ctx, m, memory, inFiles, log); err != nil {
		log.Warn("not all was sent before the freeze: the rest goes after it", "err", err)
	}
	return 0
}

// survey gives how large the files are, none if that is not known soon: then all of them go after the
// freeze.
func (e early) survey(ctx context.Context, m migrate.Move) model.Bytes {
	ctx, cancel := context.WithTimeout(ctx, surveying)
	defer cancel()
	size, err := e.files(ctx, m)
	if err != nil {
		return 0
	}
	return size
}

func (e early) precopy(ctx context.Context, m migrate.Move, memory, inFiles model.Bytes, log *slog.Logger) error {
	most := min(memory+inFiles, transfer.MostAhead)
	ahead, err := e.sender.Ahead(ctx, m, most)
	if err != nil {
		return err
	}
	// Memory comes last, for it changes most, and is left its room.
	if room := most - memory; inFiles > 0 && room > 0 {
		if err := e.filesAhead(ctx, m, ahead, room, log); err != nil {
			log.Warn("files were not all sent before the freeze", "err", err)
		}
	}
	stats, err := precopy.Copy(ctx, func() ([]int, error) { return e.processes(m) }, ahead, e.limits)
	if errors.Is(err, transfer.ErrFull) {
		err = nil
	}
	err = errors.Join(err, ahead.Close())
	log.Info("memory was read before the freeze", "bytes", stats.Read, "new in each round", stats.Fresh, "took", stats.Took)
	return err
}

// filesAhead sends files, of which room bytes at most.
func (e early) filesAhead(ctx context.Context, m migrate.Move, ahead precopy.Sink, room model.Bytes, log *slog.Logger) error {
	began, to := time.Now(), &bounded{ahead, room}
	err := precopy.Files(ctx, func(ctx context.Context, add func([]byte) error) error {
		_, err := e.hint(ctx, m, add)
		return err
	}, to, e.limits.Time)
	if errors.Is(err, transfer.ErrFull) {
		err = nil
	}
	log.Info("files were read before the freeze", "bytes", room-to.left, "took", time.Since(began))
	return err
}

// bounded is a sink that takes so many bytes more.
type bounded struct {
	precopy.Sink
	left model.Bytes
}

func (b *bounded) Add(pages []byte) (model.Bytes, error) {
	n := model.Bytes(len(pages))
	if n > b.left {
		return 0, transfer.ErrFull
	}
	b.left -= n
	return b.Sink.Add(pages)
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
