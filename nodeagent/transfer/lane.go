package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/s2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// job makes one message; there is called once the target has verified it. No message: there
// was nothing to say.
type job struct {
	make  func(*lane) (*agentv1.PutRequest, error)
	there func()
}

// lanes are calls of Put, each on a connection of its own, that share jobs.
type lanes struct {
	// total is how many bytes of images they have declared.
	total  uint64
	jobs   chan job
	ctx    context.Context
	cancel context.CancelFunc
	group  *errgroup.Group
}

// lane is one of them.
type lane struct {
	session *session
	stream  agentv1.Peer_PutClient
	// chunk holds what was read, packed what of it is sent, scratch that compressed. They are
	// used again for every message: Send encodes it before it returns, and no stats handler
	// that might look later is set.
	chunk, packed, scratch []byte
}

func (x *session) newLanes(total uint64) *lanes {
	l := &lanes{total: total, jobs: make(chan job)}
	ctx, cancel := context.WithCancel(x.ctx)
	l.cancel = cancel
	l.group, l.ctx = errgroup.WithContext(ctx)
	return l
}

// open begins calls that may carry so many bytes.
func (x *session) open(total, ahead uint64) *lanes {
	l := x.newLanes(total)
	for i := range x.sender.streams(total) {
		l.group.Go(func() error {
			conn := x.control
			if i > 0 {
				var err error
				if conn, err = x.sender.dial(x.move, x.address); err != nil {
					return err
				}
				defer conn.Close()
			}
			return x.lane(l, conn, x.begin(total, ahead))
		})
	}
	return l
}

// readers do jobs of which nothing is sent.
func (x *session) readers() *lanes {
	l := x.newLanes(0)
	for range x.sender.streams(64 * worth) {
		l.group.Go(func() error {
			a := x.newLane(nil)
			for j := range l.all() {
				if _, err := j.make(a); err != nil {
					return err
				}
			}
			return l.ctx.Err()
		})
	}
	return l
}

// all gives jobs until there are no more, or one of the lanes has failed.
func (l *lanes) all() func(yield func(job) bool) {
	return func(yield func(job) bool) {
		for {
			select {
			case j, ok := <-l.jobs:
				if !ok || !yield(j) {
					return
				}
			case <-l.ctx.Done():
				return
			}
		}
	}
}

