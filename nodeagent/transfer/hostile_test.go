package transfer

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

func begin(bytes uint64, files uint32) *agentv1.SendRequest {
	return &agentv1.SendRequest{Part: &agentv1.SendRequest_Begin{Begin: &agentv1.Begin{
		Namespace: "default", Migration: "web-1", MigrationUid: "uid-1", Epoch: 3, TotalBytes: bytes, TotalFiles: files,
	}}}
}

func file(name string, size uint64) *agentv1.SendRequest {
	return &agentv1.SendRequest{Part: &agentv1.SendRequest_File{File: &agentv1.File{Name: name, Size: size}}}
}

func data(b string) *agentv1.SendRequest {
	return &agentv1.SendRequest{Part: &agentv1.SendRequest_Data{Data: []byte(b)}}
}

// end has the true digests of pairs of names and contents.
func end(pairs ...string) *agentv1.SendRequest {
	e := &agentv1.End{}
	for i := 0; i < len(pairs); i += 2 {
		sum := sha256.Sum256([]byte(pairs[i+1]))
		e.Digests = append(e.Digests, &agentv1.FileDigest{Name: pairs[i], Size: uint64(len(pairs[i+1])), Sha256: sum[:]})
	}
	return &agentv1.SendRequest{Part: &agentv1.SendRequest_End{End: e}}
}

func changed(req *agentv1.SendRequest, change func(*agentv1.Begin)) *agentv1.SendRequest {
	change(req.GetBegin())
	return req
}

func forged(req *agentv1.SendRequest, change func(*agentv1.End)) *agentv1.SendRequest {
	change(req.GetEnd())
	return req
}

type messages = []*agentv1.SendRequest

// hostile senders: every one is refused for the reason, and leaves nothing.
var hostile = map[string]struct {
	say    messages
	reason reason
}{
	"nothing":         {messages{}, misuse},
	"no part":         {messages{{}}, misuse},
	"file first":      {messages{file("a", 1)}, misuse},
	"end first":       {messages{end()}, misuse},
	"data first":      {messages{data("x")}, misuse},
	"begin twice":     {messages{begin(1, 1), begin(1, 1)}, misuse},
	"part unknown":    {messages{begin(1, 1), {}}, misuse},
	"no file":         {messages{begin(1, 1), data("x")}, misuse},
	"end missing":     {messages{begin(1, 1), file("a", 1), data("x")}, misuse},
	"end too early":   {messages{begin(2, 1), file("a", 2), data("x"), end("a", "x")}, misuse},
	"only a begin":    {messages{begin(0, 1), end()}, misuse},
	"a file missing":  {messages{begin(1, 2), file("a", 1), data("x"), end("a", "x")}, misuse},
	"bytes missing":   {messages{begin(2, 1), file("a", 1), data("x"), end("a", "x")}, misuse},
	"too few bytes":   {messages{begin(2, 2), file("a", 2), data("x"), file("b", 0)}, misuse},
	"too many bytes":  {messages{begin(9, 1), file("a", 1), data("xy")}, misuse},
	"more after that": {messages{begin(9, 1), file("a", 1), data("x"), data("y")}, misuse},
	"over the total":  {messages{begin(1, 1), file("a", 2)}, misuse},
	"sum over total":  {messages{begin(1, 2), file("a", 1), data("x"), file("b", 1)}, misuse},
	"huge size":       {messages{begin(1, 2), file("a", 1), data("x"), file("b", 1<<64-1)}, misuse},
	"too many files":  {messages{begin(9, 1), file("a", 0), file("b", 0)}, misuse},
	"file twice":      {messages{begin(9, 2), file("a", 0), file("a", 0)}, misuse},
	"empty data":      {messages{begin(1, 1), file("a", 1), data("")}, misuse},
	"big data":        {messages{begin(1<<22, 1), file("a", 1<<22), data(strings.Repeat("x", 1<<20+1))}, misuse},
	"no files":        {messages{begin(0, 0), end()}, tooMuch},
	"a lot of files":  {messages{begin(0, maxFiles+1)}, tooMuch},
	"a lot of bytes":  {messages{begin(1<<63, 1)}, tooMuch},
	"the whole disk":  {messages{begin(1<<40, 1)}, noSpace},
	"name empty":      {messages{begin(1, 1), file("", 1)}, misuse},
	"name dot":        {messages{begin(1, 1), file(".", 1)}, misuse},
	"name dots":       {messages{begin(1, 1), file("..", 1)}, misuse},
	"name hidden":     {messages{begin(1, 1), file(".a", 1)}, misuse},
	"name up":         {messages{begin(1, 1), file("../a", 1)}, misuse},
	"name down":       {messages{begin(1, 1), file("a/b/c", 1)}, misuse},
	"name down, up":   {messages{begin(1, 1), file("a/..", 1)}, misuse},
	"name of none":    {messages{begin(1, 1), file("a/", 1)}, misuse},
	"name from above": {messages{begin(1, 1), file("/a", 1)}, misuse},
	"name absolute":   {messages{begin(1, 1), file("/etc/passwd", 1)}, misuse},
	"name backslash":  {messages{begin(1, 1), file(`a\b`, 1)}, misuse},
	"name null":       {messages{begin(1, 1), file("a\x00b", 1)}, misuse},
	"name newline":    {messages{begin(1, 1), file("a\nb", 1)}, misuse},
	"name long":       {messages{begin(1, 1), file(strings.Repeat("x", 256), 1)}, misuse},
	"other content":   {messages{begin(1, 1), file("a", 1), data("x"), end("a", "y")}, damaged},
	"other name":      {messages{begin(1, 1), file("a", 1), data("x"), end("b", "x")}, misuse},
	"other size":      {messages{begin(1, 1), file("a", 1), data("x"), end("a", "xy")}, misuse},
	"no digests":      {messages{begin(1, 1), file("a", 1), data("x"), end()}, misuse},
	"digests twice":   {messages{begin(1, 1), file("a", 1), data("x"), end("a", "x", "a", "x")}, misuse},
	"digest empty": {messages{begin(1, 1), file("a", 1), data("x"),
		forged(end("a", "x"), func(e *agentv1.End) { e.Digests[0].Sha256 = nil })}, damaged},
	"digest cut": {messages{begin(1, 1), file("a", 1), data("x"),
		forged(end("a", "x"), func(e *agentv1.End) { e.Digests[0].Sha256 = e.Digests[0].Sha256[:31] })}, damaged},
	"UID empty":   {messages{changed(begin(1, 1), func(b *agentv1.Begin) { b.MigrationUid = "" })}, misuse},
	"UID up":      {messages{changed(begin(1, 1), func(b *agentv1.Begin) { b.MigrationUid = "../uid" })}, misuse},
	"namespace":   {messages{changed(begin(1, 1), func(b *agentv1.Begin) { b.Namespace = "a/b" })}, misuse},
	"migration":   {messages{changed(begin(1, 1), func(b *agentv1.Begin) { b.Migration = "../pods" })}, misuse},
	"other move":  {messages{changed(begin(1, 1), func(b *agentv1.Begin) { b.Migration = "web-2" })}, byRecord},
	"other epoch": {messages{changed(begin(1, 1), func(b *agentv1.Begin) { b.Epoch = 2 })}, byRecord},
	"other UID":   {messages{changed(begin(1, 1), func(b *agentv1.Begin) { b.MigrationUid = "uid-9" })}, byRecord},
}

