package clients

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// HTTP has every client ask for a page over one connection. It does without net/http's client,
// which asks again by itself, unseen, when a kept connection turns out to be closed.
type HTTP struct {
	Address, Path string
	Dial          Dial
}

// Connect connects.
func (h *HTTP) Connect(_ int, deadline time.Time) (Conn, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+h.Address+h.Path, nil)
	if err != nil {
		return nil, err
	}
	c, err := h.Dial.to(h.Address, deadline)
	if err != nil {
		return nil, err
	}
	return &httpConn{c, bufio.NewReader(c), request}, nil
}

// Lost is nothing: what was answered was answered.
func (h *HTTP) Lost([]int, time.Duration) (int, string, error) { return 0, "", nil }

type httpConn struct {
	net.Conn
	in      *bufio.Reader
	request *http.Request
}

// Do asks once; an answer other than 200 is a failure.
func (c *httpConn) Do(_ int, deadline time.Time) (last bool, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return false, err
	}
	if err := c.request.Write(c.Conn); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(c.in, c.request)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Close, fmt.Errorf("answer %s", resp.Status)
	}
	return resp.Close, nil
}
