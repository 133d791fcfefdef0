package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

// bomb decompresses to far more than it says.
var bomb = make([]byte, 16<<20)

// hostile senders: every one is refused for the reason, and leaves nothing but what honest
// ones might come back for.
var hostile = map[string]struct {
	say    messages
	files  []*agentv1.FileDigest
	reason reason
}{
	"nothing":            {say: messages{}, reason: misuse},
	"no part":            {say: messages{{}}, reason: misuse},
	"chunk first":        {say: messages{chunk("a", 0, "x")}, reason: misuse},
	"blocks first":       {say: messages{blocks(make([]byte, block))}, reason: misuse},
	"begin twice":        {say: messages{begin(1), begin(1)}, reason: misuse},
	"part unknown":       {say: messages{begin(1), {}}, reason: misuse},
	"too many bytes":     {say: messages{begin(9), chunk("a", 0, strings.Repeat("x", 10))}, reason: misuse},
	"sum of two files":   {say: messages{begin(9), chunk("a", 0, "xxxxx"), chunk("b", 0, "xxxxx")}, reason: misuse},
	"far away":           {say: messages{begin(9), chunk("a", 1<<40, "x")}, reason: misuse},
	"farther":            {say: messages{begin(9), chunk("a", 1<<63, "x")}, reason: misuse},
	"farthest":           {say: messages{begin(9), chunk("a", 1<<64-1<<19, whole("x"))}, reason: misuse},
	"not at a chunk":     {say: messages{begin(1 << 22), chunk("a", 1, "x")}, reason: misuse},
	"overlapping":        {say: messages{begin(1 << 22), chunk("a", 0, whole("x")), chunk("a", chunkSize/2, whole("y"))}, reason: misuse},
	"empty chunk":        {say: messages{begin(1), chunk("a", 0, "")}, reason: misuse},
	"big chunk":          {say: messages{begin(1 << 22), chunk("a", 0, whole("x")+"x")}, reason: misuse},
	"more than it says":  {say: messages{begin(9), forged(chunk("a", 0, "xy"), func(c *agentv1.Chunk) { c.Size = 1 })}, reason: misuse},
	"less than it says":  {say: messages{begin(9), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Size = 2 })}, reason: misuse},
	"no data":            {say: messages{begin(9), as(agentv1.Codec_RAW, nil)}, reason: misuse},
	"other content":      {say: messages{begin(1), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Data = []byte("y") })}, reason: damaged},
	"digest empty":       {say: messages{begin(1), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Sha256 = nil })}, reason: misuse},
	"digest cut":         {say: messages{begin(1), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Sha256 = c.Sha256[:31] })}, reason: misuse},
	"codec unknown":      {say: messages{begin(1), as(7, []byte("x"))}, reason: misuse},
	"s2 garbage":         {say: messages{begin(1), as(agentv1.Codec_S2, []byte("x"))}, reason: misuse},
	"s2 bomb":            {say: messages{begin(1 << 20), forged(chunk("a", 0, whole("x")), func(c *agentv1.Chunk) { c.Codec, c.Data = agentv1.Codec_S2, s2.Encode(nil, bomb) })}, reason: misuse},
	"s2 short":           {say: messages{begin(9), forged(chunk("a", 0, "xxxxxxxxx"), func(c *agentv1.Chunk) { c.Codec, c.Data = agentv1.Codec_S2, s2.Encode(nil, []byte("x")) })}, reason: misuse},
	"zstd garbage":       {say: messages{begin(1), as(agentv1.Codec_ZSTD, []byte("x"))}, reason: misuse},
	"zstd bomb":          {say: messages{begin(1 << 20), forged(chunk("a", 0, whole("x")), func(c *agentv1.Chunk) { c.Codec, c.Data = agentv1.Codec_ZSTD, zstdOf(bomb) })}, reason: misuse},
	"zstd short":         {say: messages{begin(1 << 20), forged(chunk("a", 0, whole("x")), func(c *agentv1.Chunk) { c.Codec, c.Data = agentv1.Codec_ZSTD, zstdOf([]byte("x")) })}, reason: misuse},
	"zeros that are not": {say: messages{begin(1), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Zero, c.Data = []byte{1}, nil })}, reason: damaged},
	"zeros and data":     {say: messages{begin(1), forged(chunk("a", 0, "\x00"), func(c *agentv1.Chunk) { c.Zero = []byte{1} })}, reason: misuse},
	"zeros beyond":       {say: messages{begin(1), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Zero = []byte{2} })}, reason: misuse},
	"zeros far beyond":   {say: messages{begin(1), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Zero = make([]byte, 64) })}, reason: misuse},
	"known beyond":       {say: messages{begin(1), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Known = []byte{2} })}, reason: misuse},
	"known and zero":     {say: messages{begin(block), forged(naming(chunk("a", 0, page4("x"))), func(c *agentv1.Chunk) { c.Zero = []byte{1} })}, reason: misuse},
	"known, of a part":   {say: messages{begin(9), naming(chunk("a", 0, "x"))}, reason: misuse},
	"known, no digest":   {say: messages{begin(block), forged(naming(chunk("a", 0, page4("x"))), func(c *agentv1.Chunk) { c.Digests = nil })}, reason: misuse},
	"known, cut digest":  {say: messages{begin(block), forged(naming(chunk("a", 0, page4("x"))), func(c *agentv1.Chunk) { c.Digests = c.Digests[1:] })}, reason: misuse},
	"digests of none":    {say: messages{begin(9), forged(chunk("a", 0, "x"), func(c *agentv1.Chunk) { c.Digests = zeroDigest[:] })}, reason: misuse},
	"known to nobody":    {say: messages{begin(block), naming(chunk("a", 0, page4("x")))}, reason: missing},
	"no blocks":          {say: messages{beginAhead(0, 1<<20), blocks(nil)}, reason: misuse},
	"too many blocks":    {say: messages{beginAhead(0, 1<<22), blocks(make([]byte, chunkSize+block))}, reason: misuse},
	"blocks beyond":      {say: messages{beginAhead(0, block), blocks(make([]byte, 2*block))}, reason: misuse},
	"blocks again":       {say: messages{beginAhead(0, block), blocks(make([]byte, block)), blocks(make([]byte, block))}, reason: misuse},
	"blocks undeclared":  {say: messages{begin(1 << 20), blocks(make([]byte, block))}, reason: misuse},
	"blocks cut":         {say: messages{beginAhead(0, 1<<20), {Part: &agentv1.PutRequest_Blocks{Blocks: &agentv1.Blocks{Count: 2, Data: make([]byte, block)}}}}, reason: misuse},
	"blocks, zstd bomb":  {say: messages{beginAhead(0, 1<<20), {Part: &agentv1.PutRequest_Blocks{Blocks: &agentv1.Blocks{Count: 1, Codec: agentv1.Codec_ZSTD, Data: zstdOf(bomb)}}}}, reason: misuse},
	"a lot of bytes":     {say: messages{begin(1 << 63)}, reason: tooMuch},
	"a lot of blocks":    {say: messages{beginAhead(0, 1<<63)}, reason: tooMuch},
	"the whole disk":     {say: messages{begin(1 << 40)}, reason: noSpace},
	"name empty":         {say: messages{begin(1), chunk("", 0, "x")}, reason: misuse},
	"name dot":           {say: messages{begin(1), chunk(".", 0, "x")}, reason: misuse},
	"name dots":          {say: messages{begin(1), chunk("..", 0, "x")}, reason: misuse},
	"name hidden":        {say: messages{begin(1), chunk(".a", 0, "x")}, reason: misuse},
	"name of the cache":  {say: messages{begin(1), chunk(aheadFile, 0, "x")}, reason: misuse},
	"name up":            {say: messages{begin(1), chunk("../a", 0, "x")}, reason: misuse},
	"name down":          {say: messages{begin(1), chunk("a/b/c", 0, "x")}, reason: misuse},
	"name down, up":      {say: messages{begin(1), chunk("a/..", 0, "x")}, reason: misuse},
	"name of none":       {say: messages{begin(1), chunk("a/", 0, "x")}, reason: misuse},
	"name from above":    {say: messages{begin(1), chunk("/a", 0, "x")}, reason: misuse},
	"name absolute":      {say: messages{begin(1), chunk("/etc/passwd", 0, "x")}, reason: misuse},
	"name backslash":     {say: messages{begin(1), chunk(`a\b`, 0, "x")}, reason: misuse},
	"name null":          {say: messages{begin(1), chunk("a\x00b", 0, "x")}, reason: misuse},
	"name newline":       {say: messages{begin(1), chunk("a\nb", 0, "x")}, reason: misuse},
	"name long":          {say: messages{begin(1), chunk(strings.Repeat("x", 256), 0, "x")}, reason: misuse},
	"file in a file":     {say: messages{begin(9), chunk("a", 0, "x"), chunk("a/b", 0, "x")}, reason: diskFailed},

	"end without all":    {say: messages{begin(9), chunk("a", 0, "x")}, files: files("a", "x", "b", "y"), reason: incomplete},
	"end within a file":  {say: messages{begin(1 << 22), chunk("a", 0, whole("x"))}, files: files("a", whole("x")+"y"), reason: incomplete},
	"a hole in a file":   {say: messages{begin(1 << 22), chunk("a", chunkSize, "y")}, files: files("a", whole("x")+"y"), reason: incomplete},
	"no files":           {say: messages{begin(9), chunk("a", 0, "x")}, files: noFiles, reason: tooMuch},
	"file twice":         {say: messages{begin(9), chunk("a", 0, "x")}, files: files("a", "x", "a", "x"), reason: misuse},
	"files of more":      {say: messages{begin(1), chunk("a", 0, "x")}, files: files("a", "x", "b", "y"), reason: misuse},
	"size beyond all":    {say: messages{begin(9), chunk("a", 0, "x")}, files: forgedFile(files("a", "x", "b", ""), func(f *agentv1.FileDigest) { f.Size = 1<<64 - 1 }), reason: misuse},
	"end with a link up": {say: messages{begin(9), chunk("a", 0, "x")}, files: files("../a", "x"), reason: misuse},
	"other file digest":  {say: messages{begin(9), chunk("a", 0, "x")}, files: files("a", "y"), reason: damaged},
	"file digest cut":    {say: messages{begin(9), chunk("a", 0, "x")}, files: forgedFile(files("a", "x"), func(f *agentv1.FileDigest) { f.Sha256 = f.Sha256[:31] }), reason: misuse},
	"file digest empty":  {say: messages{begin(9), chunk("a", 0, "x")}, files: forgedFile(files("a", "x"), func(f *agentv1.FileDigest) { f.Sha256 = nil }), reason: misuse},
	"beyond the end":     {say: messages{begin(1 << 22), chunk("a", 0, whole("x")), chunk("a", chunkSize, "y")}, files: files("a", whole("x")), reason: misuse},
	"longer at the end":  {say: messages{begin(9), chunk("a", 0, "xy")}, files: files("a", "x"), reason: misuse},
	"short within":       {say: messages{begin(1 << 22), chunk("a", 0, "x"), chunk("a", chunkSize, "y")}, files: files("a", whole("x")+"y"), reason: misuse},

	"UID empty":   {say: messages{changed(begin(1), func(b *agentv1.Begin) { b.MigrationUid = "" })}, reason: misuse},
	"UID up":      {say: messages{changed(begin(1), func(b *agentv1.Begin) { b.MigrationUid = "../uid" })}, reason: misuse},
	"namespace":   {say: messages{changed(begin(1), func(b *agentv1.Begin) { b.Namespace = "a/b" })}, reason: misuse},
	"migration":   {say: messages{changed(begin(1), func(b *agentv1.Begin) { b.Migration = "../pods" })}, reason: misuse},
	"other move":  {say: messages{changed(begin(1), func(b *agentv1.Begin) { b.Migration = "web-2" })}, reason: byRecord},
	"other epoch": {say: messages{changed(begin(1), func(b *agentv1.Begin) { b.Epoch = 2 })}, reason: byRecord},
	"other UID":   {say: messages{changed(begin(1), func(b *agentv1.Begin) { b.MigrationUid = "uid-9" })}, reason: byRecord},
}

