package transfer

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// Sender brings images to other nodes. Fill in Address and TLS. It is safe for use by
// several goroutines.
type Sender struct {
	// Address gives "host:port" of a node's agent; the port is Port.
	Address func(node string) (string, error)
	// TLS gives the configuration for calling one node's agent and no other;
	// identity.Keeper.ClientConfig fits.
	TLS func(node model.NodeID) *tls.Config
	// Metrics may be nil.
	Metrics *Metrics
}

var _ migrate.Sender = (*Sender)(nil)

// Send implements migrate.Sender. It tries once. dir holds plain files only.
func (s *Sender) Send(ctx context.Context, m migrate.Move, dir string) (int64, error) {
	address, err := s.Address(m.Target.Node)
	if err != nil {
		return 0, fmt.Errorf("send images %s to node %s: %w", dir, m.Target.Node, err)
	}
	n, err := s.send(ctx, m, dir, address)
	if err != nil {
		return 0, fmt.Errorf("send images %s to node %s at %s: %w", dir, m.Target.Node, address, err)
	}
	return n, nil
}

func (s *Sender) send(ctx context.Context, m migrate.Move, path, address string) (int64, error) {
	dir, err := openDir(path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	images, total, err := listImages(dir)
	if err != nil {
		return 0, err
	}
	if m.Epoch < 0 {
		return 0, fmt.Errorf("epoch %d is negative", m.Epoch)
	}
	conn, err := s.dial(m, address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	// An early return must end the call too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := agentv1.NewPeerClient(conn).Send(ctx)
	if err != nil {
		return 0, err
	}
	out := &outgoing{stream: stream, metrics: s.Metrics, buffer: make([]byte, chunk)}
	err = out.all(dir, images, &agentv1.Begin{
		Namespace: m.Namespace, Migration: m.Name, MigrationUid: m.UID, Epoch: uint64(m.Epoch),
		TotalBytes: total, TotalFiles: uint32(len(images)),
	})
	// io.EOF: the target has ended the call, and only the answer tells why.
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	early := err != nil
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return 0, err
	}
	if early {
		return 0, errors.New("the target confirms before it has everything")
	}
	if answer.GetBytes() != total {
		return 0, fmt.Errorf("the target confirms %d bytes, %d were sent", answer.GetBytes(), total)
	}
	return int64(total), nil
}

func (s *Sender) dial(m migrate.Move, address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(s.TLS(model.NodeID(m.Target.Node)))),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: alive, Timeout: alive}),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
}

// outgoing is one transfer.
type outgoing struct {
	stream  agentv1.Peer_SendClient
	metrics *Metrics
	// buffer is used again for every message: Send encodes it before it returns, and no
	// stats handler that might look later is set.
	buffer []byte
}

func (o *outgoing) all(dir *os.File, images []image, b *agentv1.Begin) error {
	if err := o.stream.Send(&agentv1.SendRequest{Part: &agentv1.SendRequest_Begin{Begin: b}}); err != nil {
		return err
	}
	end := &agentv1.End{}
	for _, i := range images {
		d, err := o.file(dir, i)
		if err != nil {
			return err
		}
		end.Digests = append(end.Digests, d)
	}
	return o.stream.Send(&agentv1.SendRequest{Part: &agentv1.SendRequest_End{End: end}})
}

// file sends one file with exactly the size that was counted.
func (o *outgoing) file(dir *os.File, i image) (*agentv1.FileDigest, error) {
	f, size, err := openRegular(dir, i.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size != i.size {
		return nil, fmt.Errorf("%s has changed from %d to %d bytes: is its dump complete?", f.Name(), i.size, size)
	}
	head := &agentv1.File{Name: i.name, Size: size}
	if err := o.stream.Send(&agentv1.SendRequest{Part: &agentv1.SendRequest_File{File: head}}); err != nil {
		return nil, err
	}
	sum := sha256.New()
	for left := size; left > 0; {
		b := o.buffer[:min(left, uint64(len(o.buffer)))]
		if _, err := io.ReadFull(f, b); err != nil {
			// No io.EOF: that would say that the target has ended the call.
			return nil, fmt.Errorf("read %s, of which %d bytes are left: %v", f.Name(), left, err)
		}
		sum.Write(b)
		if err := o.stream.Send(&agentv1.SendRequest{Part: &agentv1.SendRequest_Data{Data: b}}); err != nil {
			return nil, err
		}
		o.metrics.add(sent, len(b))
		left -= uint64(len(b))
	}
	return &agentv1.FileDigest{Name: i.name, Size: size, Sha256: sum.Sum(nil)}, nil
}
