package transfer

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/drover-project/drover/internal/refusals"
)

// ErrRefused says that the record of a move does not allow to receive its images. An Admit
// that fails with anything else does not know, and the sender is told so.
var ErrRefused = errors.New("the move does not allow it")

// reason is why images were not taken, as the metric has it.
type reason string

const (
	byCaller   reason = "caller"    // no agent of a node
	byRecord   reason = "record"    // the move is another's, or decided
	unknown    reason = "unknown"   // the record could not be read
	busy       reason = "busy"      // too many calls work on the same images
	tooMuch    reason = "limit"     // more than is ever taken
	noSpace    reason = "space"     // more than the disk holds
	misuse     reason = "protocol"  // messages that make no sense, bad names, wrong sizes
	damaged    reason = "digest"    // other bytes than were sent
	different  reason = "different" // complete images are there, and are not the same
	discarded  reason = "discarded" // the move ended meanwhile
	silent     reason = "silent"    // the sender said nothing for too long
	diskFailed reason = "disk"      // this node could not write

	late       reason = "late"       // the images are complete already
	incomplete reason = "incomplete" // not all that the manifest names has come
	missing    reason = "missing"    // a block that a chunk names did not come ahead
)

var reasons = []reason{
	byCaller, byRecord, unknown, busy, tooMuch, noSpace, misuse, damaged, different, discarded, silent, diskFailed,
	late, incomplete, missing,
}

var statusCodes = map[reason]codes.Code{
	byCaller: codes.PermissionDenied, byRecord: codes.PermissionDenied, unknown: codes.Unavailable,
	busy: codes.Unavailable, tooMuch: codes.ResourceExhausted, noSpace: codes.ResourceExhausted,
	misuse: codes.InvalidArgument, damaged: codes.DataLoss, different: codes.AlreadyExists,
	discarded: codes.Aborted, silent: codes.DeadlineExceeded, diskFailed: codes.Internal,
	late: codes.FailedPrecondition, incomplete: codes.FailedPrecondition, missing: codes.FailedPrecondition,
}

// dishonest are the reasons that no honest sender gives, but for a move that was decided
// while it sent.
var dishonest = map[reason]refusals.What{
	byCaller: refusals.Caller, byRecord: refusals.Images, tooMuch: refusals.Images,
	misuse: refusals.Images, damaged: refusals.Images, different: refusals.Images,
}

// spoils are the reasons after which nothing is kept of what the sender brought.
var spoils = map[reason]bool{misuse: true, damaged: true, diskFailed: true, tooMuch: true}

// refusal is an error of this end; all others are of the connection.
type refusal struct {
	reason reason
	error
}

func (r *refusal) Unwrap() error { return r.error }

func refuse(r reason, format string, args ...any) error {
	return &refusal{r, fmt.Errorf(format, args...)}
}

// diskError is a refusal for a failure of this node's disk, and nil for nil.
func diskError(err error) error {
	if err == nil {
		return nil
	}
	return refuse(diskFailed, "keep images: %w", err)
}