// noFiles is an end that names no file.
var noFiles = []*agentv1.FileDigest{}

func TestHostileSenders(t *testing.T) {
	x := newTarget(t)
	a := x.client(t, x.ca.Node(t, "a"))
	for name, c := range hostile {
		t.Run(name, func(t *testing.T) {
			if name == "the whole disk" {
				x.Store.Reserve = 1 << 60
				defer func() { x.Store.Reserve = 1 }()
			}
			before := x.refusals(c.reason)
			err := put(t, a, c.say...)
			if err == nil && c.files != nil {
				_, err = a.Complete(t.Context(), &agentv1.CompleteRequest{Begin: c.say[0].GetBegin(), Files: c.files})
			}
			if want := statusCodes[c.reason]; status.Code(err) != want {
				t.Errorf("got %v, want %v", err, want)
			}
			if got := x.refusals(c.reason) - before; got != 1 {
				t.Errorf("%v refusals for %s, want 1", got, c.reason)
			}
			x.Wait()
			if c.reason == missing || c.reason == incomplete {
				if err := x.Store.Discard(t.Context(), testMove); err != nil {
					t.Fatal(err)
				}
			}
			wantEmpty(t, x.Store.Dir)
		})
	}
	if len(x.arrivals.uids) > 0 || len(x.Store.calls) > 0 || len(x.Store.coming) > 0 {
		t.Errorf("notices %q, calls %v, coming %v", x.arrivals.uids, x.Store.calls, x.Store.coming)
	}
	// None of them stands in the way of the right one.
	if err := put(t, a, begin(1), chunk("a", 0, "x")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Complete(t.Context(), &agentv1.CompleteRequest{Begin: testBegin(1, 0), Files: files("a", "x")}); err != nil {
		t.Fatal(err)
	}
	wantDir(t, filepath.Join(x.Store.Dir, testDir), map[string][]byte{"a": []byte("x")})
}

// Only agents come through: no observer of the same CA, and nobody of another.
func TestCallerIsNoAgent(t *testing.T) {
	x := newTarget(t)
	s := x.stream(t, t.Context(), x.ca.Identity(t, identity.Subject{Observer: "a"}, nil))
	_ = s.Send(begin(1))
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
		_, err := own.Send(once(t, own), testMove, writeDir(t, map[string][]byte{"a": {1}}))
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

// A connection that is cut leaves what came, which the sender can ask for, and a Discard takes it.
func TestConnectionCut(t *testing.T) {
	x := newTarget(t)
	id := x.ca.Node(t, "a")
	ctx, cut := context.WithCancel(t.Context())
	s := x.stream(t, ctx, id)
	for _, m := range (messages{begin(1 << 22), chunk("a", chunkSize, whole("x")), chunk("b", 0, "y")}) {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	a := x.client(t, id)
	for len(x.have(t, a)) < 2 {
	}
	cut()
	x.Wait()
	got := x.have(t, a)
	if len(got) != 2 || got["a"] != "\x02" || got["b"] != "\x01" {
		t.Errorf("%q is there", got)
	}
	if dir, err := x.Store.Complete(t.Context(), testMove); dir != "" || err != nil {
		t.Errorf("complete: %q, %v", dir, err)
	}
	if err := x.Store.Discard(t.Context(), testMove); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, x.Store.Dir)
}

// The target's server ends: the sender hears of it.
func TestServerStops(t *testing.T) {
	x := newTarget(t)
	admitted := make(chan struct{}, 1)
	x.admission.hook = func() { admitted <- struct{}{} }
	s := x.stream(t, t.Context(), x.ca.Node(t, "a"))
	_ = s.Send(begin(9))
	<-admitted
	x.server.Stop()
	x.Wait()
	if _, err := s.CloseAndRecv(); err == nil {
		t.Error("the call went well")
	}
}

func TestSilentSender(t *testing.T) {
	x := newTarget(t)
	x.Idle = time.Millisecond
	s := x.stream(t, t.Context(), x.ca.Node(t, "a"))
	var answer agentv1.PutResponse
	if err := s.RecvMsg(&answer); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	x.Wait()
	wantEmpty(t, x.Store.Dir)
}

// A Discard ends all calls of a move, and leaves nothing.
func TestDiscarded(t *testing.T) {
	x := newTarget(t)
	admitted := make(chan struct{}, 2)
	x.admission.hook = func() { admitted <- struct{}{} }
	errs := make(chan error, 2)
	for range 2 {
		s := x.stream(t, t.Context(), x.ca.Node(t, "a"))
		_ = s.Send(begin(9))
		_ = s.Send(chunk("a", 0, "x"))
		go func() { errs <- s.RecvMsg(&agentv1.PutResponse{}) }()
	}
	<-admitted
	for { // both are there
		x.Store.mu.Lock()
		n := len(x.Store.calls[testDir])
		x.Store.mu.Unlock()
		if n == 2 {
			break
		}
		runtime.Gosched()
	}
	if err := x.Store.Discard(t.Context(), testMove); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, x.Store.Dir)
	for range 2 {
		if err := <-errs; status.Code(err) != codes.Aborted {
			t.Errorf("got %v", err)
		}
	}
	if got := x.refusals(discarded); got != 2 {
		t.Errorf("%v refusals", got)
	}
}

// A move can have so many calls and no more.
func TestBusy(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Reserve: 1}
	for range maxCalls {
		if _, err := s.join(s.enter(testDir, func(error) {}), "a", testBegin(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	last := s.enter(testDir, func(error) {})
	_, joined := s.join(last, "a", testBegin(1, 0))
	_, _, found := s.find(last) // what Have and Complete do may cost more than its question
	for _, err := range []error{joined, found} {
		var no *refusal
		if !errors.As(err, &no) || no.reason != busy {
			t.Errorf("got %v", err)
		}
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
