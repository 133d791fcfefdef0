package pages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"

	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/refusals"
	"github.com/drover-project/drover/nodeagent/migrate"
	"github.com/drover-project/drover/nodeagent/transfer"
)

var page = uint64(os.Getpagesize())

var testMove = migrate.Move{
	Namespace: "default", Name: "web-1", UID: "uid-1", Epoch: 3, PostCopy: true,
	Source: migrate.Pod{Node: "a"}, Target: migrate.Pod{Node: "b"},
}

// record is what the API server says; read counts how often it was asked.
type record struct {
	mu   sync.Mutex
	move migrate.Move
	err  error
	read int
}

func (r *record) Admit(_ context.Context, namespace, name string) (migrate.Move, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read++
	if namespace != r.move.Namespace || name != r.move.Name {
		return migrate.Move{}, fmt.Errorf("%w: no such record", ErrRefused)
	}
	return r.move, r.err
}

// source is node a, with its server.
type source struct {
	record  record
	ca      *identitytest.Authority
	address string
	stop    func()
	held    error
	holds   bool
	// refused counts; reading, if there is one, is called by each read.
	refused *refusals.Counter
	reading func()
}

// held gives memory that tells whose and from where it is.
func content(container string, r lazypages.Range) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%-32s", fmt.Sprintf("%s %d %x", container, r.Process, r.Address))), int(r.Size/32))
}

func newSource(t *testing.T) *source {
	t.Helper()
	x := &source{record: record{move: testMove}, refused: refusals.New(), ca: identitytest.NewAuthority(t)}
	x.serve(t, "127.0.0.1:0")
	return x
}

func (x *source) serve(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	x.address = l.Addr().String()
	server := grpc.NewServer(transfer.ServerOptions(x.ca.Keeper(t, x.ca.Node(t, "a")).ServerConfig())...)
	s := &Server{Node: "a", Refusals: x.refused, Admission: &x.record, Held: func(m migrate.Move, container string, r lazypages.Range, b []byte) error {
		if m.UID != testMove.UID {
			t.Errorf("asked for %+v", m)
		}
		if x.reading != nil {
			x.reading()
		}
		copy(b, content(container, r))
		return x.held
	}}
	s.Holds = func(m migrate.Move) (bool, error) {
		return x.holds && m.UID == testMove.UID && m.Epoch == testMove.Epoch, nil
	}
	s.Register(server)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	x.stop = func() { server.Stop(); wg.Wait() }
	t.Cleanup(x.stop)
}

func (x *source) client(t *testing.T, node model.NodeID) *Client {
	t.Helper()
	c := &Client{Address: func(string) (string, error) { return x.address, nil }, TLS: x.ca.Keeper(t, x.ca.Node(t, node)).ClientConfig}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestRead(t *testing.T) {
	x := newSource(t)
	c := x.client(t, "b")
	for _, r := range []lazypages.Range{{Process: 1, Address: 0x7f0000000000, Size: page}, {Process: 7, Address: page, Size: lazypages.MostAtOnce}} {
		b := make([]byte, r.Size)
		if err := c.Read(t.Context(), testMove, "main", r, b); err != nil || !bytes.Equal(b, content("main", r)) {
			t.Errorf("%+v: %v, or other memory", r, err)
		}
	}
	if x.record.read != 1 {
		t.Errorf("the record was read %d times, want once", x.record.read)
	}
}

// TestLost: that memory is lost is told apart from everything that may pass.
func TestLost(t *testing.T) {
	x := newSource(t)
	c := x.client(t, "b")
	r, b := lazypages.Range{Process: 1, Address: page, Size: page}, make([]byte, page)
	x.held = errors.New("no time")
	if err := c.Read(t.Context(), testMove, "main", r, b); err == nil || errors.Is(err, lazypages.ErrLost) {
		t.Errorf("got %v, want an error that may pass", err)
	}
	x.held = fmt.Errorf("%w: the process has ended", lazypages.ErrLost)
	if err := c.Read(t.Context(), testMove, "main", r, b); !errors.Is(err, lazypages.ErrLost) || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("got %v, want that it is lost", err)
	}
	x.held, x.record.err = nil, errors.New("the API server is away")
	if err := c.Read(t.Context(), testMove, "main", r, b); err == nil || errors.Is(err, lazypages.ErrLost) {
		t.Errorf("got %v, want that the record is not known", err)
	}
	x.record.err = nil
	if err := c.Read(t.Context(), testMove, "main", r, b); err != nil {
		t.Errorf("asked again: %v", err)
	}
}

