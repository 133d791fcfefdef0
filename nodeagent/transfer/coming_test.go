package transfer

import (
	"bytes"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/model"
)

// What came before the manifest is a guess: chunks that come twice, in any order, with other
// contents, over several streams; files that are not named; blocks that no chunk names.
func TestGuesses(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	total := uint64(5 << 20)
	say := func(m ...*agentv1.PutRequest) {
		t.Helper()
		if err := put(t, a, append(messages{beginAhead(total, 1<<20)}, m...)...); err != nil {
			t.Fatal(err)
		}
	}
	known, other := page4("k"), page4("o")
	say(chunk("a", chunkSize, "end"), chunk("a", 0, whole("x")), chunk("a", 0, whole("x")))
	say(chunk("a", 0, whole("y")), chunk("gone", 0, "x"), chunk("d/gone", 0, "x"))
	say(blocks([]byte(known+other)), naming(chunk("b", 0, known)), naming(chunk("c", 0, known+known)))
	sparse := make([]byte, chunkSize)
	copy(sparse[block:], "in the second page")
	say(forged(chunk("s", 0, string(sparse)), func(c *agentv1.Chunk) {
		c.Zero = bytes.Repeat([]byte{0xff}, blocksOf(len(sparse))/8)
		c.Zero[0], c.Data = 0xfd, sparse[block:2*block]
	}))
	want := []string{"a", whole("y") + "end", "b", known, "c", known + known, "s", string(sparse), "empty", ""}
	done := testBegin(total, 0)
	if _, err := a.Complete(t.Context(), &agentv1.CompleteRequest{Begin: done, Files: files(want...)}); err != nil {
		t.Fatal(err)
	}
	content := map[string][]byte{}
	for i := 0; i < len(want); i += 2 {
		content[want[i]] = []byte(want[i+1])
	}
	wantDir(t, filepath.Join(x.Store.Dir, testDir), content)
}

// A block that came ahead lies in one place only, also when it is in several images, and is
// missed, not made up, when that was written anew.
func TestBlockOfAnImage(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	known := page4("k")
	if err := put(t, a, beginAhead(1<<20, 1<<20), blocks([]byte(known)), naming(chunk("a", 0, known)), chunk("a", 0, page4("l"))); err != nil {
		t.Fatal(err)
	}
	if err := put(t, a, begin(1<<20), naming(chunk("b", 0, known))); status.Code(err) != codes.FailedPrecondition || x.refusals(missing) != 1 {
		t.Errorf("got %v", err)
	}
}

// Blocks that no image is made of give way to images: what is set aside is not exceeded for
// a cache.
func TestAheadGivesWay(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	known := ""
	for _, c := range "abcdefgh" {
		known += page4(string(c))
	}
	size := uint64(len(known)) // two more blocks are set aside
	say := messages{beginAhead(size, size), blocks([]byte(known[:7*block])), naming(chunk("1", 0, known[:block]))}
	for _, name := range []string{"2", "3", "7"} {
		say = append(say, chunk(name, 0, page4(name)))
	}
	if err := put(t, a, append(say, naming(chunk("4", 0, known[block:2*block])))...); err != nil {
		t.Fatal("with room for them:", err)
	}
	x.Store.mu.Lock()
	left := x.Store.coming[testDir].left()
	x.Store.mu.Unlock()
	if left != 0 {
		t.Errorf("%d bytes are left of what was set aside", left)
	}
	if err := put(t, a, begin(size), chunk("5", 0, page4("5"))); err != nil {
		t.Fatal("an image without room beside the cache:", err)
	}
	if err := put(t, a, begin(size), naming(chunk("6", 0, known[3*block:4*block]))); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a block that gave way: %v", err)
	}
	if err := put(t, a, begin(size), blocks([]byte(known[7*block:])), chunk("6", 0, page4("6"))); err != nil {
		t.Error("more ahead, for nothing:", err)
	}
	want := files("1", known[:block], "2", page4("2"), "3", page4("3"), "4", known[block:2*block], "5", page4("5"), "6", page4("6"), "7", page4("7"))
	if _, err := a.Complete(t.Context(), &agentv1.CompleteRequest{Begin: testBegin(size, 0), Files: want}); err != nil {
		t.Error(err)
	}
}

// Blocks that come after images take no more room than was set aside either.
func TestAheadComesLast(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	size := chunkSize
	late := blocks(random(int(size))) // three quarters of it find no room
	if err := put(t, a, beginAhead(size, size), chunk("a", 0, whole("x")), late); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(x.Store.Dir, testDir+partialSuffix, aheadFile)); err == nil && uint64(fi.Size())+size > aside(size, size) {
		t.Errorf("%d bytes of images and %d of blocks are there, %d were set aside", size, fi.Size(), aside(size, size))
	}
	if _, err := a.Complete(t.Context(), &agentv1.CompleteRequest{Begin: testBegin(size, 0), Files: files("a", whole("x"))}); err != nil {
		t.Error(err)
	}
}

