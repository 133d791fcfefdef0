package fabricd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drover-project/drover/hack/lab/cgroup"
	"github.com/drover-project/drover/hack/lab/detach"
	"github.com/drover-project/drover/hack/lab/fabric"
)

// argv0 is how ps shows the process; its arguments are the lab, the socket and the cgroup.
const argv0 = "drover-lab-fabric"

func init() {
	if len(os.Args) != 4 || os.Args[0] != argv0 {
		return
	}
	if err := run(os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintf(os.Stderr, "fabric of lab %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Start starts the process; it outlives the caller, which must Wait for it or end before it. It
// joins the cgroup, but not in v1's cpu hierarchy: with CONFIG_RT_GROUP_SCHED only a group with
// real-time runtime may hold the switch's thread, and the machine's root has all of it.
func Start(lab, socket, group string, log *os.File) (*os.Process, error) {
	cmd, err := detach.Command(log, argv0, lab, socket, group)
	if err != nil {
		return nil, fmt.Errorf("start the switch: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the switch: %w", err)
	}
	return cmd.Process, nil
}

func run(socket, group string) error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	tree, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if err := tree.Join(group, "memory", "cpu"); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for plugs: %w", err)
	}
	d := newDaemon()
	warnIfNotRealtime()
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				fmt.Fprintf(os.Stderr, "accept: %v\n", err)
				os.Exit(1)
			}
			go d.serve(conn)
		}
	}()
	<-d.first // a switch without any port does not run
	return d.sw.Run(context.Background())
}

// warnIfNotRealtime says it in the log when the switch's thread will not get SCHED_FIFO.
func warnIfNotRealtime() {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine: nothing else becomes real-time
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
		err := unix.SchedSetAttr(0, attr, 0)
		result <- err
	}()
	if err := <-result; err != nil {
		fmt.Fprintf(os.Stderr, "warning: no real-time priority (%v): delays are less exact while the machine is busy\n", err)
	}
}

type daemon struct {
	sw    *fabric.Switch
	first chan struct{} // closed with the first plug

	mu    sync.Mutex
	plugs map[string]*os.File
	want  map[[2]string]time.Duration // delays asked for before both ports were there
}

func newDaemon() *daemon {
	return &daemon{
		sw: fabric.New(nil), first: make(chan struct{}),
		plugs: map[string]*os.File{}, want: map[[2]string]time.Duration{},
	}
}

func (d *daemon) serve(conn *net.UnixConn) {
	defer conn.Close()
	buf, oob := make([]byte, 4096), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return
	}
	var r request
	if err := json.NewDecoder(bytes.NewReader(buf[:n])).Decode(&r); err != nil {
		reply(conn, answer{Error: fmt.Sprintf("not a request: %v", err)})
		return
	}
	switch {
	case r.Plug != "":
		d.plug(conn, r.Plug, oob[:oobn])
	case r.Set != nil:
		d.setDelay(*r.Set)
		reply(conn, answer{})
	case r.Lose != nil:
		if err := d.sw.SetLoss(r.Lose.A, r.Lose.B, r.Lose.Rate); err != nil {
			reply(conn, answer{Error: err.Error()})
			return
		}
		reply(conn, answer{})
	case r.Delays:
		reply(conn, answer{Delays: d.delays()})
	default:
		reply(conn, answer{Error: "empty request"})
	}
}

// reply's error means that the asker has gone.
func reply(conn net.Conn, a answer) { _ = json.NewEncoder(conn).Encode(a) }

func (d *daemon) plug(conn *net.UnixConn, port string, oob []byte) {
	tap, err := receiveFile(oob)
	if err == nil {
		err = d.attach(port, tap)
	}
	if err != nil {
		reply(conn, answer{Error: err.Error()})
		return
	}
	reply(conn, answer{})
	_, _ = conn.Read(make([]byte, 1)) // ends when its holder does
	d.unplug(port, tap)
}

func receiveFile(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("a plug needs a descriptor: %d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("a plug needs one descriptor: %d: %w", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "tap"), nil
}

func (d *daemon) attach(port string, tap *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.sw.Attach(fabric.Port{Name: port, File: tap}); err != nil {
		return err
	}
	if len(d.plugs) == 0 {
		close(d.first)
	}
	old, known := d.plugs[port]
	if old != nil {
		old.Close()
	}
	d.plugs[port] = tap
	if known {
		return nil // the switch has kept its delays
	}
	for pair, oneWay := range d.want {
		if _, err := d.apply(pair, oneWay); err != nil {
			return err
		}
	}
	return nil
}

// unplug takes the device away unless another has come in its place.
func (d *daemon) unplug(port string, tap *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plugs[port] != tap {
		return
	}
	d.plugs[port] = nil
	tap.Close()
	// A closed file is a port without a device: the switch lets go of its own descriptor.
	if err := d.sw.Attach(fabric.Port{Name: port, File: tap}); err != nil {
		fmt.Fprintf(os.Stderr, "unplug %s: %v\n", port, err)
	}
}

func (d *daemon) setDelay(delay Delay) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pair := [2]string{min(delay.A, delay.B), max(delay.A, delay.B)}
	d.want[pair] = delay.OneWay
	if _, err := d.apply(pair, delay.OneWay); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n", err)
	}
}

// apply tells whether both ports have been plugged in yet.
func (d *daemon) apply(pair [2]string, oneWay time.Duration) (bool, error) {
	for _, port := range pair {
		if _, ok := d.plugs[port]; !ok {
			return false, nil
		}
	}
	return true, d.sw.SetDelay(pair[0], pair[1], oneWay)
}

func (d *daemon) delays() []Delay {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Delay
	for pair, oneWay := range d.sw.Delays() {
		out = append(out, Delay{A: pair[0], B: pair[1], OneWay: oneWay})
	}
	slices.SortFunc(out, func(x, y Delay) int { return cmp.Or(cmp.Compare(x.A, y.A), cmp.Compare(x.B, y.B)) })
	return out
}
