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
// Routes change seldom; looking again every few seconds is enough, as a probe that leaves by
// another device is still answered, and timed in user space.
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
	tick := time.NewTicker(resolveInterval)
	defer tick.Stop()
	told := ""
	for {
		err := r.resolve(handle, meter)
		if now := fmt.Sprint(err); now != told { // once, not every few seconds
			told = now
			if err != nil {
				r.config.Log.Warn("some route times are stamped in user space", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.changed:
		}
	}
}

// resolve tells the programs who the peers are and attaches them where their routes lead.
func (r *Routes) resolve(handle *netlink.Handle, meter *routetime.Meter) error {
	addresses := r.addresses()
	slices.SortFunc(addresses, netip.Addr.Compare)
	errs := []error{meter.SetMembers([]netip.Addr{r.config.Address}, addresses)}

	var devices []int
	for _, address := range addresses {
		device, err := deviceTo(handle, address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.Contains(devices, device) {
			devices = append(devices, device)
		}
	}
	errs = append(errs, meter.SetInterfaces(devices))
	err := errors.Join(errs...)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamp = model.StampKernel
	if err != nil {
		r.stamp = model.StampUser
	}
	return err
}

// deviceTo gives the index of the device that packets to the address leave by.
func deviceTo(handle *netlink.Handle, address netip.Addr) (int, error) {
	routes, err := handle.RouteGet(address.AsSlice())
	if err != nil {
		return 0, fmt.Errorf("look up the route to %s: %w", address, err)
	}
	if len(routes) == 0 {
		return 0, fmt.Errorf("look up the route to %s: none", address)
	}
	return routes[0].LinkIndex, nil
}
