package nodeagent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/files"
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
		size, files model.Bytes
		sizeErr     error
		filesErr    error
		limits      precopy.Limits
		asked       int
	}{
		"not reached":         {size: model.GiB, limits: limits, asked: 2},
		"little":              {size: worthwhile - 1, limits: limits, asked: 1},
		"much in files":       {size: 1, files: model.GiB, limits: limits, asked: 2},
		"switched off":        {size: model.GiB, files: model.GiB, asked: 1},
		"not known":           {size: model.GiB, sizeErr: away, limits: limits, asked: 0},
		"files are not known": {size: model.GiB, files: model.GiB, filesErr: away, limits: limits, asked: 2},
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
				files:     func(context.Context, migrate.Move) (model.Bytes, error) { return c.files, c.filesErr },
				processes: func(migrate.Move) ([]int, error) { return nil, away },
				hint: func(context.Context, migrate.Move, func([]byte) error) (files.Packed, error) {
					return files.Packed{}, away
				},
				images: func(migrate.Move) (string, error) { return t.TempDir(), nil },
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

// Files that go nowhere before the freeze are not looked at, and those that take long are looked at
// after it.
func TestEarlySurvey(t *testing.T) {
	for name, c := range map[string]struct {
		limits precopy.Limits
		looks  int
	}{
		"switched off": {},
		"they hang":    {limits: precopy.Limits{Rounds: 1, Time: time.Minute}, looks: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				away, looks := errors.New("away"), 0
				d := &dumper{}
				e := early{
					Checkpointer: d, limits: c.limits, log: slog.New(slog.DiscardHandler),
					sender: &transfer.Sender{Address: func(string) (string, error) { return "", away }},
					size:   func(migrate.Move) (model.Bytes, error) { return 1, nil },
					files: func(ctx context.Context, _ migrate.Move) (model.Bytes, error) {
						looks++
						<-ctx.Done()
						return model.GiB, ctx.Err()
					},
					images: func(migrate.Move) (string, error) { return "", away },
				}
				if _, err := e.Dump(t.Context(), migrate.Move{UID: "uid-1"}); err != nil || d.dumps != 1 || looks != c.looks {
					t.Errorf("%d dumps, %v; looked %d times, want %d", d.dumps, err, looks, c.looks)
				}
			})
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
		files:  func(context.Context, migrate.Move) (model.Bytes, error) { return 0, nil },
		images: func(migrate.Move) (string, error) { return t.TempDir(), nil },
	}
	if _, err := e.Dump(ctx, m); err != nil {
		t.Fatal(err)
	}
	if sender.Progress(m) != nil {
		t.Error("what follows the dump is left")
	}
}

// taken is what was added to a sink.
type taken struct{ pages []byte }

func (x *taken) Add(pages []byte) (model.Bytes, error) {
	x.pages = append(x.pages, pages...)
	return model.Bytes(len(pages)), nil
}

func (*taken) Round() {}

// Files go ahead as far as there is room for them beside memory; that there is no more, or no more
// time, is no error, and anything else is.
func TestFilesAhead(t *testing.T) {
	broken := errors.New("broken")
	page := make([]byte, 4096)
	for name, c := range map[string]struct {
		pages int // that there are
		then  error
		stuck bool
		want  int
	}{
		"all":       {pages: 3, want: 3},
		"no room":   {pages: 9, want: 4},
		"an error":  {pages: 2, then: broken, want: 2},
		"no time":   {pages: 2, stuck: true, want: 2},
		"no files":  {},
		"one error": {then: broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := early{log: slog.New(slog.DiscardHandler), limits: precopy.Limits{Time: time.Minute},
					hint: func(ctx context.Context, _ migrate.Move, add func([]byte) error) (files.Packed, error) {
						for range c.pages {
							if err := add(page); err != nil {
								return files.Packed{}, fmt.Errorf("pack: %w", err)
							}
						}
						if c.stuck {
							<-ctx.Done()
							return files.Packed{}, fmt.Errorf("pack: %w", ctx.Err())
						}
						return files.Packed{}, c.then
					}}
				to := &taken{}
				if err := e.filesAhead(t.Context(), migrate.Move{}, to, 4*4096, e.log); !errors.Is(err, c.then) {
					t.Errorf("%v, want %v", err, c.then)
				}
				if got := len(to.pages) / len(page); got != c.want {
					t.Errorf("%d pages went ahead, want %d", got, c.want)
				}
			})
		})
	}
}
