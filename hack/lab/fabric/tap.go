package fabric

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tapQueue is how many frames the kernel keeps for the switch while it is busy.
const tapQueue = 4096

// OpenTAP makes the TAP device name with the given address in the calling thread's network
// namespace (the caller locks its goroutine to the thread first) and gives its file, one
// bare Ethernet frame a read or write. The device has an MTU of 1500, is down, and is gone
// once the file is closed: setting it up and giving it addresses is the caller's work.
func OpenTAP(name string, mac net.HardwareAddr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun for %s: %w", name, err)
	}
	if err := configureTAP(fd, name, mac); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// The descriptor is still in blocking mode, so the runtime's poller leaves it alone:
	// the switch polls by itself.
	return os.NewFile(uintptr(fd), "/dev/net/tun:"+name), nil
}

func configureTAP(fd int, name string, mac net.HardwareAddr) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("tap name %q: %w", name, err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("make tap %s: %w", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find tap %s: %w", name, err)
	}
	if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("give tap %s the address %s: %w", name, mac, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("give tap %s the mtu %d: %w", name, mtu, err)
	}
	if err := netlink.LinkSetTxQLen(link, tapQueue); err != nil {
		return fmt.Errorf("give tap %s a queue of %d: %w", name, tapQueue, err)
	}
	return nil
}
