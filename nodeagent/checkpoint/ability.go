package checkpoint

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/criu"
	"github.com/drover-project/drover/internal/hosted"
)

// CannotRestore checks this node's runc and CRIU: empty when pods can be dumped and restored
// here, or else the reason in one line. It takes some tens of milliseconds.
func CannotRestore(ctx context.Context, runc string) string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Sprintf("the kernel's version is not known: %v", err)
	}
	return criu.CannotRestore(ctx, hosted.Call, runc, unix.ByteSliceToString(u.Release[:]))
}

// CannotLoadLater checks this node's runc, CRIU and kernel: empty when a copy can run here before all
// of its memory is loaded, or else the reason in one line.
func CannotLoadLater(ctx context.Context, runc string) string {
	return criu.CannotLoadLater(ctx, hosted.Call, runc)
}

// CannotTrack checks this node's CRIU and kernel: empty when memory can be written in rounds while a
// container runs, or else the reason in one line.
func CannotTrack(ctx context.Context) string { return criu.CannotTrack(ctx, hosted.Call) }
