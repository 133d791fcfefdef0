package transfer

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Room asks the target whether images of about so many bytes would fit there. An agent that
// does not know the question is one that looks when they come.
func (s *Sender) Room(ctx context.Context, m migrate.Move, bytes model.Bytes) error {
	_, err := s.askRoom(ctx, m, bytes)
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask node %s for room for about %d MiB of images: %w", m.Target.Node, bytes/model.MiB, err)
	}
	return nil
}

// RoomForRounds is Room for images that were written in rounds: the target must be one that joins them.
func (s *Sender) RoomForRounds(ctx context.Context, m migrate.Move, bytes model.Bytes) error {
	answer, err := s.askRoom(ctx, m, bytes)
	switch {
	case err != nil:
		return fmt.Errorf("ask node %s for room for about %d MiB of rounds: %w", m.Target.Node, bytes/model.MiB, err)
	case !answer.GetJoins():
		return fmt.Errorf("the agent of node %s does not join rounds", m.Target.Node)
	}
	return nil
}

func (s *Sender) askRoom(ctx context.Context, m migrate.Move, bytes model.Bytes) (*agentv1.RoomResponse, error) {
	address, err := s.Address(m.Target.Node)
	if err != nil {
		return nil, err
	}
	if m.Epoch < 0 || bytes < 0 {
		return nil, fmt.Errorf("epoch %d, %d bytes: neither may be negative", m.Epoch, bytes)
	}
	conn, err := s.dial(m, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return agentv1.NewPeerClient(conn).Room(ctx, &agentv1.RoomRequest{Begin: &agentv1.Begin{
		Namespace: m.Namespace, Migration: m.Name, MigrationUid: m.UID, Epoch: uint64(m.Epoch),
		TotalBytes: uint64(bytes),
	}})
}

// Room implements agentv1.PeerServer.
func (r *Receiver) Room(ctx context.Context, req *agentv1.RoomRequest) (*agentv1.RoomResponse, error) {
	if err := r.room(ctx, req.GetBegin()); err != nil {
		return nil, r.failed(ctx, err)
	}
	return &agentv1.RoomResponse{Joins: r.Store.Join != nil}, nil
}

func (r *Receiver) room(ctx context.Context, b *agentv1.Begin) error {
	caller, err := identity.PeerNode(ctx)
	if err != nil {
		return refuse(byCaller, "%w", err)
	}
	if _, err := r.check(b); err != nil {
		return err
	}
	if err := r.admit(ctx, string(caller), b); err != nil {
		return err
	}
	return r.Store.fits(b.GetTotalBytes())
}
