package boot

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// restartDelay keeps a program that ends at once from spinning.
const restartDelay = 500 * time.Millisecond

// supervisor starts a node's services and starts them again when they end. It reaps every process
// of the node, as process 1 must.
type supervisor struct {
	mu       sync.Mutex
	services []*service
	byPID    map[int]*service
}

type service struct {
	Service
	log     *os.File
	wanted  bool
	pid     int  // 0: does not run
	done    bool // Once, and ended well
	starts  int
	changed chan struct{} // closed and replaced at every change of the above
}

func newSupervisor(s *Spec) (*supervisor, error) {
	super := &supervisor{byPID: map[int]*service{}}
	for _, spec := range s.Services {
		log, err := os.OpenFile(filepath.Join(s.Logs, spec.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open log of %s: %w", spec.Name, err)
		}
		super.services = append(super.services, &service{Service: spec, log: log, wanted: true, changed: make(chan struct{})})
	}
	return super, nil
}

// run never returns.
func (u *supervisor) run() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	for _, s := range u.services {
		go u.keep(s)
	}
	for range died {
		u.reap()
	}
}

func (u *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		u.mu.Lock()
		if s := u.byPID[pid]; s != nil {
			delete(u.byPID, pid)
			s.pid = 0
			s.done = s.Once && status.Exited() && status.ExitStatus() == 0
			fmt.Fprintf(s.log, "--- %s %s ended: exit %d, signal %v\n", now(), s.Name, status.ExitStatus(), status.Signal())
			s.notify()
		}
		u.mu.Unlock()
	}
}

func now() string { return time.Now().UTC().Format("15:04:05.000") }

// notify is called with the supervisor's mu held.
func (s *service) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// keep starts the service whenever it is wanted and does not run.
func (u *supervisor) keep(s *service) {
	for {
		u.mu.Lock()
		idle, again, changed := !s.wanted || s.pid != 0 || s.done, s.starts > 0, s.changed
		u.mu.Unlock()
		if idle {
			<-changed
			continue
		}
		if again {
			time.Sleep(restartDelay)
		}
		for _, c := range s.After {
			u.await(c)
		}
		if err := u.start(s); err != nil {
			fmt.Fprintf(s.log, "--- %s %v\n", now(), err)
			time.Sleep(restartDelay)
		}
	}
}

func (u *supervisor) start(s *service) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	u.mu.Lock() // held over the fork, so that reap knows the pid
	defer u.mu.Unlock()
	if !s.wanted || s.pid != 0 {
		return nil
	}
	path, err := lookPath(s.Argv[0])
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	s.starts++
	fmt.Fprintf(s.log, "--- %s start %q\n", now(), s.Argv)
	pid, err := syscall.ForkExec(path, s.Argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), s.log.Fd(), s.log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	s.pid = pid
	u.byPID[pid] = s
	s.notify()
	return nil
}

func lookPath(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode()&0o111 != 0 && !st.IsDir() {
			return p, nil
		}
	}
	return "", fmt.Errorf("no program %q in %s", name, os.Getenv("PATH"))
}

func (u *supervisor) find(name string) *service {
	for _, s := range u.services {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// want starts the service, or kills it (SIGKILL: a crash, not a shutdown) and keeps it down. It
// returns when the service runs, or no longer does.
func (u *supervisor) want(name string, wanted bool) error {
	s := u.find(name)
	if s == nil {
		return fmt.Errorf("no service %q", name)
	}
	u.mu.Lock()
	s.wanted = wanted
	s.starts = 0
	if !wanted && s.pid != 0 {
		_ = unix.Kill(s.pid, unix.SIGKILL)
	}
	s.notify()
	for (s.pid != 0) != wanted {
		changed := s.changed
		u.mu.Unlock()
		<-changed
		u.mu.Lock()
	}
	u.mu.Unlock()
	return nil
}