func TestHostileSenders(t *testing.T) {
	x := newTarget(t)
	a := x.ca.Node(t, "a")
	for name, c := range hostile {
		t.Run(name, func(t *testing.T) {
			if name == "the whole disk" {
				x.Store.Reserve = 1 << 60
				defer func() { x.Store.Reserve = 1 }()
			}
			before := x.refusals(c.reason)
			s := x.stream(t, t.Context(), a)
			for _, m := range c.say {
				_ = s.Send(m) // the answer tells
			}
			_, err := s.CloseAndRecv()
			if want := statusCodes[c.reason]; status.Code(err) != want {
				t.Errorf("got %v, want %v", err, want)
			}
			if got := x.refusals(c.reason) - before; got != 1 {
				t.Errorf("%v refusals for %s, want 1", got, c.reason)
			}
			wantEmpty(t, x.Store.Dir)
		})
	}
	if len(x.arrivals.uids) > 0 || len(x.Store.calls) > 0 {
		t.Errorf("notices %q, calls %v", x.arrivals.uids, x.Store.calls)
	}
	// None of them stands in the way of the right one.
	s := x.stream(t, t.Context(), a)
	for _, m := range (messages{begin(1, 1), file("a", 1), data("x"), end("a", "x")}) {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
	wantDir(t, filepath.Join(x.Store.Dir, testDir), map[string][]byte{"a": []byte("x")})
}

// Only agents come through: no observer of the same CA, and nobody of another.
func TestCallerIsNoAgent(t *testing.T) {
	x := newTarget(t)
	s := x.stream(t, t.Context(), x.ca.Identity(t, identity.Subject{Observer: "a"}, nil))
	_ = s.Send(begin(1, 1))
	if _, err := s.CloseAndRecv(); status.Code(err) != codes.PermissionDenied || x.refusals(byCaller) != 1 {
		t.Errorf("observer: %v", err)
	}
	stranger := identitytest.NewAuthority(t).Node(t, "a")
	for name, certs := range map[string][]tls.Certificate{
		"another CA":     {{Certificate: [][]byte{stranger.Cert.Raw}, PrivateKey: stranger.Key}},
		"no certificate": nil,
	} {
		own := &Sender{
			Address: func(string) (string, error) { return x.address, nil },
			TLS:     func(model.NodeID) *tls.Config { return &tls.Config{InsecureSkipVerify: true, Certificates: certs} },
		}
		_, err := own.Send(t.Context(), testMove, writeDir(t, map[string][]byte{"a": {1}}))
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantEmpty(t, x.Store.Dir)
}

// A link where the partial directory will be is removed, not followed.
func TestLinkInPlaceOfPartial(t *testing.T) {
	x := newTarget(t)
	outside := writeDir(t, map[string][]byte{"a": []byte("precious")})
	x.admission.hook = func() {
		if err := os.Symlink(outside, filepath.Join(x.Store.Dir, testDir+partialSuffix)); err != nil {
			t.Error(err)
		}
	}
	files := map[string][]byte{"a": []byte("x")}
	if _, err := x.sender(t, "a").Send(t.Context(), testMove, writeDir(t, files)); err != nil {
		t.Fatal(err)
	}
	wantDir(t, filepath.Join(x.Store.Dir, testDir), files)
	if got, _ := os.ReadFile(filepath.Join(outside, "a")); string(got) != "precious" {
		t.Errorf("outside was written: %q", got)
	}
}

// A link in place of the complete images is no images, and is not followed.
func TestLinkInPlaceOfComplete(t *testing.T) {
	x := newTarget(t)
	outside := writeDir(t, map[string][]byte{"a": []byte("x")})
	if err := os.Symlink(outside, filepath.Join(x.Store.Dir, testDir)); err != nil {
		t.Fatal(err)
	}
	_, err := x.sender(t, "a").Send(t.Context(), testMove, outside)
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v", err)
	}
	if dir, err := x.Store.Complete(t.Context(), testMove); dir != "" || err == nil {
		t.Errorf("complete: %q, %v", dir, err)
	}
	if err := x.Store.Discard(t.Context(), testMove); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, x.Store.Dir)
	if got := list(t, outside); len(got) != 1 {
		t.Errorf("outside holds %q", got)
	}
}

