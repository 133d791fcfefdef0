package decide

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/drover-project/drover/internal/model"
)

// LoopConfig is what a Loop works with. All fields are wanted.
type LoopConfig struct {
	Config   Config
	Interval time.Duration
	// Gather gives what is known now, Tried left out, and the time by the clock of its View. If
	// fresh, the moves in it are those that were ordered by now, not those heard of here.
	Gather func(ctx context.Context, fresh bool) (Input, time.Time, error)
	// Order is given every decision to go. Whether it orders the move or only tells of it
	// (mode observe, or all moves are paused) is its own choice. Either way the pod is left
	// alone for CoolDown after it.
	Order func(context.Context, Move) error
	Log   *slog.Logger
}

// Loop decides again and again.
type Loop struct {
	config LoopConfig
	// Of Run alone.
	tried map[string]time.Time
	told  map[model.PodID]Code
}

// NewLoop makes a Loop; Run starts it.
func NewLoop(config LoopConfig) *Loop {
	return &Loop{config: config, tried: map[string]time.Time{}, told: map[model.PodID]Code{}}
}

// Run decides at every interval until ctx ends. It returns an error for a bad Config; what
// goes wrong in one round is logged, and the next round goes on.
func (l *Loop) Run(ctx context.Context) error {
	if err := l.config.Config.Validate(); err != nil {
		return err
	}
	tick := time.NewTicker(l.config.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := l.round(ctx); err != nil && ctx.Err() == nil {
			l.config.Log.Warn("no decision about moving pods was made", "error", err)
		}
	}
}

// round makes one decision and has it carried out. One to go is made again with what others
// have ordered a moment ago, so that they do not all choose the same node.
func (l *Loop) round(ctx context.Context) error {
	d, now, err := l.decide(ctx, false)
	if err == nil && d.Move != nil {
		d, now, err = l.decide(ctx, true)
	}
	if err != nil {
		return err
	}
	l.tell(d.Verdicts)
	if d.Move == nil {
		return nil
	}
	l.tried[d.Move.Pod.Origin] = now
	if err := l.config.Order(ctx, *d.Move); err != nil {
		return fmt.Errorf("move %s from %s to %s: %w", d.Move.Pod.ID, d.Move.From, d.Move.To, err)
	}
	return nil
}

func (l *Loop) decide(ctx context.Context, fresh bool) (Decision, time.Time, error) {
	in, now, err := l.config.Gather(ctx, fresh)
	if err != nil {
		return Decision{}, now, err
	}
	maps.DeleteFunc(l.tried, func(_ string, at time.Time) bool { return now.Sub(at) >= l.config.Config.CoolDown })
	in.Tried = l.tried
	return Decide(l.config.Config, in, now), now, nil
}

// tell logs a verdict when it differs from the pod's last one: figures change every time.
func (l *Loop) tell(verdicts []Verdict) {
	told := map[model.PodID]Code{}
	for _, v := range verdicts {
		if l.told[v.Pod] != v.Code {
			l.config.Log.Info("a pod suffers from contention", "pod", v.Pod.String(), "verdict", string(v.Code), "why", v.Message)
		}
		told[v.Pod] = v.Code
	}
	l.told = told
}
