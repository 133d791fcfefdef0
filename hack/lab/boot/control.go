package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
)

// Verb is what Ask can ask a node's process 1 for.
type Verb string

const (
	// Status lists the services.
	Status Verb = "status"
	// Kill ends a service at once and keeps it down.
	Kill Verb = "kill"
	// Run starts a service that was killed.
	Run Verb = "run"
)

type request struct {
	Verb    Verb
	Service string
}

type answer struct {
	Error    string          `json:",omitempty"`
	Services []ServiceStatus `json:",omitempty"`
}

// ServiceStatus is a service as its supervisor knows it.
type ServiceStatus struct {
	Name   string
	PID    int // in the node's pid namespace; 0: it does not run
	Done   bool
	Wanted bool
	Starts int
}

// Ask asks the node whose control socket this is, and waits until it is done.
func Ask(ctx context.Context, control string, verb Verb, service string) ([]ServiceStatus, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", control)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, service, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(request{verb, service}); err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, service, err)
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, service, errors.Join(err, ctx.Err()))
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%s %s: %s", verb, service, a.Error)
	}
	return a.Services, nil
}

func serveControl(l net.Listener, u *supervisor) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			var r request
			if err := json.NewDecoder(conn).Decode(&r); err != nil {
				return
			}
			_ = json.NewEncoder(conn).Encode(u.answer(r)) // the asker has gone: nobody to tell
		}()
	}
}

func (u *supervisor) answer(r request) answer {
	var err error
	switch r.Verb {
	case Kill:
		err = u.want(r.Service, false)
	case Run:
		err = u.want(r.Service, true)
	case Status:
	default:
		err = fmt.Errorf("no verb %q", r.Verb)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	var a answer
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.services {
		a.Services = append(a.Services, ServiceStatus{Name: s.Name, PID: s.pid, Done: s.done, Wanted: s.wanted, Starts: s.starts})
	}
	return a
}
