// Package runtimeapi is the agent's face to drover-runc and to CRIU's action script on the
// same node: the gRPC service Runtime on a unix socket that only root may open. It checks
// who calls and what is asked, and leaves the rest to those who serve it.
package runtimeapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
)

// Create is a wrapper that waits in a container's create.
type Create struct {
	// Request is what it said; its fields can be used as file names where they name files.
	Request *agentv1.AwaitRestoreRequest
	// Wrapper is its process, from the socket's credentials.
	Wrapper process.Process
	// Deadline is when it gives up.
	Deadline time.Time
}

// Answer to a create: one of them is set.
type Answer struct {
	// Restore is the directory of complete images.
	Restore string
	// Refuse is the reason why the container must not be created.
	Refuse string
	// Fresh lets it be created anew.
	Fresh bool
}

// Creates serves waiting creates.
type Creates interface {
	// Await is called once for every stream that a wrapper opens. It returns when ctx ends,
	// which is when the wrapper is gone, and hands the answer over by send once there is one.
	Await(ctx context.Context, c Create, send func(Answer) error) error
	// Restored tells how the restore of a container ended: message is empty for well.
	Restored(podUID, containerID string, pid int, message string)
}

// Holds serves CRIU's action script at one stage.
type Holds interface {
	// Hold returns when the hold is over, and whether CRIU shall proceed; ctx ends when the
	// script is gone. An error makes the script call again.
	Hold(ctx context.Context, h Hold) (proceed bool, err error)
}

// Hold is an action script that waits.
type Hold struct {
	// ImageDir is where the images are.
	ImageDir string
	// InitPID is the first process of the container.
	InitPID int
	// Script is the script's own process.
	Script process.Process
}

// Server is the service. Fill in all fields, then Run.
type Server struct {
	agentv1.UnimplementedRuntimeServer
	// Socket is the path to listen on.
	Socket string
	// Creates serves drover-runc, Dumps a script at post-dump, Restores one at pre-resume.
	Creates         Creates
	Dumps, Restores Holds
}

// Run serves until ctx ends. It takes the socket's place from an agent that has died or is
// about to end, and leaves the socket for the next one to take.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.Socket), 0o700); err != nil {
		return fmt.Errorf("listen for drover-runc: %w", err)
	}
	if err := os.Remove(s.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen for drover-runc: %w", err)
	}
	l, err := net.Listen("unix", s.Socket)
	if err != nil {
		return fmt.Errorf("listen for drover-runc: %w", err)
	}
	// By the time this agent ends, the next one may listen under the same name.
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	if err := os.Chmod(s.Socket, 0o600); err != nil {
		l.Close()
		return fmt.Errorf("listen for drover-runc: %w", err)
	}
	server := grpc.NewServer(grpc.Creds(peerCredentials{}))
	agentv1.RegisterRuntimeServer(server, s)
	// Held calls have no end of their own: a graceful stop would wait for them.
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve drover-runc: %w", err)
	}
	return nil
}

// AwaitRestore serves drover-runc.
func (s *Server) AwaitRestore(req *agentv1.AwaitRestoreRequest, stream agentv1.Runtime_AwaitRestoreServer) error {
	caller, err := callerOf(stream.Context())
	if err != nil {
		return err
	}
	if err := fence.ValidUID(req.GetPodUid()); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := layout.ValidContainerID(req.GetContainerId()); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if int(req.GetPid()) != caller.PID {
		return status.Errorf(codes.PermissionDenied, "process %d speaks for process %d", caller.PID, req.GetPid())
	}
	c := Create{Request: req, Wrapper: caller, Deadline: time.Unix(0, req.GetDeadlineUnixNano())}
	err = s.Creates.Await(stream.Context(), c, func(a Answer) error { return stream.Send(a.message()) })
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	return nil
}

func (a Answer) message() *agentv1.AwaitRestoreResponse {
	switch {
	case a.Restore != "":
		return &agentv1.AwaitRestoreResponse{Answer: &agentv1.AwaitRestoreResponse_Restore{Restore: a.Restore}}
	case a.Fresh:
		return &agentv1.AwaitRestoreResponse{Answer: &agentv1.AwaitRestoreResponse_Fresh{Fresh: true}}
	}
	return &agentv1.AwaitRestoreResponse{Answer: &agentv1.AwaitRestoreResponse_Refuse{Refuse: a.Refuse}}
}

// Restored serves drover-runc.
func (s *Server) Restored(ctx context.Context, req *agentv1.RestoredRequest) (*agentv1.RestoredResponse, error) {
	if _, err := callerOf(ctx); err != nil {
		return nil, err
	}
	s.Creates.Restored(req.GetPodUid(), req.GetContainerId(), int(req.GetPid()), req.GetError())
	return &agentv1.RestoredResponse{}, nil
}

// Hold serves the action script.
func (s *Server) Hold(ctx context.Context, req *agentv1.HoldRequest) (*agentv1.HoldResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	holds := s.Dumps
	switch req.GetStage() {
	case "post-dump":
	case "pre-resume":
		holds = s.Restores
	default:
		return nil, status.Errorf(codes.InvalidArgument, "stage %q is neither post-dump nor pre-resume", req.GetStage())
	}
	proceed, err := holds.Hold(ctx, Hold{ImageDir: filepath.Clean(req.GetImageDir()), InitPID: int(req.GetInitPid()), Script: caller})
	if err != nil {
		// Never an answer: also an agent that is stopping leaves the script to call again.
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &agentv1.HoldResponse{Proceed: proceed}, nil
}
