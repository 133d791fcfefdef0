package measure

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/drover-project/drover/bpf/routetime"
	"github.com/drover-project/drover/internal/model"
)

// follow keeps the kernel's programs on the devices that lead to the peers, until ctx ends.
// Until a change is seen, an answer that comes by another device is timed in user space.
func (r *Routes) follow(ctx context.Context, meter *routetime.Meter) error {
	if meter == nil {
		<-ctx.Done()
		return nil
	}
	handle, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("measure routes: open netlink: %w", err)
	}
	defer handle.Close()
	moved := make(chan struct{}, 1)
	defer r.watch(ctx, moved)()
	tick := time.NewTicker(r.resolveInterval)
	defer tick.Stop()
	var told, toldXDP string
	if !r.config.XDP { // an agent before this one may have been asked for it
		if err := meter.SetReflectors(nil); err != nil {
			r.config.Log.Warn("XDP may still turn probes round", "error", err)
		}
	}
	for {
		devices, err := r.resolve(handle, meter)
		if now := fmt.Sprint(err); now != told { // once, not every few seconds
			told = now
			if err != nil {
				r.config.Log.Warn("some route times are stamped in user space", "error", err)
			}
		}
		if r.config.XDP {
			on, err := r.reflect(meter, devices)
			if now := fmt.Sprint(on, err); now != toldXDP {
				toldXDP = now
				r.config.Log.Info("XDP turns probes round", "devices", on)
				if err != nil {
					r.config.Log.Warn("tc turns probes round where XDP was asked for", "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.changed:
		case <-moved:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		}
	}
}

// resolve tells the programs who the peers are and attaches them where their routes lead.
func (r *Routes) resolve(handle *netlink.Handle, meter *routetime.Meter) ([]int, error) {
	addresses := r.addresses()
	slices.SortFunc(addresses, netip.Addr.Compare)
	errs := []error{meter.SetMembers([]netip.Addr{r.config.Address}, addresses)}

	var devices []int
	for _, address := range addresses {
		towards, err := devicesTo(handle, address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		devices = append(devices, towards...)
	}
	slices.Sort(devices)
	devices = slices.Compact(devices)
	errs = append(errs, meter.SetInterfaces(devices))
	err := errors.Join(errs...)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamp = model.StampKernel
	if err != nil {
		r.stamp = model.StampUser
	}
	return devices, err
}

// reflect attaches the XDP program to the devices, and says on which it is now and how.
// Where it is refused the tc programs go on answering.
func (r *Routes) reflect(meter *routetime.Meter, devices []int) ([]string, error) {
	err := meter.SetReflectors(devices)
	var on []string
	for _, index := range devices {
		if mode := meter.Reflecting(index); mode != "" {
			on = append(on, fmt.Sprintf("%d (%s)", index, mode))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.xdp = len(on)
	return on, err
}

// devicesTo gives the indexes of the devices that packets to the address may leave by: one,
// or, when the node itself chooses between several equal routes, all of theirs.
func devicesTo(handle *netlink.Handle, address netip.Addr) ([]int, error) {
	routes, err := handle.RouteGetWithOptions(address.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil {
		return nil, fmt.Errorf("look up the route to %s: %w", address, err)
	}
	var devices []int
	for _, route := range routes {
		if route.LinkIndex > 0 {
			devices = append(devices, route.LinkIndex)
		}
		for _, hop := range route.MultiPath {
			devices = append(devices, hop.LinkIndex)
		}
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("look up the route to %s: it leads to no device: %v", address, routes)
	}
	return devices, nil
}
