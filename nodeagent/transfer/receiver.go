package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/validation"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/processors"
	"github.com/drover-project/drover/internal/refusals"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Admission knows the records of moves.
type Admission interface {
	// Admit reads the record that begin names, from the API server itself, and gives the
	// move if it is undecided. An error that wraps ErrRefused says that it is not; any other
	// that it is not known. Admit need not compare begin and caller with the move: the
	// Receiver does. It may be called from several goroutines. See ByRecord.
	Admit(ctx context.Context, caller string, begin *agentv1.Begin) (migrate.Move, error)
}

// Arrivals hears of complete images; migrate.Driver fits.
type Arrivals interface {
	// ImagesComplete returns at once. It may be called again for the same images.
	ImagesComplete(migrationUID string)
}

// Receiver serves Peer. Fill in Node, Store, Admission and Arrivals, then Register.
type Receiver struct {
	agentv1.UnimplementedPeerServer
	// Node is this one.
	Node string
	// Store takes the images.
	Store     *Store
	Admission Admission
	Arrivals  Arrivals
	// MaxBytes is how much one move may have at most. Default 1 TiB; the room that the Store
	// has is a limit anyway.
	MaxBytes model.Bytes
	// Idle is how long a sender may say nothing. Default 2 minutes.
	Idle time.Duration
	// Metrics, Refusals and Log may be nil.
	Metrics  *Metrics
	Refusals *refusals.Counter
	Log      *slog.Logger

	calls sync.WaitGroup
}

// Register adds the service to a server that was made with ServerOptions.
func (r *Receiver) Register(s grpc.ServiceRegistrar) { agentv1.RegisterPeerServer(s, r) }

// Wait returns when nothing is being received any more. Call it after the server stopped.
func (r *Receiver) Wait() { r.calls.Wait() }

// requests is the receiving half of a stream.
type requests interface {
	// Recv gives the next message, or io.EOF when the sender has said all.
	Recv() (*agentv1.PutRequest, error)
}

// Put implements agentv1.PeerServer.
func (r *Receiver) Put(stream agentv1.Peer_PutServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	// Recv ends only when this method has returned; for a call to end before its sender
	// has said anything, something else must wait in Recv.
	done := make(chan error, 1)
	r.calls.Add(1)
	go func() {
		defer r.calls.Done()
		defer processors.Use()()
		done <- r.put(ctx, cancel, stream)
	}()
	select {
	case err := <-done:
		if err != nil {
			return r.failed(ctx, err)
		}
		return stream.SendAndClose(&agentv1.PutResponse{})
	case <-ctx.Done():
		return r.failed(ctx, context.Cause(ctx))
	}
}

// Have implements agentv1.PeerServer.
func (r *Receiver) Have(ctx context.Context, req *agentv1.HaveRequest) (answer *agentv1.HaveResponse, err error) {
	err = r.unary(ctx, req.GetBegin(), func(c *call) error {
		co, kept, err := r.Store.find(c)
		answer = &agentv1.HaveResponse{Complete: kept}
		if co != nil && !kept {
			answer.Files = co.have()
		}
		return err
	})
	return answer, err
}

// Complete implements agentv1.PeerServer.
func (r *Receiver) Complete(ctx context.Context, req *agentv1.CompleteRequest) (*agentv1.CompleteResponse, error) {
	err := r.unary(ctx, req.GetBegin(), func(c *call) error { return r.complete(c, req) })
	if err != nil {
		return nil, err
	}
	r.Arrivals.ImagesComplete(req.GetBegin().GetMigrationUid())
	return &agentv1.CompleteResponse{Bytes: req.GetBegin().GetTotalBytes()}, nil
}

func (r *Receiver) complete(c *call, req *agentv1.CompleteRequest) error {
	m, err := checkManifest(req.GetFiles(), req.GetBegin().GetTotalBytes())
	co, kept, ferr := r.Store.find(c)
	switch {
	case ferr != nil:
		return ferr
	case err == nil && kept && r.Store.same(c.name, m):
		return nil
	case err == nil && kept:
		return compare(filepath.Join(r.Store.Dir, c.name), m)
	case err == nil && co == nil:
		return refuse(incomplete, "nothing of the images has come")
	case err == nil:
		err = co.complete(m)
	}
	if err == nil {
		return r.Store.finish(c, m)
	}
	if co != nil {
		r.spoiled(co, err)
	}
	return err
}

// unary is a call of one message.
func (r *Receiver) unary(ctx context.Context, b *agentv1.Begin, f func(*call) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.calls.Add(1)
	defer r.calls.Done()
	defer processors.Use()()
	caller, err := identity.PeerNode(ctx)
	if err != nil {
		return r.failed(ctx, refuse(byCaller, "%w", err))
	}
	if err := r.entered(ctx, cancel, string(caller), b, f); err != nil {
		return r.failed(ctx, err)
	}
	return nil
}

// entered calls f once the call is known to the Store and admitted.
func (r *Receiver) entered(ctx context.Context, cancel context.CancelCauseFunc, caller string, b *agentv1.Begin, f func(*call) error) error {
	name, err := r.check(b)
	if err != nil {
		return err
	}
	c := r.Store.enter(name, cancel)
	defer r.Store.leave(c)
	if !r.Store.admitted(name, caller, b) {
		if err := r.admit(ctx, caller, b); err != nil {
			return err
		}
	}
	return f(c)
}

