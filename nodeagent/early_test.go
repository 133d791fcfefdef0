package nodeagent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/precopy"
	"github.com/drover-project/drover/nodeagent/transfer"
)

// A target that cannot be reached, processes that cannot be listed: whatever is tried before
// the freeze keeps nobody from being dumped.
func TestEarlyIsNoCondition(t *testing.T) {
	away := errors.New("away")
	limits := precopy.Limits{Rounds: 1, Time: time.Minute}
	for name, c := range map[string]struct {
		size    model.Bytes
		sizeErr error
		limits  precopy.Limits
		asked   int
	}{
		"not reached":  {size: model.GiB, limits: limits, asked: 2},
		"little":       {size: worthwhile - 1, limits: limits, asked: 1},
		"switched off": {size: model.GiB, asked: 1},
		"not known":    {size: model.GiB, sizeErr: away, limits: limits, asked: 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := &dumper{}
			asked := 0
			e := early{
				Checkpointer: d, limits: c.limits, log: slog.New(slog.DiscardHandler),
				sender: &transfer.Sender{Address: func(string) (string, error) {
					asked++
					return "", away
				}},
				size:      func(migrate.Move) (model.Bytes, error) { return c.size, c.sizeErr },
				processes: func(migrate.Move) ([]int, error) { return nil, away },
				images:    func(migrate.Move) (string, error) { return t.TempDir(), nil },
			}
			if _, err := e.Dump(context.Background(), migrate.Move{UID: "uid-1"}); err != nil || d.dumps != 1 {
				t.Errorf("%d dumps, %v", d.dumps, err)
			}
			if asked != c.asked {
				t.Errorf("the target was looked for %d times, want %d", asked, c.asked)
			}
		})
	}
}

// A dump that comes to its hold although it was cancelled is sent by nobody, and what follows it is
// dropped.
func TestEarlyOfACancelledDump(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := migrate.Move{UID: "uid-1", Epoch: 1}
	sender := &transfer.Sender{
		Address: func(string) (string, error) { return "127.0.0.1:1", nil },
		TLS:     func(model.NodeID) *tls.Config { return &tls.Config{} },
	}
	e := early{
		Checkpointer: &dumper{during: func() {
			if sender.Progress(m) == nil {
				t.Error("nothing follows the dump")
			}
			cancel()
		}},
		sender: sender, log: slog.New(slog.DiscardHandler),
		size:   func(migrate.Move) (model.Bytes, error) { return model.GiB, nil },
		images: func(migrate.Move) (string, error) { return t.TempDir(), nil },
	}
	if _, err := e.Dump(ctx, m); err != nil {
		t.Fatal(err)
	}
	if sender.Progress(m) != nil {
		t.Error("what follows the dump is left")
	}
}
