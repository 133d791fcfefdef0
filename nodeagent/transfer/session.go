package transfer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/drover-project/drover/api/agent/v1"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// session is what a source knows of one transfer, over all its calls and connections.
type session struct {
	sender  *Sender
	move    migrate.Move
	address string
	// ctx ends all that is under way.
	ctx    context.Context
	cancel context.CancelFunc
	// control is the connection of the first stream, and of calls of one message.
	control *grpc.ClientConn
	pace    pace
	count   count

	// lanes are open, and follower feeds them, or nil. They and unsure belong to the goroutine
	// of the move.
	lanes    *lanes
	follower *follower
	// unsure: what the target has must be asked for. pushed is how many bytes of files were pushed, gone
	// how many of those that there are no more.
	unsure       bool
	pushed, gone uint64

	mu    sync.Mutex
	files map[string]*goingFile
	// ahead are contents that the target has, by digest.
	ahead map[digest]struct{}
}

// goingFile is a file of the dump. CRIU writes pages in their order and never again, so a
// chunk of them that was read whole is read for good, as long as the file is the same.
type goingFile struct {
	id     fileID
	chunks []goingChunk
}

type goingChunk struct {
	sum digest
	// read: sum is known. said: it went, or is about to go, on streams whose answer is not
	// there yet. there: the target has verified it.
	read, said, there bool
}

