// Package transfer brings the images of a move from the source's agent to the target's:
// the gRPC service Peer over mutual TLS. The target asks the record of the move whether the
// caller may send it, keeps what comes aside, and takes it as complete only when every byte
// is there, has the digest that the source took while it read, and is synced (which costs
// nothing in memory).
//
// Files go as chunks, each verified for itself, in any order and over several connections.
// What came stays when a connection is cut, and what the dump has written goes while it writes
// the rest; before the manifest, which the source makes after the hold, all of it is but a
// guess at what the images will be. So are the blocks of memory that go before the freeze:
// contents without a place, which chunks then name by their digests.
//
// Images hold the memory of other people's processes and are restored by root, so the
// sender is not trusted: names, sizes and amount are checked before anything is written,
// nothing is decompressed beyond the size that is expected, and nothing that lies in the
// images' directory is followed.
package transfer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/drover-project/drover/internal/model"
)

// Port is where an agent serves Peer, over TCP.
const Port = 7947

const (
	// chunkSize is how much of a file is verified at once. A message of it fits into the buffers
	// that package grpc keeps: larger ones it makes anew each time.
	chunkSize = uint64(512 * model.KiB)
	// maxMessage bounds one message. It is the manifest that grows, with the number of files.
	maxMessage = 8 * model.MiB
	// maxFiles bounds one move: CRIU writes a few files a process.
	maxFiles = 16384
	// MostAhead is how much memory goes ahead of a move's images at most: each page of it costs
	// either end some hundred bytes to remember.
	MostAhead = 4 * model.GiB
	// maxName is what Linux's file systems allow.
	maxName = 255
	// alive is after how long without a word the other end is asked whether it is there.
	alive = 20 * time.Second
)

// ServerOptions are those that a grpc.Server must be made with to serve Peer;
// identity.Keeper.ServerConfig makes the configuration.
func ServerOptions(config *tls.Config) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(config)),
		grpc.MaxRecvMsgSize(int(maxMessage)),
		grpc.MaxConcurrentStreams(16),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: alive, Timeout: alive}),
		// A sender that waits for the dump or for the target's sync asks every so often: let it.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: alive / 4}),
	}
}

// checkName accepts what names a file in the images' directory, or in a directory right below
// it, which each container has of its own, and nothing else.
func checkName(name string) error {
	dir, file, below := strings.Cut(name, "/")
	if !below {
		return checkPart(name)
	}
	return errors.Join(checkPart(dir), checkPart(file))
}

func checkPart(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("file name %.40q has %d bytes, want 1 to %d", name, len(name), maxName)
	}
	if name[0] == '.' {
		return fmt.Errorf("file name %q begins with a dot", name)
	}
	for _, c := range []byte(name) {
		if c == '/' || c == '\\' || c < ' ' || c == 0x7f {
			return fmt.Errorf("file name %q holds %q", name, c)
		}
	}
	return nil
}
