package boot

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// poll is how often a condition is tried: a lab's start is a chain of them.
const poll = 25 * time.Millisecond

func (u *supervisor) await(c Condition) {
	if c.Done != "" {
		u.awaitDone(c.Done)
		return
	}
	for c.try() != nil {
		time.Sleep(poll)
	}
}

func (u *supervisor) awaitDone(name string) {
	s := u.find(name)
	if s == nil {
		return // checked when the spec was made
	}
	for {
		u.mu.Lock()
		done, changed := s.done, s.changed
		u.mu.Unlock()
		if done {
			return
		}
		<-changed
	}
}

func (c Condition) try() error {
	switch {
	case c.Unix != "":
		return tryDial("unix", c.Unix)
	case c.TCP != "":
		return tryDial("tcp", c.TCP)
	case c.TLS != nil:
		return c.TLS.try()
	}
	return nil
}

func tryDial(network, address string) error {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err == nil {
		conn.Close()
	}
	return err
}

func (p *Probe) try() error {
	cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return fmt.Errorf("probe %s: %w", p.URL, err)
	}
	ca, err := os.ReadFile(p.CA)
	if err != nil {
		return fmt.Errorf("probe %s: %w", p.URL, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return errors.New("probe " + p.URL + ": no certificate in " + p.CA)
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
	}}
	r, err := client.Get(p.URL)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("probe %s: %s", p.URL, r.Status)
	}
	return nil
}
