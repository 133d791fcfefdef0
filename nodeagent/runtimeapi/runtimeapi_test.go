package runtimeapi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// players serve what the test gives them.
type players struct {
	await func(ctx context.Context, c Create, send func(Answer) error) error
	hold  func(ctx context.Context, h Hold) (bool, error)
	said  chan string
}

func (p *players) Await(ctx context.Context, c Create, send func(Answer) error) error {
	return p.await(ctx, c, send)
}
func (p *players) Restored(_, id string, _ int, message string)   { p.said <- id + ": " + message }
func (p *players) Hold(ctx context.Context, h Hold) (bool, error) { return p.hold(ctx, h) }

func serve(t *testing.T, p *players) agentv1.RuntimeClient {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the socket lets only root in")
	}
	socket := filepath.Join(t.TempDir(), "run", "agent.sock")
	// What a dead agent left must not be in the way.
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, socket, p)
	return dial(t, socket)
}

// run serves at socket until the test ends or stop is called.
func run(t *testing.T, socket string, p *players) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &Server{Socket: socket, Creates: p, Dumps: p, Restores: p}
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, socket string) agentv1.RuntimeClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return agentv1.NewRuntimeClient(conn)
}

func TestAwaitRestore(t *testing.T) {
	for _, answer := range []Answer{{Restore: "/images"}, {Refuse: "no"}, {Fresh: true}} {
		p := &players{await: func(ctx context.Context, c Create, send func(Answer) error) error {
			if c.Wrapper.PID != os.Getpid() || !c.Wrapper.Alive() || c.Deadline.UnixNano() != 5 {
				t.Errorf("got %+v", c)
			}
			if err := send(answer); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}}
		client := serve(t, p)
		ctx, cancel := context.WithCancel(context.Background())
		stream, err := client.AwaitRestore(ctx, &agentv1.AwaitRestoreRequest{PodUid: "u", ContainerId: "c", Pid: int32(os.Getpid()), DeadlineUnixNano: 5})
		if err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil || got.GetRestore() != answer.Restore || got.GetRefuse() != answer.Refuse || got.GetFresh() != answer.Fresh {
			t.Errorf("got %v, %v, want %+v", got, err, answer)
		}
		cancel()
	}
}

func TestBadRequests(t *testing.T) {
	client := serve(t, &players{})
	pid := int32(os.Getpid())
	for what, req := range map[string]*agentv1.AwaitRestoreRequest{
		"another's PID":  {PodUid: "u", ContainerId: "c", Pid: 1},
		"UID is a path":  {PodUid: "../u", ContainerId: "c", Pid: pid},
		"ID is a path":   {PodUid: "u", ContainerId: "a/b", Pid: pid},
		"nothing at all": {},
	} {
		stream, err := client.AwaitRestore(context.Background(), req)
		if err == nil {
			_, err = stream.Recv()
		}
		if c := status.Code(err); c != codes.InvalidArgument && c != codes.PermissionDenied {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if _, err := client.Hold(context.Background(), &agentv1.HoldRequest{Stage: "pre-dump"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another stage: got %v", err)
	}
}

// TestNoAnswerIsNone: an agent that cannot tell, or stops, never lets CRIU go on.
func TestNoAnswerIsNone(t *testing.T) {
	for _, err := range []error{errors.New("no disk"), context.Canceled} {
		client := serve(t, &players{hold: func(context.Context, Hold) (bool, error) { return false, err }})
		if _, err := client.Hold(context.Background(), &agentv1.HoldRequest{Stage: "post-dump"}); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want Unavailable", err)
		}
	}
}

func TestRestored(t *testing.T) {
	p := &players{said: make(chan string, 1)}
	client := serve(t, p)
	if _, err := client.Restored(context.Background(), &agentv1.RestoredRequest{ContainerId: "c", Error: "e"}); err != nil {
		t.Fatal(err)
	}
	if got := <-p.said; got != "c: e" {
		t.Errorf("got %q", got)
	}
}

// TestAgentsOverlap: the end of an old agent does not take the new one's socket away.
func TestAgentsOverlap(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the socket lets only root in")
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	agent := func(proceed bool) *players {
		return &players{hold: func(context.Context, Hold) (bool, error) { return proceed, nil }}
	}
	// served returns when the agent that answers so is who listens.
	served := func(proceed bool) {
		t.Helper()
		for {
			answer, err := dial(t, socket).Hold(t.Context(), &agentv1.HoldRequest{Stage: "post-dump"})
			if t.Context().Err() != nil || err == nil && answer.GetProceed() == proceed {
				return
			}
		}
	}
	stopOld := run(t, socket, agent(false))
	served(false)
	run(t, socket, agent(true))
	served(true)
	stopOld()
	if _, err := os.Stat(socket); err != nil {
		t.Fatalf("the old agent's end: %v", err)
	}
	served(true)
}
