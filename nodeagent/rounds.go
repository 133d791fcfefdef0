package nodeagent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// tracked has CRIU write the memory of a pod in rounds while it runs, where the kernel tracks what was
// written to, and sends each round ahead. In the frozen time only what has changed since the last
// is dumped and sent.
type tracked struct {
	// cannot says why this node does not; empty: it does.
	cannot func() string
	// room asks whether so much fits here, and whether the target joins rounds and has that room.
	room func(context.Context, migrate.Move, model.Bytes) error
	// write writes a round and gives how much that was; push sends what was written into a directory, and
	// unpush lets what was sent count no more.
	write  func(context.Context, migrate.Move) (model.Bytes, error)
	push   func(ctx context.Context, m migrate.Move, dir string) error
	unpush func(migrate.Move)
	limits roundLimits
}

// roundLimits bound the rounds. Each stops the pod for some 0.1 to 0.3 s.
type roundLimits struct {
	// From how much memory on: less is dumped in the time that a round stops the pod for. Up to Most: CRIU
	// holds all of a round in pipes before it writes it, and nothing breaks it off.
	From, Most model.Bytes
	// Rounds at most, in so much time at most.
	Rounds int
	Time   time.Duration
	// Little is how much that has changed is not worth another round.
	Little model.Bytes
}

// defaultRounds keep well within the time that a create waits. Some 64 MiB are dumped in the time
// that a round stops the pod for.
var defaultRounds = roundLimits{From: 128 * model.MiB, Most: 16 * model.GiB, Rounds: 4, Time: 20 * time.Second, Little: 64 * model.MiB}

// another tells whether to write another round of about so much memory, after those that wrote so much
// and took so long in all, with what was sent of them, the last of them last. room is what there is
// for all of them and for the dump: it, too, may be as large as the memory.
func (l roundLimits) another(written []model.Bytes, size, room model.Bytes, took, last time.Duration) bool {
	var sum model.Bytes
	for _, w := range written {
		sum += w
	}
	n := len(written)
	switch {
	case sum+2*size > room:
		return false
	case n == 0:
		return true
	case n >= l.Rounds || written[n-1] <= l.Little || took+last > l.Time:
		return false
	}
	// A pod that writes as fast as it is dumped is not caught up with.
	return n == 1 || float64(written[n-1]) < worthRound*float64(written[n-2])
}

// worthRound is what part of what a round wrote the next may write at most, for one more to be made.
const worthRound = 0.7

// ahead writes and sends rounds, and gives how much they hold; 0: there are none, and the pod runs as
// before. size is about how much memory it has, dir where the dump will be.
func (t *tracked) ahead(ctx context.Context, m migrate.Move, size model.Bytes, dir string, log *slog.Logger) (sum model.Bytes) {
	room, why := t.fit(ctx, m, size)
	if why != "" {
		log.Info("memory is not written in rounds before the freeze", "because", why)
		return 0
	}
	began := time.Now()
	var written []model.Bytes
	var last time.Duration
	for ctx.Err() == nil && t.limits.another(written, size, room, time.Since(began), last) {
		start := time.Now()
		n, err := t.write(ctx, m)
		if err != nil {
			// What was written before is of no more use; the checkpointer has removed it.
			t.unpush(m)
			log.Warn("memory was not written in rounds before the freeze", "rounds", len(written), "err", err)
			return 0
		}
		written, sum = append(written, n), sum+n
		until, cancel := context.WithTimeout(ctx, t.limits.Time-time.Since(began))
		err = t.push(until, m, dir)
		cancel()
		if err != nil {
			log.Warn("a round of memory was not sent before the freeze: what is missing goes after it", "err", err)
			break
		}
		last = time.Since(start)
	}
	log.Info("memory was written in rounds before the freeze", "bytes in each", written, "took", time.Since(began))
	return sum
}

// fit says how much room there is for rounds and a dump, or why none are to be written.
func (t *tracked) fit(ctx context.Context, m migrate.Move, size model.Bytes) (room model.Bytes, why string) {
	if size < t.limits.From || size > t.limits.Most {
		return 0, fmt.Sprintf("it is %d MiB, want %d to %d", size/model.MiB, t.limits.From/model.MiB, t.limits.Most/model.MiB)
	}
	if why := t.cannot(); why != "" {
		return 0, why
	}
	var err error
	// For several rounds, or for one: all may be written to while they are written.
	for _, room := range []model.Bytes{3*size + size/4, 2 * size} {
		if err = t.room(ctx, m, room); err == nil {
			return room, ""
		}
	}
	return 0, err.Error()
}
