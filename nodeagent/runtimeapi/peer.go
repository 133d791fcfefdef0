package runtimeapi

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/drover-project/drover/internal/process"
)

// peerCredentials is no encryption, but the kernel's word on who is at the other end of a
// unix socket (unix(7), SO_PEERCRED). Only root gets in.
type peerCredentials struct{}

// caller is the process at the other end.
type caller struct {
	credentials.CommonAuthInfo
	process process.Process
}

// AuthType implements credentials.AuthInfo.
func (caller) AuthType() string { return "unix" }

// ServerHandshake implements credentials.TransportCredentials.
func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("a %T carries no credentials", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return nil, nil, cerr
	}
	if err != nil {
		return nil, nil, fmt.Errorf("ask who connects: %w", err)
	}
	if cred.Uid != 0 {
		return nil, nil, fmt.Errorf("user %d may not connect", cred.Uid)
	}
	// A PID of 0 is a process of a pid namespace that is not below ours.
	p, err := process.Of(int(cred.Pid))
	if err != nil {
		return nil, nil, err
	}
	return conn, caller{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, process: p}, nil
}

// ClientHandshake implements credentials.TransportCredentials; a server has no use for it.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for a server")
}

// Info implements credentials.TransportCredentials.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

// Clone implements credentials.TransportCredentials.
func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

// OverrideServerName implements credentials.TransportCredentials.
func (peerCredentials) OverrideServerName(string) error { return nil }

func callerOf(ctx context.Context) (process.Process, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(caller); ok {
			return c.process, nil
		}
	}
	return process.Process{}, status.Error(codes.Unauthenticated, "the caller has no credentials")
}