func newSession(s *Sender, m migrate.Move, address string) (*session, error) {
	if _, err := beginOf(m); err != nil {
		return nil, err
	}
	control, err := s.dial(m, address)
	if err != nil {
		return nil, err
	}
	x := &session{
		sender: s, move: m, address: address, control: control,
		files: map[string]*goingFile{}, ahead: map[digest]struct{}{},
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	return x, nil
}

// close ends what is under way and waits for it.
func (x *session) close() {
	x.cancel()
	x.unfollow()
	x.shut()
	x.control.Close()
}

// begin says which move, and how much at most beside what has gone.
func (x *session) begin(total, ahead uint64) *agentv1.Begin {
	b, _ := beginOf(x.move) // newSession has tried
	b.TotalBytes, b.AheadBytes = total+x.gone, ahead
	return b
}

// send tries until all is there.
func (x *session) send(ctx context.Context, path string) error {
	x.unfollow()
	dir, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	images, total, err := listImages(dir, false)
	if err != nil {
		return err
	}
	x.count.begin(total)
	// Streams that Follow has opened may have failed for what is over: they prove nothing.
	early := x.lanes != nil
	patience := x.sender.Patience
	if patience <= 0 {
		patience = 10 * time.Second
	}
	since := time.Now()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		before := x.count.done.Load()
		err := x.attempt(ctx, path, images, total)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !passes(err) && !early {
			return err
		}
		early = false
		x.again(err)
		if x.count.done.Load() > before {
			pause, since = firstPause, time.Now()
		}
		if time.Since(since) >= patience {
			return fmt.Errorf("nothing has come there for %v: %w", patience, err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// again prepares another try.
func (x *session) again(err error) {
	x.unsure = true
	if status.Code(err) == codes.FailedPrecondition {
		x.forgetAhead() // it may be that which the target has not
	}
	x.sender.Metrics.again()
	if log := x.sender.Log; log != nil {
		log.Warn("images did not reach the target; trying again", "migration", x.move.Namespace+"/"+x.move.Name, "node", x.move.Target.Node, "err", err)
	}
	if x.sender.lost != nil {
		x.sender.lost(err)
	}
}

// attempt sends what is missing and has the target confirm all.
func (x *session) attempt(ctx context.Context, path string, images []image, total uint64) error {
	complete := false
	if x.unsure {
		x.shut()
		var err error
		if complete, err = x.ask(ctx); err != nil {
			return err
		}
		x.unsure = false
	}
	if err := x.missing(path, images, total, complete); err != nil {
		return err
	}
	m, b := x.manifest(images), x.begin(total, 0)
	answer, err := agentv1.NewPeerClient(x.control).Complete(ctx, &agentv1.CompleteRequest{Begin: b, Files: m})
	if err != nil {
		return err
	}
	if answer.GetBytes() != b.GetTotalBytes() {
		return fmt.Errorf("the target confirms %d bytes, %d were declared", answer.GetBytes(), b.GetTotalBytes())
	}
	return nil
}

// missing reads what was not read and, unless the target has all, sends what it has not.
func (x *session) missing(path string, images []image, total uint64, complete bool) error {
	if x.lanes == nil || x.lanes.total < total {
		if err := x.shut(); err != nil {
			return err
		}
		if !complete {
			x.lanes = x.open(total, 0)
		} else {
			x.lanes = x.readers()
		}
	}
	jobs := x.jobs(path, images, complete)
	for _, j := range jobs {
		if x.lanes.put(j.job()) != nil {
			break // shut tells why
		}
	}
	return x.shut()
}

// jobs are the chunks that are missing.
func (x *session) jobs(path string, images []image, complete bool) []chunkJob {
	var jobs []chunkJob
	var done uint64
	for _, i := range images {
		f := x.file(i.name, i.id, chunksOf(i.size))
		x.mu.Lock()
		for n := range chunksOf(i.size) {
			c := &f.chunks[n]
			if c.read && (c.said || c.there) {
				done += min(chunkSize, i.size-n*chunkSize)
			}
			if c.said || c.read && (c.there || complete) {
				continue
			}
			quiet := complete || c.there
			c.said = !quiet
			jobs = append(jobs, chunkJob{session: x, path: path, image: i, file: f, index: n, final: true, quiet: quiet})
		}
		x.mu.Unlock()
	}
	x.count.done.Store(done)
	return jobs
}

// shut closes the streams that are open, and gives what the target says to them.
func (x *session) shut() error {
	l := x.lanes
	x.lanes = nil
	if l == nil {
		return nil
	}
	return l.close()
}

// ask asks the target what it has.
func (x *session) ask(ctx context.Context) (complete bool, err error) {
	answer, err := agentv1.NewPeerClient(x.control).Have(ctx, &agentv1.HaveRequest{Begin: x.begin(0, 0)})
	if err != nil {
		return false, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	there := map[string]bitmap{}
	for _, f := range answer.GetFiles() {
		there[f.GetName()] = f.GetThere()
	}
	for name, f := range x.files {
		for i := range f.chunks {
			f.chunks[i].said, f.chunks[i].there = false, there[name].has(i)
		}
	}
	return answer.GetComplete(), nil
}

// manifest names all images. Every chunk has been read.
func (x *session) manifest(images []image) []*agentv1.FileDigest {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := make([]*agentv1.FileDigest, len(images))
	for n, i := range images {
		chunks := x.files[i.name].chunks
		sums := make([]digest, len(chunks))
		for k := range chunks {
			sums[k] = chunks[k].sum
		}
		sum := root(sums)
		all[n] = &agentv1.FileDigest{Name: i.name, Size: i.size, Sha256: sum[:]}
	}
	return all
}

// file gives what is known of a file of so many chunks.
func (x *session) file(name string, id fileID, chunks uint64) *goingFile {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.files[name]
	if f == nil || f.id != id {
		f = &goingFile{id: id}
		x.files[name] = f
	}
	for uint64(len(f.chunks)) < chunks {
		f.chunks = append(f.chunks, goingChunk{})
	}
	return f
}

func (x *session) change(f *goingFile, i uint64, change func(*goingChunk)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	change(&f.chunks[i])
}

// there tells whether the target has verified a chunk.
func (x *session) there(f *goingFile, i uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return f.chunks[i].there
}

// known tells whether the target has a content.
func (x *session) known(sum digest) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.ahead[sum]
	return ok
}

func (x *session) forgetAhead() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.ahead)
}
