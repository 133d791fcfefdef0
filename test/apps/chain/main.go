// Command chain is one service of a chain, or who calls it: what the benchmark of outcomes runs in
// the lab.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(`what to do is missing: "serve", "load" or "spent"`)
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "serve":
		s := service{}
		address := fs.String("listen", ":8080", "`address` to answer calls at")
		fs.DurationVar(&s.work, "work", time.Millisecond, "of the CPU, for one call: the mean of an exponential distribution")
		fs.StringVar(&s.next, "next", "", "`URL` of the next service")
		fs.IntVar(&s.calls, "calls", 0, "calls of the next service, one after the other, for one call")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return s.serve(ctx, *address)
	case "load":
		l := load{}
		fs.StringVar(&l.url, "url", "", "`URL` of the first service")
		fs.Float64Var(&l.rate, "rate", 0, "calls a second, at random, whatever becomes of those before")
		fs.IntVar(&l.calls, "calls", 1000, "how many calls")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return l.run(ctx, os.Stdout)
	case "spent":
		url := fs.String("url", "http://127.0.0.1:8080", "`URL` of a service")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return ask(ctx, *url+"/spent", os.Stdout)
	}
	return fmt.Errorf(`%q is nothing to do: "serve", "load" or "spent"`, args[0])
}

// service answers calls when it has worked for them and its calls of the next are answered.
type service struct {
	work  time.Duration
	next  string
	calls int
}

func (s service) serve(ctx context.Context, address string) error {
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/spent", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(spentNow()) })
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answer calls at %s: %w", address, err)
	}
	return nil
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024}, Timeout: time.Minute}

func (s service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	part := time.Duration(rand.ExpFloat64() * float64(s.work) / float64(s.calls+1))
	burn(part)
	for range s.calls {
		if err := call(r.Context(), s.next); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		burn(part)
	}
	io.WriteString(w, "done\n")
}

func call(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("call %s: %s: %s", url, response.Status, body)
	}
	return err
}

// burn uses so much of the CPU, however long that takes.
func burn(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, now := used(), time.Duration(0)
	for now = used(); now < begin+d; now = used() {
	}
	burnt.Add(int64(now - begin))
}

// burnt is for how long this process has worked for calls.
var burnt atomic.Int64

// spent is what this process has used of the CPU, and how much of it was work for calls.
type spent struct {
	CPU  time.Duration `json:"cpu"`
	Work time.Duration `json:"work"`
}

func spentNow() spent {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err) // every kernel has it
	}
	return spent{time.Duration(t.Nano()), time.Duration(burnt.Load())}
}

// ask copies what is at a URL.
func ask(ctx context.Context, url string, to io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(to, response.Body)
	return err
}

// used is what this thread has used of the CPU.
func used() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // every kernel has it
	}
	return time.Duration(t.Nano())
}

// load calls a service and says how long each call took.
type load struct {
	url   string
	rate  float64
	calls int
}

func (l load) run(ctx context.Context, to io.Writer) error {
	if l.rate <= 0 || l.calls <= 0 {
		return fmt.Errorf("%d calls, %v a second: both have to be greater than 0", l.calls, l.rate)
	}
	took, failed := make([]time.Duration, l.calls), make([]error, l.calls)
	var all sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	for i := range l.calls {
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		begin := due // a call that could not leave in time has waited, too
		all.Go(func() {
			failed[i] = call(ctx, l.url)
			took[i] = time.Since(begin)
		})
		due = due.Add(time.Duration(rand.ExpFloat64() / l.rate * float64(time.Second)))
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return json.NewEncoder(to).Encode(took)
}
