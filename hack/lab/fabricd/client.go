// Package fabricd is the process that holds a lab's switch: nodes plug their TAPs in over its unix
// socket, and delays are set over it. As with package boot, any program that imports this package
// can become that process.
package fabricd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Delay is the one-way delay between two ports; negative: nothing passes.
type Delay struct {
	A, B   string
	OneWay time.Duration
}

// Loss is how likely a frame between two ports is lost, 0 to 1, both ways.
type Loss struct {
	A, B string
	Rate float64
}

// request is one line of JSON; one field is set.
type request struct {
	Plug   string `json:",omitempty"` // a port's name; its TAP comes along as a descriptor
	Set    *Delay `json:",omitempty"`
	Lose   *Loss  `json:",omitempty"`
	Delays bool   `json:",omitempty"`
}

type answer struct {
	Error  string  `json:",omitempty"`
	Delays []Delay `json:",omitempty"`
}

// PlugIn hands a TAP to the switch as the port of that name. The plug is out when the connection
// ends, also by the death of its holder. A switch that is just starting is waited for.
func PlugIn(socket, port string, tap *os.File) (net.Conn, error) {
	conn, err := dialRetry(socket, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("plug %s into the switch: %w", port, err)
	}
	line, err := json.Marshal(request{Plug: port})
	if err == nil {
		_, _, err = conn.WriteMsgUnix(append(line, '\n'), unix.UnixRights(int(tap.Fd())), nil)
	}
	if err == nil {
		_, err = read(conn)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("plug %s into the switch: %w", port, err)
	}
	return conn, nil
}

func dialRetry(socket string, patience time.Duration) (*net.UnixConn, error) {
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err == nil || time.Now().After(deadline) {
			return conn, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// SetDelay sets the one-way delay between two ports, both ways.
func SetDelay(ctx context.Context, socket string, d Delay) error {
	_, err := ask(ctx, socket, request{Set: &d})
	if err != nil {
		return fmt.Errorf("set delay between %s and %s to %s: %w", d.A, d.B, d.OneWay, err)
	}
	return nil
}

// SetLoss makes the link between two ports, both of which must have been plugged in, lose frames.
func SetLoss(ctx context.Context, socket string, l Loss) error {
	if _, err := ask(ctx, socket, request{Lose: &l}); err != nil {
		return fmt.Errorf("set loss between %s and %s to %g: %w", l.A, l.B, l.Rate, err)
	}
	return nil
}

// Delays lists the one-way delays of all pairs, sorted.
func Delays(ctx context.Context, socket string) ([]Delay, error) {
	a, err := ask(ctx, socket, request{Delays: true})
	if err != nil {
		return nil, fmt.Errorf("list delays: %w", err)
	}
	return a.Delays, nil
}

func ask(ctx context.Context, socket string, r request) (answer, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return answer{}, err
	}
	return read(conn)
}

func read(conn net.Conn) (answer, error) {
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return answer{}, fmt.Errorf("read the switch's answer: %w", err)
	}
	if a.Error != "" {
		return answer{}, errors.New(a.Error)
	}
	return a, nil
}
