package runtimewrapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
)

// between is the time between two attempts to reach an agent that is not there.
const between = 100 * time.Millisecond

// agent is the node's agent behind its unix socket. It may go away and come back at any
// time; callers call again.
type agent struct {
	conn   *grpc.ClientConn
	client agentv1.RuntimeClient
}

func dial(socket string) (*agent, error) {
	// The socket's mode lets only root in, and the agent looks at the caller's credentials.
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0))
	if err != nil {
		return nil, fmt.Errorf("reach the agent at %s: %w", socket, err)
	}
	return &agent{conn: conn, client: agentv1.NewRuntimeClient(conn)}, nil
}

// again calls do until it succeeds, ctx ends, or forever.
func (a *agent) again(ctx context.Context, do func(context.Context) error) error {
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		// gRPC backs off for seconds when the socket was away; this is a local call.
		a.conn.ResetConnectBackoff()
		t := time.NewTimer(between)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
	}
}

// await asks what to do with a create, and returns the first answer. The stream stays open
// behind it, and is opened again when the agent comes back, until life ends: by that the
// agent knows that this process lives.
func (a *agent) await(ctx, life context.Context, req *agentv1.AwaitRestoreRequest) (*agentv1.AwaitRestoreResponse, error) {
	var stream agentv1.Runtime_AwaitRestoreClient
	var answer *agentv1.AwaitRestoreResponse
	stop := func() {}
	err := a.again(ctx, func(context.Context) (err error) {
		stop()
		// The stream lives for as long as life; until the first answer ctx ends it too.
		var sctx context.Context
		sctx, stop = context.WithCancel(life)
		unhook := context.AfterFunc(ctx, stop)
		defer unhook()
		if stream, err = a.client.AwaitRestore(sctx, req); err != nil {
			return err
		}
		answer, err = stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errors.New("the agent ended the call without an answer")
		}
		return err
	})
	if err != nil {
		stop()
		return nil, err
	}
	req.Restoring = true
	go a.keep(life, stream, req)
	return answer, nil
}

func (a *agent) keep(life context.Context, stream agentv1.Runtime_AwaitRestoreClient, req *agentv1.AwaitRestoreRequest) {
	_ = a.again(life, func(ctx context.Context) (err error) {
		for err == nil {
			_, err = stream.Recv()
		}
		if ctx.Err() != nil {
			return nil
		}
		next, err := a.client.AwaitRestore(ctx, req)
		if err == nil {
			stream = next
		}
		return errors.New("look again")
	})
}
