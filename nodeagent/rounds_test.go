package nodeagent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/precopy"
	"github.com/drover-project/drover/nodeagent/transfer"
)

func TestAnotherRound(t *testing.T) {
	l := roundLimits{Rounds: 4, Time: 20 * time.Second, Little: 64}
	for name, c := range map[string]struct {
		written    []model.Bytes
		room       model.Bytes // 0: 3250, for 1000 of memory
		took, last time.Duration
		want       bool
	}{
		"none yet":              {want: true},
		"room for one":          {room: 2000, want: true},
		"no room for a second":  {written: []model.Bytes{1000}, room: 2999, want: false},
		"no room for one":       {room: 1999, want: false},
		"one":                   {written: []model.Bytes{1000}, want: true},
		"one that was little":   {written: []model.Bytes{64}, want: false},
		"much less":             {written: []model.Bytes{1000, 100}, want: true},
		"not much less":         {written: []model.Bytes{140, 100}, want: false},
		"as many as there are":  {written: []model.Bytes{600, 300, 200, 100}, want: false},
		"just room for another": {written: []model.Bytes{1000, 250}, want: true}, // 1250 + 1000 + 1000 of 3250
		"room for no other":     {written: []model.Bytes{1000, 251}, want: false},
		"no time for another":   {written: []model.Bytes{1000}, took: 11 * time.Second, last: 10 * time.Second, want: false},
	} {
		if c.room == 0 {
			c.room = 3250
		}
		if got := l.another(c.written, 1000, c.room, c.took, c.last); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRoundsAhead(t *testing.T) {
	away := errors.New("away")
	for name, c := range map[string]struct {
		size     model.Bytes
		cannot   string
		room     model.Bytes   // 0: there is more than is asked for
		written  []model.Bytes // of each round; then they fail
		sent     int           // how many can be sent
		want     model.Bytes
		wantDone []string
	}{
		"until little is left": {size: 1000, written: []model.Bytes{1000, 90, 10}, sent: 9, want: 1090, wantDone: []string{"write", "push", "write", "push"}},
		"little memory":        {size: 99},
		"much memory":          {size: 2001},
		"no tracking":          {size: 1000, cannot: "no soft-dirty"},
		"no room":              {size: 1000, room: 1999},
		"room for one round":   {size: 1000, room: 3000, written: []model.Bytes{1000, 500}, sent: 9, want: 1000, wantDone: []string{"write", "push"}},
		"the first fails":      {size: 1000, wantDone: []string{"write", "unpush"}},
		// What the first wrote is of no use either: CRIU has cleared the marks.
		"the second fails": {size: 1000, written: []model.Bytes{1000}, sent: 9, wantDone: []string{"write", "push", "write", "unpush"}},
		"it is not sent":   {size: 1000, written: []model.Bytes{1000, 500}, want: 1000, wantDone: []string{"write", "push"}},
	} {
		t.Run(name, func(t *testing.T) {
			var done []string
			writes, pushes := 0, 0
			r := &tracked{
				cannot: func() string { return c.cannot },
				room: func(_ context.Context, _ migrate.Move, size model.Bytes) error {
					if c.room != 0 && size > c.room {
						return away
					}
					return nil
				},
				write: func(context.Context, migrate.Move) (model.Bytes, error) {
					done = append(done, "write")
					if writes++; writes > len(c.written) {
						return 0, away
					}
					return c.written[writes-1], nil
				},
				push: func(_ context.Context, _ migrate.Move, dir string) error {
					done = append(done, "push")
					if pushes++; pushes > c.sent || dir != "images" {
						return away
					}
					return nil
				},
				unpush: func(migrate.Move) { done = append(done, "unpush") },
				limits: roundLimits{From: 100, Most: 2000, Rounds: 4, Time: time.Minute, Little: 90},
			}
			got := r.ahead(t.Context(), migrate.Move{}, c.size, "images", slog.New(slog.DiscardHandler))
			if got != c.want || !slices.Equal(done, c.wantDone) {
				t.Errorf("%d bytes after %q, want %d after %q", got, done, c.want, c.wantDone)
			}
		})
	}
}

// Where no rounds are written memory is read as before; where they are, it is not read as well.
func TestRoundsOrPrecopy(t *testing.T) {
	for name, c := range map[string]struct {
		fails error
		reads bool
	}{"rounds": {}, "no rounds": {errors.New("away"), true}} {
		t.Run(name, func(t *testing.T) {
			d, reads := &dumper{}, false
			e := early{
				Checkpointer: d, limits: precopy.Limits{Rounds: 1, Time: time.Minute}, log: slog.New(slog.DiscardHandler),
				sender:    &transfer.Sender{Address: func(string) (string, error) { return "127.0.0.1:1", nil }, TLS: func(model.NodeID) *tls.Config { return &tls.Config{} }},
				size:      func(migrate.Move) (model.Bytes, error) { return model.GiB, nil },
				files:     func(context.Context, migrate.Move) (model.Bytes, error) { return 0, nil },
				processes: func(migrate.Move) ([]int, error) { reads = true; return nil, nil },
				images:    func(migrate.Move) (string, error) { return t.TempDir(), nil },
				rounds: &tracked{
					cannot: func() string { return "" },
					room:   func(context.Context, migrate.Move, model.Bytes) error { return nil },
					write:  func(context.Context, migrate.Move) (model.Bytes, error) { return model.MiB, c.fails },
					push:   func(context.Context, migrate.Move, string) error { return nil },
					unpush: func(migrate.Move) {},
					limits: defaultRounds,
				},
			}
			if _, err := e.Dump(t.Context(), migrate.Move{UID: "uid-1"}); err != nil || d.dumps != 1 {
				t.Errorf("%d dumps, %v", d.dumps, err)
			}
			if reads != c.reads {
				t.Errorf("memory was read: %v", reads)
			}
			e.sender.Drop(migrate.Move{UID: "uid-1"})
		})
	}
}
