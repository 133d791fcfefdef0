package inspect

import (
	"fmt"
	"strings"
)

// capabilities is a set of them, by number (capabilities(7), linux/capability.h).
type capabilities uint64

var names = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
	SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD
	LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
	PERFMON BPF CHECKPOINT_RESTORE`)

var numbers = func() map[string]capabilities {
	m := map[string]capabilities{}
	for i, n := range names {
		m["CAP_"+n] = 1 << i
	}
	return m
}()

func named(list []string) (capabilities, error) {
	var set capabilities
	for _, n := range list {
		bit, ok := numbers[n]
		if !ok {
			return 0, fmt.Errorf("inspect images: the container's bundle names a capability %.40q that is not known", n)
		}
		set |= bit
	}
	return set, nil
}

// ofWords takes them as CRIU writes them: in words of 32, the lowest first.
func ofWords(words []uint32) capabilities {
	var set capabilities
	for i, w := range words {
		if i < 2 {
			set |= capabilities(w) << (32 * i)
		} else if w != 0 {
			return ^capabilities(0)
		}
	}
	return set
}

func (c capabilities) has(number int) bool { return c&(1<<number) != 0 }

// String gives the names.
func (c capabilities) String() string {
	var all []string
	for i := range 64 {
		switch {
		case !c.has(i):
		case i < len(names):
			all = append(all, names[i])
		default:
			all = append(all, fmt.Sprintf("number %d", i))
		}
	}
	return strings.Join(all, ", ")
}
