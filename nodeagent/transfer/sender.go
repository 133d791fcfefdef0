package transfer

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Sender brings images to other nodes. Fill in Address and TLS. It is safe for use by
// several goroutines, but one move is one goroutine's.
type Sender struct {
	// Address gives "host:port" of a node's agent; the port is Port.
	Address func(node string) (string, error)
	// TLS gives the configuration for calling one node's agent and no other;
	// identity.Keeper.ClientConfig fits.
	TLS func(node model.NodeID) *tls.Config
	// Streams is over how many connections images go at once. Default: as many as there are
	// processors, 4 at most.
	Streams int
	// Patience is for how long Send tries without anything that gets there: the pod stands
	// frozen meanwhile. Default 10 s, which an agent needs to come back.
	Patience time.Duration
	// Metrics and Log may be nil.
	Metrics *Metrics
	Log     *slog.Logger

	// lost hears why a connection was lost, before the next try. May be nil.
	lost func(error)

	mu       sync.Mutex
	sessions map[string]*session
}

var _ migrate.Sender = (*Sender)(nil)

// The pauses between tries grow from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// Send implements migrate.Sender. When the connection is lost it sends again what is missing,
// until ctx ends, or nothing gets there any more. dir holds plain files only. It goes on
// from what Follow and Ahead have sent.
func (s *Sender) Send(ctx context.Context, m migrate.Move, dir string) (migrate.Progress, error) {
	x, err := s.session(m)
	if err != nil {
		return migrate.Progress{}, fmt.Errorf("send images %s to node %s: %w", dir, m.Target.Node, err)
	}
	defer s.Drop(m)
	stop := context.AfterFunc(ctx, x.cancel)
	defer stop()
	if err := x.send(ctx, dir); err != nil {
		return migrate.Progress{}, fmt.Errorf("send images %s to node %s at %s: %w", dir, m.Target.Node, x.address, err)
	}
	return x.count.progress(time.Now()), nil
}

// Drop ends what is being sent of a move and forgets it.
func (s *Sender) Drop(m migrate.Move) {
	name, err := moveDir(m)
	if err != nil {
		return
	}
	s.mu.Lock()
	x := s.sessions[name]
	delete(s.sessions, name)
	s.mu.Unlock()
	if x != nil {
		x.close()
	}
}

// session gives that of a move, made anew if there is none.
func (s *Sender) session(m migrate.Move) (*session, error) {
	address, err := s.Address(m.Target.Node)
	if err != nil {
		return nil, err
	}
	name, err := moveDir(m)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.sessions[name]; x != nil {
		return x, nil
	}
	x, err := newSession(s, m, address)
	if err != nil {
		return nil, err
	}
	if s.sessions == nil {
		s.sessions = map[string]*session{}
	}
	s.sessions[name] = x
	return x, nil
}

// passes tells that a try failed for what may be over soon: a lost connection, a target whose
// agent restarts, an API server that it cannot ask, or that it has not what was thought.
func passes(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.FailedPrecondition:
		return true
	}
	return false
}

func (s *Sender) dial(m migrate.Move, address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(s.TLS(model.NodeID(m.Target.Node)))),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: alive, Timeout: alive}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: alive, Backoff: backoff.Config{
			BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: lastPause,
		}}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(int(maxMessage))),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
}

// worth is how much a stream more has to have to do for its handshake.
const worth = uint64(4 * model.MiB)

func (s *Sender) streams(bytes uint64) int {
	n := s.Streams
	if n <= 0 {
		n = min(4, runtime.NumCPU())
	}
	return int(min(uint64(n), bytes/worth+1))
}

func beginOf(m migrate.Move) (*agentv1.Begin, error) {
	if m.Epoch < 0 {
		return nil, fmt.Errorf("epoch %d is negative", m.Epoch)
	}
	if _, err := layout.MoveDir(m.UID, uint64(m.Epoch)); err != nil {
		return nil, err
	}
	return &agentv1.Begin{Namespace: m.Namespace, Migration: m.Name, MigrationUid: m.UID, Epoch: uint64(m.Epoch)}, nil
}
