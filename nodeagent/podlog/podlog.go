// Package podlog counts the lines of containers' logs that match a pattern, for those containers
// whose owner asks for it. It reads the files that the container runtime writes below /var/log/pods
// and keeps nothing of them but counts.
package podlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/internal/health"
)

const (
	// Dir is where kubelet has containers' logs, on the node.
	Dir = "/var/log/pods"
	// interval between two rounds; in each at most CPUShare of it is spent as CPU time, over all
	// containers, and maxRead bytes are read of one of them. The rest is passed over, and counted.
	interval = time.Second
	CPUShare = 0.02
	maxRead  = 1 << 20
	// pieceSize is what is read at once: the CPU time is looked at between pieces.
	pieceSize = 4 << 10
	// young is the age up to which a container that is new here is followed from its beginning.
	young = 10 * time.Second
)

// Container is one whose log is followed.
type Container struct {
	Namespace, Pod, PodUID, Name string
	// Instance is how often it was restarted: its log is named after that. Started is when that
	// instance was; zero: it does not run.
	Instance int
	Started  time.Time
	Pattern  *regexp.Regexp
}

// Key tells containers apart, whatever their instance.
type Key struct{ PodUID, Container string }

func (c Container) key() Key { return Key{c.PodUID, c.Name} }

// path is below Dir.
func (c Container) path() string {
	return filepath.Join(c.Namespace+"_"+c.Pod+"_"+c.PodUID, c.Name, strconv.Itoa(c.Instance)+".log")
}

// Config is what a Follower works with. All fields are wanted.
type Config struct {
	// HostRoot is where the node's root is seen.
	HostRoot string
	// Containers gives those to follow now, in any order.
	Containers func() []Container
	Log        *slog.Logger
}

// Follower follows logs.
type Follower struct {
	config Config
	cpu    func() time.Duration // that this thread has used

	// Of Run alone.
	left   time.Duration // CPU time for the next round; below 0 if the last one took too much
	first  int           // which container comes first in a round: each in turn
	buffer []byte

	mu       sync.Mutex
	followed map[Key]*followed
	spent    time.Duration
}

// followed is one container. Its file belongs to Run; the rest is behind the Follower's lock.
type followed struct {
	file      file
	looked    bool // it is not new: a log that appears now is followed from its beginning
	container Container
	rate      health.Rate
	log       health.Log
}

// New makes a Follower; Run starts it.
func New(config Config) *Follower {
	return &Follower{config: config, cpu: threadCPU, buffer: make([]byte, pieceSize), followed: map[Key]*followed{}}
}

func threadCPU() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // every Linux has that clock
	}
	return time.Duration(t.Nano())
}

// Run reads once a second until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	runtime.LockOSThread() // its CPU time is what is limited
	defer runtime.UnlockOSThread()
	defer f.closeAll()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	told := ""
	for {
		if err := f.round(time.Now()); err != nil && err.Error() != told {
			told = err.Error()
			f.config.Log.Warn("logs of containers with a pattern are not read", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *Follower) closeAll() {
	for _, c := range f.followed {
		c.file.close()
	}
}

// Log tells what was found in a container's log, as of now; false: it is not followed.
func (f *Follower) Log(k Key, now time.Time) (health.Log, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.followed[k]
	if !ok {
		return health.Log{}, false
	}
	c.log.PerMinute = c.rate.PerMinute(now)
	return c.log, true
}

// round reads what was written since the one before.
func (f *Follower) round(now time.Time) error {
	containers := f.config.Containers()
	f.attend(containers)
	if len(containers) == 0 {
		return nil
	}
	dir, err := f.openDir()
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, c := range f.followed {
			c.log.Problem = err.Error()
		}
		return err
	}
	defer dir.Close()
	share := time.Duration(CPUShare * float64(interval))
	f.left = min(share, f.left+share)
	f.first++
	for i := range containers {
		c := containers[(f.first+i)%len(containers)]
		began := f.cpu()
		part := f.left / time.Duration(len(containers)-i)
		f.look(now, dir, c, func() bool { return f.cpu()-began < part })
		took := f.cpu() - began
		f.left -= took
		f.mu.Lock()
		f.spent += took
		f.mu.Unlock()
	}
	return nil
}

// attend begins with containers that are new, or have another pattern, and ends with those that are gone.
func (f *Follower) attend(containers []Container) {
	f.mu.Lock()
	defer f.mu.Unlock()
	present := map[Key]bool{}
	for _, c := range containers {
		present[c.key()] = true
		old, ok := f.followed[c.key()]
		if ok && old.container.Pattern.String() == c.Pattern.String() {
			old.container = c
			continue
		}
		if ok {
			old.file.close()
		}
		f.followed[c.key()] = &followed{container: c}
	}
	for k, c := range f.followed {
		if !present[k] {
			c.file.close()
			delete(f.followed, k)
		}
	}
}

// openDir opens the directory of logs. The node's administrator may have it elsewhere, behind links
// that are meant in the node's root.
func (f *Follower) openDir() (*os.File, error) {
	path, err := securejoin.SecureJoin(f.config.HostRoot, Dir)
	if err != nil {
		return nil, fmt.Errorf("find the node's %s: %w", Dir, err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the node's %s: %w", Dir, err)
	}
	return dir, nil
}

// look reads what is new of one container's log, as long as within says so.
func (f *Follower) look(now time.Time, dir *os.File, container Container, within func() bool) {
	f.mu.Lock()
	c := f.followed[container.key()]
	f.mu.Unlock()
	matches, read := 0, 0
	var passed int64
	err := c.turn(now, dir, func(l *file) error {
		more := func() bool { // asked before every piece
			read += pieceSize
			return read <= maxRead && within()
		}
		n, err := l.read(f.buffer, more, func(line []byte) {
			if container.Pattern.Match(line) {
				matches++
			}
		})
		passed += n
		return err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	c.log.Problem = ""
	if err != nil {
		c.log.Problem = err.Error()
	}
	c.log.Matches += uint64(matches)
	c.log.Skipped += uint64(passed)
	if c.rate.Add(now, matches); matches > 0 {
		c.log.Last = now
	}
}

// turn calls read with the file that was followed so far, and with the one that has taken its place by
// rotation or a restart of the container. A rotated file was written to until there was another.
func (c *followed) turn(now time.Time, dir *os.File, read func(*file) error) error {
	isNew := !c.looked
	c.looked = true
	next, err := open(dir, c.container.path())
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.file.f != nil: // between two files
		return read(&c.file)
	case errors.Is(err, fs.ErrNotExist) && c.container.Started.IsZero(): // it never ran
		return nil
	case err != nil:
		c.file.close()
		return err
	}
	if c.file.f != nil {
		same, err := sameFile(c.file.f, next)
		if err == nil && same {
			next.Close()
			return read(&c.file)
		}
		if err == nil {
			err = read(&c.file)
		}
		if c.file.close(); err != nil {
			next.Close()
			return err
		}
	}
	c.file.f = next
	if isNew && now.Sub(c.container.Started) > young {
		_, err := c.file.pass()
		return err
	}
	return read(&c.file)
}

func sameFile(a, b *os.File) (bool, error) {
	ai, err := a.Stat()
	if err != nil {
		return false, err
	}
	bi, err := b.Stat()
	return err == nil && os.SameFile(ai, bi), err
}
