package clients

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var quick = Config{Clients: 3, Every: time.Millisecond, Patience: 10 * time.Second}

// run has clients work until there were so many requests in all, each phase in turn; requests counts them, or
// else the clients do.
func run(t *testing.T, s Service, requests *atomic.Int64, phases ...int64) Report {
	t.Helper()
	c := quick
	if requests == nil {
		c.Answered = &atomic.Int64{}
		requests = c.Answered
	}
	input, names := io.Pipe()
	go func() {
		for i, n := range phases {
			for end := requests.Load() + n; requests.Load() < end; {
				time.Sleep(time.Millisecond)
			}
			fmt.Fprintf(names, "phase %d\n", i+1)
		}
		names.Close()
	}()
	r, err := Run(c, s, input)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A connection that the server closes with notice is no failure, one that it drops is.
func TestHTTP(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := requests.Add(1); {
		case n == 20:
			panic(http.ErrAbortHandler) // the connection is dropped
		case n == 30:
			w.WriteHeader(http.StatusServiceUnavailable)
		case n%7 == 0:
			w.Header().Set("Connection", "close")
		}
	}))
	defer server.Close()
	r := run(t, &HTTP{Address: server.Listener.Addr().String(), Path: "/"}, &requests, 50, 50)
	if r.Failed != 2 || r.Reconnected != 2 || !slices.ContainsFunc(r.Failures, func(f string) bool { return strings.Contains(f, "503") }) {
		t.Errorf("%+v: want the dropped connection and the answer 503 to be the failures", r)
	}
	if r.Done < 98 || len(r.Phases) < 2 || r.Phases[0].Name != "begin" || r.Phases[1].Name != "phase 1" || r.Phases[1].P99 < r.Phases[1].P50 {
		t.Errorf("%+v: want two phases of 50 requests or so", r)
	}
}

// fakeRedis forgets some values.
type fakeRedis struct {
	mu     sync.Mutex
	values map[string]string
	sets   atomic.Int64
	forget int64 // of every so many writes one is acknowledged and not kept
	drop   int64 // that write is kept, and its connection dropped before it is acknowledged
}

func (f *fakeRedis) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		var n int
		if _, err := fmt.Fscanf(in, "*%d\r\n", &n); err != nil {
			return
		}
		args := make([]string, n)
		for i := range args {
			var size int
			if _, err := fmt.Fscanf(in, "$%d\r\n", &size); err != nil {
				return
			}
			body := make([]byte, size+2)
			if _, err := io.ReadFull(in, body); err != nil {
				return
			}
			args[i] = string(body[:size])
		}
		if !f.answer(c, args) {
			return
		}
	}
}

func (f *fakeRedis) answer(c net.Conn, args []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if args[0] == "SET" {
		n := f.sets.Add(1)
		if f.forget == 0 || n%f.forget != 0 {
			f.values[args[1]] = args[2]
		}
		if n == f.drop {
			return false
		}
		fmt.Fprint(c, "+OK\r\n")
		return true
	}
	fmt.Fprintf(c, "*%d\r\n", len(args)-1)
	for _, k := range args[1:] {
		if v, ok := f.values[k]; ok {
			fmt.Fprintf(c, "$%d\r\n%s\r\n", len(v), v)
		} else {
			fmt.Fprint(c, "$-1\r\n")
		}
	}
	return true
}

func TestRedis(t *testing.T) {
	for _, test := range []struct {
		name                 string
		forget, drop         int64
		failed, reconnected  int
		someLost, wordOfLost bool
	}{
		{"all well", 0, 0, 0, 0, false, false},
		{"a connection is dropped", 0, 10, 1, 1, false, false},
		{"writes are forgotten", 10, 0, 0, 0, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f := &fakeRedis{values: map[string]string{}, forget: test.forget, drop: test.drop}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go f.serve(c)
				}
			}()
			r := run(t, &Redis{Address: l.Addr().String()}, &f.sets, 100)
			if r.Failed != test.failed || r.Reconnected != test.reconnected || (r.Lost > 0) != test.someLost || (r.FirstLost != "") != test.wordOfLost {
				t.Errorf("%+v: want %d failures, %d connections anew, some lost: %v", r, test.failed, test.reconnected, test.someLost)
			}
			if r.Done < 90 {
				t.Errorf("%d writes were acknowledged, want 100 or so", r.Done)
			}
		})
	}
}

func TestPhase(t *testing.T) {
	var took []time.Duration
	for i := range 100 {
		took = append(took, time.Duration(100-i)*time.Millisecond)
	}
	want := Phase{Name: "x", Requests: 100, P50: 50, P99: 99, Max: 100}
	if p := phase("x", took); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
}

// A line that is lost or doubled on its way is a failure of its client, and so is a connection that ends.
func TestLines(t *testing.T) {
	for _, c := range []struct{ answer, failed string }{{"", ""}, {"7\n7\n", `came back as "7`}, {"8\n", `came back as "8`}, {"close", "EOF"}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go echoes(l, c.answer)
		r := run(t, &Lines{Address: l.Addr().String()}, nil, 100)
		if (r.Failed > 0) != (c.failed != "") || r.Failed > 0 && !strings.Contains(r.Failures[0], c.failed) {
			t.Errorf("line 7 is answered by %q: %+v, want a failure %q", c.answer, r, c.failed)
		}
	}
}

// echoes gives lines back, and for the line 7 of the first connection something else, if that is not empty.
func echoes(l net.Listener, answer string) {
	for first := true; ; first = false {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for in := bufio.NewScanner(c); in.Scan(); {
				switch says := in.Text(); {
				case first && says == "7" && answer == "close":
					return
				case first && says == "7" && answer != "":
					io.WriteString(c, answer)
				default:
					fmt.Fprintln(c, says)
				}
			}
		}()
	}
}