// failed tells the sender, and this node's log, since only the other node gets the answer.
func (r *Receiver) failed(ctx context.Context, err error) error {
	// What Recv says after a cancel is not the reason.
	if cause := context.Cause(ctx); cause != nil && errors.As(cause, new(*refusal)) {
		err = cause
	}
	caller, _ := identity.PeerNode(ctx)
	if r.Log != nil {
		r.Log.Warn("images not received", "from", string(caller), "err", err)
	}
	var no *refusal
	if !errors.As(err, &no) {
		return status.Error(codes.Canceled, fmt.Sprintf("node %s lost the connection: %v", r.Node, err))
	}
	r.Metrics.refuse(no.reason)
	if what, ok := dishonest[no.reason]; ok {
		r.Refusals.Count(what)
	}
	return status.Error(statusCodes[no.reason], fmt.Sprintf("node %s does not take the images: %v", r.Node, no))
}

func (r *Receiver) put(ctx context.Context, cancel context.CancelCauseFunc, in requests) error {
	caller, err := identity.PeerNode(ctx)
	if err != nil {
		return refuse(byCaller, "%w", err)
	}
	return r.receive(ctx, cancel, string(caller), in)
}

// receive is a whole call.
func (r *Receiver) receive(ctx context.Context, cancel context.CancelCauseFunc, caller string, in requests) error {
	idle := r.Idle
	if idle == 0 {
		idle = 2 * time.Minute
	}
	timer := time.AfterFunc(idle, func() { cancel(refuse(silent, "nothing came for %v", idle)) })
	defer timer.Stop()
	next := func() (*agentv1.PutRequest, error) {
		timer.Reset(idle)
		defer timer.Stop()
		return in.Recv()
	}
	first, err := next()
	if errors.Is(err, io.EOF) {
		return refuse(misuse, "the sender says nothing")
	}
	if err != nil {
		return err
	}
	begin := first.GetBegin()
	return r.entered(ctx, cancel, caller, begin, func(c *call) error {
		co, err := r.Store.join(c, caller, begin)
		if err != nil {
			return err
		}
		err = r.parts(ctx, co, next)
		if err != nil {
			r.spoiled(co, err)
		}
		return err
	})
}

// parts takes messages until the sender has said all.
func (r *Receiver) parts(ctx context.Context, co *coming, next func() (*agentv1.PutRequest, error)) error {
	for {
		req, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := co.part(req)
		if err != nil {
			return err
		}
		r.Metrics.add(received, n)
		r.Metrics.wire(received, carried(req))
	}
}

// spoiled takes away what a sender brought that did what it must not. A connection that was
// cut, or a call that was ended by somebody else, is none of it.
func (r *Receiver) spoiled(co *coming, err error) {
	var no *refusal
	if errors.As(err, &no) && spoils[no.reason] {
		r.Store.spoil(co, err)
	}
}

// check looks at the first message alone and gives the name of the directory.
func (r *Receiver) check(b *agentv1.Begin) (string, error) {
	limit := r.MaxBytes
	if limit == 0 {
		limit = 1024 * model.GiB
	}
	if b == nil {
		return "", refuse(misuse, "no begin says which move it is")
	}
	bad := append(validation.IsDNS1123Label(b.GetNamespace()), validation.IsDNS1123Subdomain(b.GetMigration())...)
	name, err := layout.MoveDir(b.GetMigrationUid(), b.GetEpoch())
	switch {
	case len(bad) > 0:
		return "", refuse(misuse, "%.64q/%.256q names no migration: %s", b.GetNamespace(), b.GetMigration(), bad[0])
	case err != nil:
		return "", refuse(misuse, "%w", err)
	case b.GetTotalBytes() > uint64(limit):
		return "", refuse(tooMuch, "%d bytes, more than the %d that are taken at most", b.GetTotalBytes(), limit)
	case b.GetAheadBytes() > uint64(min(limit, MostAhead)):
		return "", refuse(tooMuch, "%d bytes ahead of images, more than the %d that are taken at most", b.GetAheadBytes(), min(limit, MostAhead))
	}
	return name, nil
}

// admit asks the record and compares.
func (r *Receiver) admit(ctx context.Context, caller string, b *agentv1.Begin) error {
	id := b.GetNamespace() + "/" + b.GetMigration()
	m, err := r.Admission.Admit(ctx, caller, b)
	switch {
	case errors.Is(err, ErrRefused):
		return refuse(byRecord, "migration %s: %w", id, err)
	case err != nil:
		return refuse(unknown, "migration %s: read its record: %w", id, err)
	case m.Namespace != b.GetNamespace() || m.Name != b.GetMigration():
		return refuse(byRecord, "migration %s is not %s/%s", id, m.Namespace, m.Name)
	case m.UID != b.GetMigrationUid():
		return refuse(byRecord, "migration %s has UID %q, not %q", id, m.UID, b.GetMigrationUid())
	case m.Epoch < 0 || uint64(m.Epoch) != b.GetEpoch():
		return refuse(byRecord, "migration %s has epoch %d, not %d", id, m.Epoch, b.GetEpoch())
	case caller == "" || m.Source.Node != caller:
		return refuse(byRecord, "migration %s comes from node %q, not from %q", id, m.Source.Node, caller)
	case r.Node == "" || m.Target.Node != r.Node:
		return refuse(byRecord, "migration %s goes to node %q, not to %q", id, m.Target.Node, r.Node)
	}
	return nil
}
