package decide

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A loop over the scene of TestGo, with the time of synctest.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ordered []time.Time
		var log bytes.Buffer
		began := time.Now()
		l := NewLoop(LoopConfig{
			Config:   Default(),
			Interval: time.Second,
			Gather: func(context.Context, bool) (Input, time.Time, error) {
				if len(ordered) == 0 && time.Since(began) < 3*time.Second {
					return Input{}, now, errors.New("the API server is away")
				}
				// The View's own clock is now at the start.
				return scene(), now.Add(0), nil
			},
			Order: func(_ context.Context, m Move) error {
				ordered = append(ordered, time.Now())
				return errors.New("refused")
			},
			Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		if len(ordered) != 1 || ordered[0].Sub(began) != 3*time.Second {
			t.Errorf("ordered at %v, want once, 3 s after %v: then it cools down, refused or not", ordered, began)
		}
		for text, want := range map[string]int{"API server is away": 2, "verdict=Go ": 1, "verdict=CoolingDown": 1, "move shop/web from n1 to n3: refused": 1} {
			if got := strings.Count(log.String(), text); got != want {
				t.Errorf("%q is logged %d times, want %d", text, got, want)
			}
		}
	})
}

// It is tried again once it has cooled down.
func TestLoopTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, orders := time.Now(), 0
		l := NewLoop(LoopConfig{
			Config:   Default(),
			Interval: time.Second,
			Gather: func(context.Context, bool) (Input, time.Time, error) {
				in, at := scene(), now.Add(time.Since(began))
				for id, n := range in.View.Nodes {
					n.Received = at
					in.View.Nodes[id] = n
				}
				return in, at, nil
			},
			Order: func(context.Context, Move) error { orders++; return nil },
			Log:   slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		defer cancel()
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		if orders != 3 {
			t.Errorf("%d orders in 150 s, want 3: at 1, 61 and 121 s", orders)
		}
	})
}

func TestLoopRefusesABadConfig(t *testing.T) {
	if err := NewLoop(LoopConfig{}).Run(t.Context()); err == nil {
		t.Error("a margin of 0 was taken")
	}
}
