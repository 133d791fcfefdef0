package migrate

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/handoff"
)

// Progress is how far the transfer of a move's images is, as its source sees it.
type Progress struct {
	// Ahead is how many bytes of memory have gone before the freeze, in so many rounds.
	Ahead  int64 `json:"ahead"`
	Rounds int   `json:"rounds"`
	// Sent are the bytes of images that were sent, or found to be on the target already, of
	// Total, which is 0 until the dump is complete.
	Sent  int64 `json:"sent"`
	Total int64 `json:"total"`
	// Wire is how many bytes all that took on the link.
	Wire int64 `json:"wire"`
	// Rate is how many bytes of memory and images were done a second of late; Left is how long
	// the rest takes at that rate. 0: not known.
	Rate float64       `json:"rate"`
	Left time.Duration `json:"left"`
}

// status is as the record has it.
func (p Progress) status() *v1alpha1.TransferStatus {
	s := &v1alpha1.TransferStatus{
		AheadBytes: p.Ahead, Rounds: int64(p.Rounds), SentBytes: p.Sent, TotalBytes: p.Total, WireBytes: p.Wire,
		BytesPerSecond: int64(p.Rate),
	}
	if p.Left > 0 {
		s.TimeLeft = &metav1.Duration{Duration: p.Left.Round(time.Second)}
	}
	return s
}

// telling has the progress written into the record, every so often until stop is called, and
// never the moment something has begun: what is over soon needs no words.
func (w *worker) telling(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(w.d.cfg.Tick)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if p := w.d.ports.Sender.Progress(w.move); p != nil {
				w.box.put(letter{handoff.Event{Kind: handoff.Tick}, func() { w.tell(ctx, *p) }})
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// tell writes the progress. It starts from the newest record that is known and gives way to
// whoever changed that since; its time ends with the work that it tells of, so that it is not in
// the way of the change that follows. Should it be stored all the same, that change finds another
// version, and is tried again like after anybody's write.
func (w *worker) tell(ctx context.Context, p Progress) {
	base := w.objects[w.machine.Record().Version]
	if w.told || base == nil || ctx.Err() != nil {
		return
	}
	w.told = true
	next := base.DeepCopy()
	next.Status.Transfer = p.status()
	w.start(w.ctx, func(context.Context) letter {
		ctx, cancel := context.WithTimeout(ctx, w.d.cfg.CallTimeout)
		defer cancel()
		stored, outcome, err := w.d.ports.Records.UpdateStatus(ctx, next)
		if outcome != handoff.OK {
			w.log.Debug("how far the transfer is was not written", "outcome", string(outcome), "err", err)
			return letter{handoff.Event{Kind: handoff.Tick}, func() { w.told = false }}
		}
		return letter{handoff.Event{Kind: handoff.Seen, Record: RecordOf(stored)}, func() { w.told = false; w.keep(stored) }}
	})
}
