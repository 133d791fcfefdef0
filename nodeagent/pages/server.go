// Package pages brings memory that the images of a move lack from the source's agent to the
// target's: the gRPC service Memory over mutual TLS. What is asked for is asked for again until it
// comes, or the source says that it is lost; so a call holds nothing, on either side.
package pages

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/refusals"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// ErrRefused says that the record of a move does not allow its memory to be read.
var ErrRefused = errors.New("the move does not allow it")

// ErrOver is an ErrRefused of a move whose record is settled, or gone.
var ErrOver = fmt.Errorf("%w: it is over", ErrRefused)

// Admission knows the records of moves.
type Admission interface {
	// Admit reads the record of a move from the API server itself, and gives the move if it is a
	// post-copy that is neither aborted nor returned nor loaded. An error that wraps ErrRefused says
	// that it is not, ErrOver that it never will be again; any other that it is not known. It may be called from several goroutines.
	Admit(ctx context.Context, namespace, name string) (migrate.Move, error)
}

// Server serves Memory. Fill in all but Refusals and Log, then Register.
type Server struct {
	agentv1.UnimplementedMemoryServer
	// Node is this one.
	Node      string
	Admission Admission
	// Held fills b with memory of a container that this node holds, by its name; checkpoint.Dumps.Pages fits.
	Held func(m migrate.Move, container string, r lazypages.Range, b []byte) error
	// Holds tells whether there is anything of a move on this node, by its UID and Epoch; checkpoint.Dumps.Holds fits.
	Holds func(migrate.Move) (bool, error)
	// Refusals may be nil.
	Refusals *refusals.Counter
	// Log may be nil.
	Log *slog.Logger

	mu sync.Mutex
	// admitted are the moves whose records were read, until their memory is not held any more.
	admitted map[key]migrate.Move
	said     time.Time
	// reads are under way, 1 MiB each at most.
	reads int
}

// mostReads is how many reads may be under way: an agent asks for one thing after another for each of its copies.
const mostReads = 16

// saying is how often it is said that memory was not given, at most: it is asked for many times a second.
const saying = 10 * time.Second

func (s *Server) toSay() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.said) < saying {
		return false
	}
	s.said = time.Now()
	return true
}

// key is a move, and who may read its memory.
type key struct {
	uid    string
	epoch  uint64
	caller string
}

// Register adds the service to a server that authenticates its callers by identity.Keeper.ServerConfig.
func (s *Server) Register(r grpc.ServiceRegistrar) { agentv1.RegisterMemoryServer(r, s) }

// Read implements agentv1.MemoryServer.
func (s *Server) Read(ctx context.Context, q *agentv1.ReadRequest) (*agentv1.ReadResponse, error) {
	b, err := s.read(ctx, q)
	if err == nil {
		return &agentv1.ReadResponse{Memory: b}, nil
	}
	code := codes.Unavailable
	switch {
	case errors.Is(err, lazypages.ErrLost):
		code = codes.DataLoss
	case errors.Is(err, ErrRefused):
		code = codes.PermissionDenied
		s.Refusals.Count(refusals.Images)
	}
	if s.Log != nil && s.toSay() {
		s.Log.Warn("memory was not given", "migration", q.GetNamespace()+"/"+q.GetMigration(), "container", q.GetContainer(), "err", err)
	}
	return nil, status.Error(code, fmt.Sprintf("node %s: %v", s.Node, err))
}

func (s *Server) read(ctx context.Context, q *agentv1.ReadRequest) ([]byte, error) {
	caller, err := identity.PeerNode(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	r := lazypages.Range{Process: q.GetProcess(), Address: q.GetAddress(), Size: q.GetSize()}
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	k := key{q.GetMigrationUid(), q.GetEpoch(), string(caller)}
	m, err := s.admit(ctx, k, q.GetNamespace(), q.GetMigration())
	if errors.Is(err, ErrOver) {
		if holds, herr := s.Holds(migrate.Move{UID: k.uid, Epoch: int64(k.epoch)}); herr == nil && !holds {
			err = fmt.Errorf("%w: %w", lazypages.ErrLost, err)
		}
	}
	if err != nil {
		return nil, err
	}
	if !s.begin() {
		return nil, fmt.Errorf("%d reads of memory are under way, no more at once", mostReads)
	}
	defer s.end()
	b := make([]byte, r.Size)
	if err := s.Held(m, q.GetContainer(), r, b); err != nil {
		if errors.Is(err, lazypages.ErrLost) {
			s.forget(k)
		}
		return nil, err
	}
	return b, nil
}

// begin tells whether there may be one read more.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reads == mostReads {
		return false
	}
	s.reads++
	return true
}

func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads--
}

// admit reads the record once: what may be read is held, for this move alone, and is not held any
// more when the move is over.
func (s *Server) admit(ctx context.Context, k key, namespace, name string) (migrate.Move, error) {
	s.mu.Lock()
	m, ok := s.admitted[k]
	s.mu.Unlock()
	if ok {
		return m, nil
	}
	m, err := s.Admission.Admit(ctx, namespace, name)
	switch {
	case err != nil:
		return m, fmt.Errorf("record of migration %s/%s: %w", namespace, name, err)
	case m.UID != k.uid || uint64(m.Epoch) != k.epoch:
		return m, fmt.Errorf("%w: migration %s/%s is %s of epoch %d, not %s of epoch %d", ErrRefused, namespace, name, m.UID, m.Epoch, k.uid, k.epoch)
	case m.Source.Node != s.Node || m.Target.Node != k.caller:
		return m, fmt.Errorf("%w: migration %s/%s goes from node %q to %q, not from %q to %q", ErrRefused, namespace, name, m.Source.Node, m.Target.Node, s.Node, k.caller)
	case !m.PostCopy:
		return m, fmt.Errorf("%w: migration %s/%s is no post-copy", ErrRefused, namespace, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.admitted == nil {
		s.admitted = map[key]migrate.Move{}
	}
	s.admitted[k] = m
	return m, nil
}

func (s *Server) forget(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.admitted, k)
}
