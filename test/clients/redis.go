package clients

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Redis has every client write values under keys of its own, each once.
type Redis struct {
	Address string
	Dial    Dial
}

// Connect connects.
func (r *Redis) Connect(i int, deadline time.Time) (Conn, error) { return r.connect(i, deadline) }

func (r *Redis) connect(i int, deadline time.Time) (*redisConn, error) {
	c, err := r.Dial.to(r.Address, deadline)
	if err != nil {
		return nil, err
	}
	return &redisConn{Conn: c, in: bufio.NewReader(c), client: i}, nil
}

func key(client, n int) string { return fmt.Sprintf("c%d:%d", client, n) }
func value(client, n int) string {
	return fmt.Sprintf("%d/%d/%x", client, n, uint64(client+1)*uint64(n)*0x9e3779b97f4a7c15)
}

// batch is how many values are read at a time.
const batch = 500

// Lost reads all values that were acknowledged.
func (r *Redis) Lost(done []int, patience time.Duration) (lost int, first string, err error) {
	conn, err := r.connect(0, time.Now().Add(patience))
	if err != nil {
		return 0, "", fmt.Errorf("look for what is lost: %w", err)
	}
	defer conn.Close()
	for client, count := range done {
		for from := 1; from <= count; from += batch {
			to := min(from+batch-1, count)
			command := []string{"MGET"}
			for n := from; n <= to; n++ {
				command = append(command, key(client, n))
			}
			values, err := conn.command(time.Now().Add(patience), command...)
			if err == nil && len(values) != to-from+1 {
				err = fmt.Errorf("%d values instead of %d", len(values), to-from+1)
			}
			if err != nil {
				return 0, "", fmt.Errorf("look for what is lost: %w", err)
			}
			for i, got := range values {
				if got == value(client, from+i) {
					continue
				}
				if lost++; first == "" {
					first = fmt.Sprintf("key %s holds %q, and %d writes of its client were acknowledged", key(client, from+i), got, count)
				}
			}
		}
	}
	return lost, first, nil
}

// redisConn speaks as much of Redis' protocol (RESP 2) as is needed.
type redisConn struct {
	net.Conn
	in     *bufio.Reader
	client int
}

// Do writes value n.
func (c *redisConn) Do(n int, deadline time.Time) (bool, error) {
	answer, err := c.command(deadline, "SET", key(c.client, n), value(c.client, n))
	if err == nil && (len(answer) != 1 || answer[0] != "OK") {
		err = fmt.Errorf("SET: answer %q", answer)
	}
	return false, err
}

// command gives the strings of an answer: of an array all, of a null an empty one. An error that the server
// tells is an error.
func (c *redisConn) command(deadline time.Time, args ...string) ([]string, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return nil, err
	}
	kind, rest, err := c.line()
	if err != nil {
		return nil, err
	}
	if kind != '*' {
		one, err := c.text(kind, rest)
		return []string{one}, err
	}
	n, err := strconv.Atoi(rest)
	if err != nil {
		return nil, fmt.Errorf("%s: array of %q", args[0], rest)
	}
	var all []string
	for range n {
		if kind, rest, err = c.line(); err != nil {
			return nil, err
		}
		one, err := c.text(kind, rest)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (c *redisConn) line() (kind byte, rest string, err error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return 0, "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return 0, "", errors.New("an empty line for an answer")
	}
	return line[0], line[1:], nil
}

// text gives a simple string, or reads a bulk string.
func (c *redisConn) text(kind byte, rest string) (string, error) {
	switch kind {
	case '+', ':':
		return rest, nil
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return "", err // null
		}
		body := make([]byte, n+2)
		_, err = io.ReadFull(c.in, body)
		return string(body[:n]), err
	}
	return "", fmt.Errorf("answer %q", string(kind)+rest)
}
