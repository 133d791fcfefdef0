package checkpoint

import (
	"os"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/thread"
)

// What the agent has run on the node has its timers on time, although the agent's may be late.
func TestHostedIsPunctual(t *testing.T) {
	const usual = 50 * time.Microsecond
	if err := thread.Slack(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := thread.Slack(usual); err != nil {
			t.Error(err)
		}
	}()
	startAgent(t)
	newContainer(t, "src", nil).run() // with it come the control groups that ours lies beside
	dir := t.TempDir()
	c := hosted.Command{Program: wrapper, Dir: dir, Cgroup: os.Getenv("NODE_GROUP") + "/drover", Args: []string{"cat", "/proc/self/timerslack_ns"}}
	if err := hosted.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if exit, ok, err := hosted.Wait(within(t), dir); err != nil || !ok || exit != (hosted.Exit{}) {
		t.Fatalf("%+v, %v, %v", exit, ok, err)
	}
	if got := hosted.Output(dir, 100); got != "50000" {
		t.Errorf("its timers may be %q ns late, want 50000", got)
	}
}
