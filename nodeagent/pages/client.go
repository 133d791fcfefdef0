package pages

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

const (
	// The pauses between tries to connect grow from the first to the last: a copy waits meanwhile.
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
	// alive is after how long without a word the source is asked whether it is there.
	alive = 10 * time.Second
)

// Client reads memory on other nodes. Fill in Address and TLS. Safe for concurrent use.
type Client struct {
	// Address gives "host:port" of a node's agent.
	Address func(node string) (string, error)
	// TLS gives the configuration for calling one node's agent and no other;
	// identity.Keeper.ClientConfig fits.
	TLS func(node model.NodeID) *tls.Config

	mu sync.Mutex
	// conns are by address and node: a node's address may change.
	conns map[[2]string]*grpc.ClientConn
}

// Read fills b with memory of one of m's containers, by its name, from the source; restore.Config.Pages is
// this. An error is lazypages.ErrLost if the source says so: after any other it may be asked again.
func (c *Client) Read(ctx context.Context, m migrate.Move, container string, r lazypages.Range, b []byte) error {
	conn, err := c.conn(m.Source.Node)
	if err != nil {
		return err
	}
	answer, err := agentv1.NewMemoryClient(conn).Read(ctx, &agentv1.ReadRequest{
		Namespace: m.Namespace, Migration: m.Name, MigrationUid: m.UID, Epoch: uint64(m.Epoch),
		Container: container, Process: r.Process, Address: r.Address, Size: r.Size,
	})
	switch {
	case status.Code(err) == codes.DataLoss:
		return fmt.Errorf("%w: %s", lazypages.ErrLost, status.Convert(err).Message())
	case err != nil:
		return fmt.Errorf("read memory on node %s: %w", m.Source.Node, err)
	case len(answer.GetMemory()) != len(b):
		return fmt.Errorf("read memory on node %s: it gave %d bytes, want %d", m.Source.Node, len(answer.GetMemory()), len(b))
	}
	copy(b, answer.GetMemory())
	return nil
}

func (c *Client) conn(node string) (*grpc.ClientConn, error) {
	address, err := c.Address(node)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := [2]string{address, node}
	if conn := c.conns[k]; conn != nil {
		return conn, nil
	}
	// A header is small beside what comes with it.
	const headers = 64 << 10
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(c.TLS(model.NodeID(node)))),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(lazypages.MostAtOnce+headers)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: alive, Backoff: backoff.Config{BaseDelay: firstPause, Multiplier: 2, MaxDelay: lastPause}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: alive, Timeout: alive}))
	if err != nil {
		return nil, fmt.Errorf("call node %s at %s: %w", node, address, err)
	}
	if c.conns == nil {
		c.conns = map[[2]string]*grpc.ClientConn{}
	}
	c.conns[k] = conn
	return conn, nil
}

// Close ends all connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	c.conns = nil
	return errors.Join(errs...)
}
