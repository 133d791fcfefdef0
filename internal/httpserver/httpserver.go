// Package httpserver serves HTTP to callers that nobody knows.
package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Serve serves at an address until ctx ends, and then returns nil.
func Serve(ctx context.Context, address string, h http.Handler) error {
	s := bounded(address, h)
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", address, err)
	}
	return nil
}

// bounded holds no connection for who neither asks nor reads.
func bounded(address string, h http.Handler) *http.Server {
	const ask = 10 * time.Second
	return &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: ask, ReadTimeout: ask, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute}
}
