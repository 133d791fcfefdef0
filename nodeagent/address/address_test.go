package address

import (
	"net/netip"
	"testing"
)

func addrs(all ...string) (a []netip.Addr) {
	for _, s := range all {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

func TestValid(t *testing.T) {
	for name, test := range map[string]struct {
		old  []netip.Addr
		to   string
		want bool
	}{
		"IPv4":                    {addrs("10.0.0.1"), "10.0.1.1", true},
		"IPv6":                    {addrs("fd00::1"), "fd00::2", true},
		"both, IPv6 first":        {addrs("fd00::1", "10.0.0.1"), "fd00::2", true},
		"none":                    {nil, "10.0.1.1", false},
		"three":                   {addrs("10.0.0.1", "fd00::1", "10.0.0.2"), "10.0.1.1", false},
		"two of one family":       {addrs("10.0.0.1", "10.0.0.2"), "10.0.1.1", false},
		"the new one of another":  {addrs("10.0.0.1", "fd00::1"), "fd00::2", false},
		"the same":                {addrs("10.0.0.1"), "10.0.0.1", false},
		"loopback":                {addrs("127.0.0.1"), "10.0.1.1", false},
		"link-local":              {addrs("fe80::1"), "fd00::2", false},
		"multicast":               {addrs("224.0.0.1"), "10.0.1.1", false},
		"unspecified":             {addrs("0.0.0.0"), "10.0.1.1", false},
		"IPv4 in IPv6":            {addrs("::ffff:10.0.0.1"), "10.0.1.1", false},
		"the new one is no pod's": {addrs("10.0.0.1"), "127.0.0.1", false},
	} {
		if err := (Lease{Old: test.old, New: netip.MustParseAddr(test.to)}).Valid(); (err == nil) != test.want {
			t.Errorf("%s: %v, want valid: %v", name, err, test.want)
		}
	}
	if err := (Lease{Old: addrs("10.0.0.1")}).Valid(); err == nil {
		t.Error("a lease that leads nowhere is valid")
	}
}
