package hosted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/drover-project/drover/internal/process"
)

// Spare is a process that has entered the node and waits for its command. To enter takes some tens
// of milliseconds: who has none to lose when a command is to begin has one ready. It ends with
// its caller.
type Spare struct {
	// command is where it reads its command, started where it tells what came of that.
	command, started *os.File
	process          *os.Process
}

// ErrGone: the spare process has ended before it took its command.
var ErrGone = errors.New("the process that was kept ready is gone")

// Prepare starts one; program and group are as in Command. It does not wait for it.
func Prepare(program, group string) (*Spare, error) {
	started, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, command, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, started.Close())
	}
	defer out.Close()
	s := &Spare{command: command, started: started}
	cmd := exec.Command(program, Verb, group)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = environment
	cmd.ExtraFiles = []*os.File{in, out} // descriptors 3, closed when the command is on its way, and 4
	if err := cmd.Start(); err != nil {
		s.Close()
		return nil, err
	}
	s.process = cmd.Process
	go cmd.Wait() // reaps; how it ended is told by the file
	return s, nil
}

// Close ends it, unless it has got its command.
func (s *Spare) Close() {
	s.command.Close()
	s.started.Close()
}

// Start is as the function Start; Program and Cgroup are those that it was prepared with. It can be
// called once. An error that wraps ErrGone: nothing was started.
func (s *Spare) Start(ctx context.Context, c Command) error {
	defer s.Close()
	stop := context.AfterFunc(ctx, func() {
		if !hasNoted(c.Dir) {
			_ = s.process.Kill() // fails if it has ended
		}
	})
	defer stop()
	gone := json.NewEncoder(s.command).Encode(c)
	message := make([]byte, 4096)
	n, _ := s.started.Read(message)
	switch {
	case n > 0:
		return fmt.Errorf("run %q on the node: %s", c.Args, message[:n])
	case gone != nil:
		return fmt.Errorf("run %q on the node: %w: %w", c.Args, ErrGone, gone)
	case !hasNoted(c.Dir): // it ended with the command in its hands
		return fmt.Errorf("run %q on the node: %w", c.Args, ErrGone)
	}
	return nil
}

// hasNoted tells whether a process has noted that it runs the command in dir. What cannot be read was
// noted.
func hasNoted(dir string) bool {
	p, err := noted(dir)
	return err != nil || p != (process.Process{})
}

// Start runs the command and returns when it is noted in Dir, from where Wait finds it. When ctx ends
// before, a process that has not noted itself yet is killed.
func Start(ctx context.Context, c Command) error {
	s, err := Prepare(c.Program, c.Cgroup)
	if err != nil {
		return fmt.Errorf("run %q on the node: %w", c.Args, err)
	}
	return s.Start(ctx, c)
}
