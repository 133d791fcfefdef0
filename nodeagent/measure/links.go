package measure

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"

	"github.com/drover-project/drover/internal/kernelfile"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/traffic"
)

// Links measures what the devices that lead to other nodes carry: those of the default routes
// and of the routes to the peers. It may be used by several at once.
type Links struct {
	sys    string
	window time.Duration
	routes *Routes

	mu       sync.Mutex
	handle   *netlink.Handle
	resolved time.Time
	devices  []int
	samples  []linkSample // oldest first
	links    []traffic.Link
}

type linkSample struct {
	at      time.Time
	carried map[int]carried // by index
}

// carried is a device's counters, which begin at any value.
type carried struct{ sent, received uint64 }

// NewLinks makes a Links of the network namespace in which Read is called for the first time.
// sys is where sysfs is mounted, usually /sys; rates are means over the window; the peers are
// those of the routes.
func NewLinks(sys string, window time.Duration, routes *Routes) *Links {
	return &Links{sys: sys, window: window, routes: routes}
}

// Read measures at now. The first call knows no rates and gives nil, and so does one that finds
// no device.
func (l *Links) Read(now time.Time) (*model.Bandwidth, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	links, err := l.read(now)
	if err != nil {
		l.links = nil
		return nil, fmt.Errorf("measure the node's bandwidth: %w", err)
	}
	l.links = links
	return sum(links), nil
}

// sum is nil of no links.
func sum(links []traffic.Link) *model.Bandwidth {
	if len(links) == 0 {
		return nil
	}
	b := &model.Bandwidth{}
	known := true
	for _, link := range links {
		b.Sent += link.Sent
		b.Received += link.Received
		b.Capacity += link.Capacity
		known = known && link.Capacity > 0
	}
	if !known {
		b.Capacity = 0
	}
	return b
}

// Links gives what was read last, by name.
func (l *Links) Links() []traffic.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.links)
}

func (l *Links) read(now time.Time) ([]traffic.Link, error) {
	if l.handle == nil {
		handle, err := netlink.NewHandle()
		if err != nil {
			return nil, fmt.Errorf("open netlink: %w", err)
		}
		l.handle = handle // for as long as the process lives
	}
	if l.devices == nil || now.Sub(l.resolved) >= resolveInterval {
		devices, err := outward(l.handle, l.routes.addresses())
		if err != nil {
			return nil, err
		}
		l.devices, l.resolved = devices, now
	}
	sample := linkSample{now, map[int]carried{}}
	var links []traffic.Link
	for _, index := range l.devices {
		device, err := l.handle.LinkByIndex(index)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			l.devices = nil // it has just gone
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read device %d: %w", index, err)
		}
		a := device.Attrs()
		if a.Statistics == nil {
			return nil, fmt.Errorf("read device %s: it has no counters", a.Name)
		}
		sample.carried[index] = carried{a.Statistics.TxBytes, a.Statistics.RxBytes}
		link, known := l.rate(now, index, sample.carried[index])
		if !known {
			continue
		}
		link.Name = a.Name
		link.Capacity, link.Unknown = capacity(l.sys, a.Name)
		links = append(links, link)
	}
	l.samples = append(l.samples, sample)
	for len(l.samples) > 2 && !l.samples[1].at.After(now.Add(-l.window)) {
		l.samples = l.samples[1:]
	}
	slices.SortFunc(links, func(a, b traffic.Link) int { return strings.Compare(a.Name, b.Name) })
	return links, nil
}

// rate is the mean since the oldest sample that has the device.
func (l *Links) rate(now time.Time, index int, c carried) (traffic.Link, bool) {
	for _, s := range l.samples {
		was, ok := s.carried[index]
		wall := now.Sub(s.at).Seconds()
		if !ok || wall <= 0 || c.sent < was.sent || c.received < was.received {
			continue
		}
		return traffic.Link{Sent: model.Rate(float64(c.sent-was.sent) / wall), Received: model.Rate(float64(c.received-was.received) / wall)}, true
	}
	return traffic.Link{}, false
}

