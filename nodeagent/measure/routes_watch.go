package measure

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watch sends on moved when devices, routes or routing rules have changed in the network
// namespace of the calling thread, until ctx ends. It returns at once, with a function that
// waits for its end. What cannot be heard of is logged: then only looking finds changes.
func (r *Routes) watch(ctx context.Context, moved chan<- struct{}) (wait func()) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		r.deaf(fmt.Errorf("subscribe to them: %w", err))
		return func() {}
	}
	context.AfterFunc(ctx, socket.Close)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			_, _, err := socket.Receive()
			if ctx.Err() != nil {
				return
			}
			if err != nil && !errors.Is(err, unix.ENOBUFS) { // that says that some were missed
				r.deaf(fmt.Errorf("receive them: %w", err))
				return
			}
			select {
			case moved <- struct{}{}:
			default: // one is waiting already
			}
		}
	}()
	return func() { <-ended }
}

func (r *Routes) deaf(err error) {
	r.config.Log.Warn("changes of devices and routes are not heard of, but looked for",
		"every", r.resolveInterval, "error", err)
}
