package lazypages

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

// pause is the time between two tries of what nothing tells of.
const pause = 20 * time.Millisecond

// Read fills b with the memory of a range. An ErrLost is told to the daemon, which ends, and the
// copy with it; after any other error it is tried again.
type Read func(ctx context.Context, r Range, b []byte) error

// Feed connects to a relay, which may be yet to come, and gives it what it asks for, until ctx ends.
func Feed(ctx context.Context, socket string, read Read) {
	f := feeder{read: read}
	for ctx.Err() == nil {
		var d net.Dialer
		if c, err := d.DialContext(ctx, "unix", socket); err == nil {
			f.serve(ctx, c) // a relay that is still there when this ends waits for the next
		}
		wait(ctx)
	}
}

func wait(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	<-short.Done()
}

type feeder struct {
	read   Read
	buffer []byte
}

// serve answers a relay until the connection ends.
func (f *feeder) serve(ctx context.Context, relay net.Conn) {
	stop := context.AfterFunc(ctx, func() { relay.Close() })
	defer stop()
	defer relay.Close()
	for {
		var q [rangeSize]byte
		if _, err := io.ReadFull(relay, q[:]); err != nil {
			return
		}
		r := Range{Process: binary.NativeEndian.Uint64(q[0:]), Address: binary.NativeEndian.Uint64(q[8:]), Size: binary.NativeEndian.Uint64(q[16:])}
		if r.Check() != nil {
			return // it has checked that itself: this is no relay
		}
		if _, err := relay.Write(f.answer(ctx, r)); err != nil {
			return
		}
	}
}

// answer tries until there is one, or ctx ends.
func (f *feeder) answer(ctx context.Context, r Range) []byte {
	if need := 1 + int(r.Size); cap(f.buffer) < need {
		f.buffer = make([]byte, need)
	}
	b := f.buffer[:1+r.Size]
	b[0] = given
	for ctx.Err() == nil {
		err := f.read(ctx, r, b[1:])
		if err == nil {
			return b
		}
		if errors.Is(err, ErrLost) {
			const most = 255
			reason := err.Error()
			reason = reason[:min(len(reason), most)]
			return append([]byte{lost, byte(len(reason))}, reason...)
		}
		wait(ctx)
	}
	return nil
}