// TestOver: what a move that is over had is lost when nothing of it is left.
func TestOver(t *testing.T) {
	x := newSource(t)
	c := x.client(t, "b")
	r, b := lazypages.Range{Process: 1, Address: page, Size: page}, make([]byte, page)
	x.record.err, x.holds = fmt.Errorf("%w: aborted", ErrOver), true
	if err := c.Read(t.Context(), testMove, "main", r, b); err == nil || errors.Is(err, lazypages.ErrLost) {
		t.Errorf("still held: got %v, want a refusal", err)
	}
	x.holds = false
	if err := c.Read(t.Context(), testMove, "main", r, b); !errors.Is(err, lazypages.ErrLost) {
		t.Errorf("got %v, want that it is lost", err)
	}
	x.record.err = ErrRefused
	if err := c.Read(t.Context(), testMove, "main", r, b); err == nil || errors.Is(err, lazypages.ErrLost) {
		t.Errorf("not yet allowed: got %v, want a refusal", err)
	}
}

// TestReadsAtOnce: no more than so many reads take memory at once; who comes later may ask again.
func TestReadsAtOnce(t *testing.T) {
	x := newSource(t)
	reads, free := make(chan struct{}), make(chan struct{})
	x.reading = func() { reads <- struct{}{}; <-free }
	r := lazypages.Range{Process: 1, Address: page, Size: page}
	ended := make(chan error, mostReads)
	for range mostReads {
		c := x.client(t, "b") // a connection has only so many calls at once
		go func() { ended <- c.Read(t.Context(), testMove, "main", r, make([]byte, page)) }()
		<-reads
	}
	if err := x.client(t, "b").Read(t.Context(), testMove, "main", r, make([]byte, page)); err == nil || errors.Is(err, lazypages.ErrLost) {
		t.Errorf("one more: got %v, want an error that may pass", err)
	}
	close(free)
	for range mostReads {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestSourceReturns: an agent that is away is no loss, and found again.
func TestSourceReturns(t *testing.T) {
	x := newSource(t)
	c := x.client(t, "b")
	r, b := lazypages.Range{Process: 1, Address: page, Size: page}, make([]byte, page)
	if err := c.Read(t.Context(), testMove, "main", r, b); err != nil {
		t.Fatal(err)
	}
	x.stop()
	if err := c.Read(t.Context(), testMove, "main", r, b); err == nil || errors.Is(err, lazypages.ErrLost) {
		t.Errorf("got %v, want an error that may pass", err)
	}
	x.serve(t, x.address)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for c.Read(ctx, testMove, "main", r, b) != nil {
		if ctx.Err() != nil {
			t.Fatal("it is not found again")
		}
	}
}

// TestRefused: memory is given to the agent of the node that the pod goes to, for that move, and to nobody else.
func TestRefused(t *testing.T) {
	r := lazypages.Range{Process: 1, Address: page, Size: page}
	for what, c := range map[string]struct {
		caller model.NodeID
		asked  func(*migrate.Move)
		record func(*migrate.Move)
		r      lazypages.Range
	}{
		"another node":       {"c", nil, nil, r},
		"the source itself":  {"a", nil, nil, r},
		"another move":       {"b", func(m *migrate.Move) { m.UID = "uid-2" }, nil, r},
		"another epoch":      {"b", func(m *migrate.Move) { m.Epoch = 4 }, nil, r},
		"no such record":     {"b", func(m *migrate.Move) { m.Name = "web-2" }, nil, r},
		"no post-copy":       {"b", nil, func(m *migrate.Move) { m.PostCopy = false }, r},
		"from another node":  {"b", nil, func(m *migrate.Move) { m.Source.Node = "c" }, r},
		"half a page":        {"b", nil, nil, lazypages.Range{Process: 1, Address: 1, Size: page}},
		"too much at once":   {"b", nil, nil, lazypages.Range{Process: 1, Address: page, Size: lazypages.MostAtOnce + page}},
		"nothing of nothing": {"b", nil, nil, lazypages.Range{}},
	} {
		t.Run(what, func(t *testing.T) {
			x := newSource(t)
			m := testMove
			if c.asked != nil {
				c.asked(&m)
			}
			if c.record != nil {
				c.record(&x.record.move)
			}
			b := make([]byte, c.r.Size)
			err := x.client(t, c.caller).Read(t.Context(), m, "main", c.r, b)
			if err == nil || !strings.Contains(err.Error(), ErrRefused.Error()) || errors.Is(err, lazypages.ErrLost) {
				t.Errorf("got %v, want a refusal", err)
			}
			if n := testutil.ToFloat64(x.refused.WithLabelValues(string(refusals.Images))); n != 1 {
				t.Errorf("counted %v times, want once", n)
			}
			if !bytes.Equal(b, make([]byte, len(b))) {
				t.Error("memory was given all the same")
			}
		})
	}
}