// Each block that goes ahead takes memory of the target's agent, however little it takes on the
// way: what room there is on the disk is no bound for that.
func TestTooMuchAhead(t *testing.T) {
	x := newTarget(t)
	x.Store.Room = func() (model.Bytes, error) { return model.GiB << 10, nil }
	a := x.client(t, x.ca.Node(t, "a"))
	if err := put(t, a, beginAhead(0, uint64(MostAhead))); err != nil {
		t.Fatal(err)
	}
	if err := put(t, a, beginAhead(0, uint64(MostAhead)+1)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

// Zeros take no room.
func TestZerosAreHoles(t *testing.T) {
	x := newTarget(t)
	s := x.sender(t, "a")
	if _, err := s.Send(t.Context(), testMove, writeDir(t, map[string][]byte{"a": make([]byte, 64<<20)})); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(x.Store.Dir, testDir, "a"))
	if err != nil || fi.Size() != 64<<20 {
		t.Fatal(fi, err)
	}
	if got := fi.Sys().(*syscall.Stat_t).Blocks; got > 8 {
		t.Errorf("%d blocks of 512 bytes", got)
	}
	if got := testutil.ToFloat64(x.Metrics.carried.WithLabelValues(received)); got > 64<<10 {
		t.Errorf("%v bytes on the way", got)
	}
}

// Streams of two callers for one move: the record knows one of them.
func TestTwoCallers(t *testing.T) {
	x := newTarget(t)
	a, c := x.client(t, x.ca.Node(t, "a")), x.client(t, x.ca.Node(t, "c"))
	if err := put(t, a, begin(9), chunk("a", 0, "x")); err != nil {
		t.Fatal(err)
	}
	if err := put(t, c, begin(9), chunk("a", 0, "y")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("put: %v", err)
	}
	if _, err := c.Have(t.Context(), &agentv1.HaveRequest{Begin: testBegin(9, 0)}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("have: %v", err)
	}
	if _, err := c.Complete(t.Context(), &agentv1.CompleteRequest{Begin: testBegin(9, 0), Files: files("a", "y")}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("complete: %v", err)
	}
	// What the first one brought is as it was.
	if _, err := a.Complete(t.Context(), &agentv1.CompleteRequest{Begin: testBegin(9, 0), Files: files("a", "x")}); err != nil {
		t.Error(err)
	}
}

// A stream that is still open when all is complete adds nothing, and no new one does.
func TestStreamsAfterTheEnd(t *testing.T) {
	x := newTarget(t)
	id := x.ca.Node(t, "a")
	a := x.client(t, id)
	s := x.stream(t, t.Context(), id)
	_ = s.Send(begin(9))
	if err := put(t, a, begin(9), chunk("a", 0, "x")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Complete(t.Context(), &agentv1.CompleteRequest{Begin: testBegin(9, 0), Files: files("a", "x")}); err != nil {
		t.Fatal(err)
	}
	_ = s.Send(chunk("a", 0, "y"))
	if _, err := s.CloseAndRecv(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the open one: %v", err)
	}
	if err := put(t, a, begin(9), chunk("b", 0, "y")); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a new one: %v", err)
	}
	if have, err := a.Have(t.Context(), &agentv1.HaveRequest{Begin: testBegin(9, 0)}); err != nil || !have.GetComplete() {
		t.Errorf("have: %v, %v", have, err)
	}
	x.Wait()
	wantDir(t, filepath.Join(x.Store.Dir, testDir), map[string][]byte{"a": []byte("x")})
}

// The record is read once for all calls of a sender, and again after a Discard.
func TestAdmittedOnce(t *testing.T) {
	x := newTarget(t)
	var asked atomic.Int32
	x.admission.hook = func() { asked.Add(1) }
	a := x.client(t, x.ca.Node(t, "a"))
	for range 3 {
		if err := put(t, a, begin(9), chunk("a", 0, "x")); err != nil {
			t.Fatal(err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the record was read %d times", asked.Load())
	}
	if err := x.Store.Discard(t.Context(), testMove); err != nil {
		t.Fatal(err)
	}
	x.admission.err = ErrRefused
	if err := put(t, a, begin(9), chunk("a", 0, "x")); status.Code(err) != codes.PermissionDenied || asked.Load() != 2 {
		t.Errorf("after the end: %v, asked %d times", err, asked.Load())
	}
	wantEmpty(t, x.Store.Dir)
}

// One call that does what it must not ends all of that move's.
func TestOffenceEndsAll(t *testing.T) {
	x := newTarget(t)
	id := x.ca.Node(t, "a")
	s := x.stream(t, t.Context(), id)
	_ = s.Send(begin(9))
	_ = s.Send(chunk("a", 0, "x"))
	other := x.client(t, id)
	for len(x.have(t, other)) == 0 { // the first may not have joined yet
	}
	if err := put(t, other, begin(9), chunk("../a", 0, "x")); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
	if err := s.RecvMsg(&agentv1.PutResponse{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the other one: %v", err)
	}
	x.Wait()
	wantEmpty(t, x.Store.Dir)
}