// A connection that is cut leaves nothing, and the next one finds the way free.
func TestConnectionCut(t *testing.T) {
	x := newTarget(t)
	admitted := make(chan struct{}, 1)
	x.admission.hook = func() { admitted <- struct{}{} }
	ctx, cut := context.WithCancel(t.Context())
	s := x.stream(t, ctx, x.ca.Node(t, "a"))
	for _, m := range (messages{begin(9, 1), file("a", 9), data("x")}) {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	<-admitted
	cut()
	x.Wait()
	wantEmpty(t, x.Store.Dir)
	if _, err := x.sender(t, "a").Send(t.Context(), testMove, writeDir(t, map[string][]byte{"a": {1}})); err != nil {
		t.Error(err)
	}
}

// The target's server ends: the sender hears of it, and nothing is left.
func TestServerStops(t *testing.T) {
	x := newTarget(t)
	admitted := make(chan struct{}, 1)
	x.admission.hook = func() { admitted <- struct{}{} }
	s := x.stream(t, t.Context(), x.ca.Node(t, "a"))
	_ = s.Send(begin(9, 1))
	<-admitted
	x.server.Stop()
	x.Wait()
	if _, err := s.CloseAndRecv(); err == nil {
		t.Error("the call went well")
	}
	wantEmpty(t, x.Store.Dir)
}

func TestSilentSender(t *testing.T) {
	x := newTarget(t)
	x.Idle = time.Millisecond
	s := x.stream(t, t.Context(), x.ca.Node(t, "a"))
	var answer agentv1.SendResponse
	if err := s.RecvMsg(&answer); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	x.Wait()
	wantEmpty(t, x.Store.Dir)
}

// While one receives, another is refused; a Discard ends the one and leaves nothing.
func TestBusyThenDiscarded(t *testing.T) {
	x := newTarget(t)
	x.Metrics = NewMetrics()
	s := x.stream(t, t.Context(), x.ca.Node(t, "a"))
	admitted := make(chan struct{}, 2)
	x.admission.hook = func() { admitted <- struct{}{} }
	_ = s.Send(begin(9, 1))
	<-admitted
	// The first may have been admitted and not be active yet: one of both is refused, and
	// the other goes on.
	other := x.stream(t, t.Context(), x.ca.Node(t, "a"))
	_ = other.Send(begin(9, 1))
	errs := make(chan error, 2)
	for _, c := range []agentv1.Peer_SendClient{s, other} {
		go func() { errs <- c.RecvMsg(&agentv1.SendResponse{}) }()
	}
	if err := <-errs; status.Code(err) != codes.Aborted || x.refusals(busy) != 1 {
		t.Errorf("got %v", err)
	}
	if err := x.Store.Discard(t.Context(), testMove); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, x.Store.Dir)
	if err := <-errs; status.Code(err) != codes.Aborted || x.refusals(discarded) != 1 {
		t.Errorf("got %v", err)
	}
}

// A Discard between the look into the record and the first file is not missed.
func TestDiscardedWhileAdmitted(t *testing.T) {
	x := newTarget(t)
	x.admission.hook = func() { x.Store.interrupt(testDir) }
	_, err := x.sender(t, "a").Send(t.Context(), testMove, writeDir(t, map[string][]byte{"a": {1}}))
	if status.Code(err) != codes.Aborted {
		t.Errorf("got %v", err)
	}
	x.Wait()
	wantEmpty(t, x.Store.Dir)
}