// put hands a job to the next lane that is free. An error says only that they have failed:
// close tells why.
func (l *lanes) put(j job) error {
	select {
	case l.jobs <- j:
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

// close returns when the target has verified all, or why it has not.
func (l *lanes) close() error {
	close(l.jobs)
	defer l.cancel()
	return l.group.Wait()
}

func (x *session) newLane(stream agentv1.Peer_PutClient) *lane {
	return &lane{session: x, stream: stream, chunk: make([]byte, chunkSize), packed: make([]byte, chunkSize)}
}

func (x *session) lane(l *lanes, conn *grpc.ClientConn, begin *agentv1.Begin) error {
	// An early return must end the call too.
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	stream, err := agentv1.NewPeerClient(conn).Put(ctx)
	if err != nil {
		return err
	}
	a := x.newLane(stream)
	if err := a.send(&agentv1.PutRequest{Part: &agentv1.PutRequest_Begin{Begin: begin}}); err != nil {
		return err
	}
	var there []func()
	for j := range l.all() {
		req, err := j.make(a)
		if err == nil && req != nil {
			err = a.send(req)
		}
		if err != nil {
			return err
		}
		if req != nil {
			there = append(there, j.there)
		}
	}
	if err := l.ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return err
	}
	for _, f := range there {
		f()
	}
	return nil
}

// send says one message and notes how long the link took for it.
func (a *lane) send(req *agentv1.PutRequest) error {
	x, n := a.session, carried(req)
	began := time.Now()
	err := a.stream.Send(req)
	if errors.Is(err, io.EOF) { // the target has ended the call, and only the answer tells why
		if _, err = a.stream.CloseAndRecv(); err == nil {
			err = errors.New("the target confirms before it has everything")
		}
	}
	if err != nil {
		return err
	}
	x.pace.sent(n, time.Since(began))
	x.count.wire.Add(uint64(n))
	x.sender.Metrics.wire(sent, n)
	return nil
}

// carried is how many bytes a message takes.
func carried(req *agentv1.PutRequest) int { return proto.Size(req) }

// pack compresses data, if that pays.
func (a *lane) pack(data []byte) (agentv1.Codec, []byte) {
	pace := &a.session.pace
	codec := pace.choose()
	if codec == agentv1.Codec_RAW || len(data) == 0 {
		return agentv1.Codec_RAW, data
	}
	if a.scratch == nil {
		a.scratch = make([]byte, s2.MaxEncodedLen(int(chunkSize)))
	}
	began := time.Now()
	out := encode(codec, data, a.scratch)
	pace.compressed(codec, len(data), len(out), time.Since(began))
	if len(out) >= len(data) {
		return agentv1.Codec_RAW, data
	}
	return codec, out
}

// chunkJob reads a chunk of a file and sends it.
type chunkJob struct {
	session *session
	path    string
	image   image
	file    *goingFile
	index   uint64
	// final: the dump is complete, and the file has to be as it was listed.
	final bool
	// quiet: the target has it, and only its digest is wanted.
	quiet bool
}

func (j chunkJob) job() job {
	return job{make: j.message, there: func() {
		j.session.change(j.file, j.index, func(c *goingChunk) { c.said, c.there = false, true })
	}}
}

func (j chunkJob) message(a *lane) (*agentv1.PutRequest, error) {
	size := min(chunkSize, j.image.size-j.index*chunkSize)
	data := a.chunk[:size]
	if err := j.read(data); err != nil {
		if !j.final { // it was only a guess
			j.session.change(j.file, j.index, func(c *goingChunk) { c.said = false })
			return nil, nil
		}
		return nil, err
	}
	m := &agentv1.Chunk{File: j.image.name, Offset: j.index * chunkSize, Size: uint32(size)}
	rest, sum := a.sift(m, data)
	j.session.change(j.file, j.index, func(c *goingChunk) { c.sum, c.read = sum, true })
	x := j.session
	x.count.done.Add(size)
	if j.quiet {
		return nil, nil
	}
	m.Sha256 = sum[:]
	m.Codec, m.Data = a.pack(rest)
	x.sender.Metrics.add(sent, int(size))
	return &agentv1.PutRequest{Part: &agentv1.PutRequest_Chunk{Chunk: m}}, nil
}

func (j chunkJob) read(b []byte) error {
	dir, err := openDir(j.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, size, err := openRegular(dir, j.image.name)
	if err != nil {
		return err
	}
	defer f.Close()
	id, err := idOf(f)
	switch {
	case err != nil:
		return err
	case id != j.image.id || j.final && size != j.image.size:
		return fmt.Errorf("%s has changed, from %d to %d bytes: is its dump complete?", f.Name(), j.image.size, size)
	}
	if _, err := f.ReadAt(b, int64(j.index*chunkSize)); err != nil {
		// No io.EOF: that would say that the target has ended the call.
		return fmt.Errorf("read %d bytes at %d of %s: %v", len(b), j.index*chunkSize, f.Name(), err)
	}
	return nil
}

// sift notes which blocks of a chunk need not be sent, and gives the others and the digest
// of all.
func (a *lane) sift(m *agentv1.Chunk, data []byte) ([]byte, digest) {
	n := blocksOf(len(data))
	zero, known, sums := newBitmap(n), newBitmap(n), make([]digest, n)
	zeros := 0
	for i := range n {
		b := blockAt(data, i)
		var none bool
		sums[i], none = leaf(b)
		switch {
		case none:
			zero.set(i)
			zeros++
		case len(b) == block && a.session.known(sums[i]):
			known.set(i)
			m.Digests = append(m.Digests, sums[i][:]...)
		}
	}
	if zeros > 0 {
		m.Zero = zero
	}
	if len(m.Digests) > 0 {
		m.Known = known
	}
	if m.Zero == nil && m.Known == nil {
		return data, root(sums)
	}
	rest := a.packed[:0]
	for i := range n {
		if !zero.has(i) && !known.has(i) {
			rest = append(rest, blockAt(data, i)...)
		}
	}
	return rest, root(sums)
}