// outward lists the devices that lead off the node: of default routes and to the peers. One
// that is on top of another that is listed, as a VLAN is, is left out.
func outward(handle *netlink.Handle, peers []netip.Addr) ([]int, error) {
	var devices []int
	add := func(index int) {
		if index > 0 && !slices.Contains(devices, index) {
			devices = append(devices, index)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := handle.RouteList(nil, family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // they are listed again soon
			return nil, fmt.Errorf("list the routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
				continue
			}
			add(r.LinkIndex)
			for _, hop := range r.MultiPath {
				add(hop.LinkIndex)
			}
		}
	}
	for _, peer := range peers {
		// One that cannot be reached has no device.
		if to, err := devicesTo(handle, peer); err == nil {
			for _, device := range to {
				add(device)
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(devices), func(index int) bool {
		device, err := handle.LinkByIndex(index)
		if err != nil {
			return true
		}
		a := device.Attrs()
		below := a.ParentIndex > 0 && a.NetNsID < 0 && slices.Contains(devices, a.ParentIndex)
		return below || a.EncapType == "loopback"
	}), nil
}

// capacity is what a device says that it can carry in each direction, or why that is not known.
// A device that is none of hardware and is on top of none says a number that means nothing:
// a veth 10 Gbit/s, a tap 10 Mbit/s.
func capacity(sys, name string) (model.Rate, string) {
	if !onHardware(sys, name, 0) {
		return 0, "it is no hardware"
	}
	file := filepath.Join(sys, "class/net", name, "speed")
	text, err := kernelfile.Read(file)
	if err != nil {
		return 0, "it tells no speed" // EINVAL: its driver has none, or it is down
	}
	mbit, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || mbit <= 0 { // -1, in some drivers 2^32-1 as an int
		return 0, "it tells no speed"
	}
	return model.Rate(mbit) * 1e6 / 8, ""
}

// onHardware follows bonds, VLANs and bridges to what is below them.
func onHardware(sys, name string, depth int) bool {
	dir := filepath.Join(sys, "class/net", name)
	if _, err := os.Stat(filepath.Join(dir, "device")); err == nil {
		return true
	}
	lower, _ := filepath.Glob(filepath.Join(dir, "lower_*"))
	if len(lower) == 0 || depth > 8 {
		return false
	}
	for _, l := range lower {
		if !onHardware(sys, strings.TrimPrefix(filepath.Base(l), "lower_"), depth+1) {
			return false
		}
	}
	return true
}

var (
	networkUsedDesc = prometheus.NewDesc("drover_node_network_bytes_per_second",
		"What the devices that lead to other nodes carry, a mean of the last seconds.", []string{"device", "direction"}, nil)
	networkCapacityDesc = prometheus.NewDesc("drover_node_network_capacity_bytes_per_second",
		"What the device can carry in each direction; absent where it does not tell.", []string{"device"}, nil)
)

// Describe is for prometheus.Registerer.
func (l *Links) Describe(ch chan<- *prometheus.Desc) {
	ch <- networkUsedDesc
	ch <- networkCapacityDesc
}

// Collect is for prometheus.Registerer: what was read last.
func (l *Links) Collect(ch chan<- prometheus.Metric) {
	for _, link := range l.Links() {
		ch <- prometheus.MustNewConstMetric(networkUsedDesc, prometheus.GaugeValue, float64(link.Sent), link.Name, "sent")
		ch <- prometheus.MustNewConstMetric(networkUsedDesc, prometheus.GaugeValue, float64(link.Received), link.Name, "received")
		if link.Capacity > 0 {
			ch <- prometheus.MustNewConstMetric(networkCapacityDesc, prometheus.GaugeValue, float64(link.Capacity), link.Name)
		}
	}
}
