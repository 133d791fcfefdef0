package inspect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"golang.org/x/sys/unix"
)

// States of a task that has ended and waits for its parent (CRIU's image.h): it is never run.
const (
	taskDead   = 2
	taskZombie = 6
)

// core checks a task or a thread.
func (b *bundle) core(core *criu_core.CoreEntry) error {
	t := core.GetThreadCore()
	if t == nil {
		if s := core.GetTc().GetTaskState(); core.GetTc() != nil && (s == taskDead || s == taskZombie) {
			return nil
		}
		return refuse(tampered, "the container's", "it has no credentials")
	}
	if err := first(b.credentials(t.GetCreds()), b.schedule(t), b.limits(core.GetTc())); err != nil {
		return err
	}
	if b.Linux.Seccomp == nil || core.GetTc() == nil {
		// Of a thread that has its process's filters CRIU says that it has none, and gives
		// them to all threads at once.
		return nil
	}
	if t.GetSeccompMode() != criu_core.SeccompMode_filter && core.GetTc().GetOldSeccompMode() != criu_core.SeccompMode_filter {
		return refuse(differs, "the container's seccomp filter", "it has none")
	}
	return nil
}

func (b *bundle) credentials(c *creds.CredsEntry) error {
	if c == nil {
		return refuse(tampered, "the container's", "it has no credentials")
	}
	for _, s := range []struct {
		name    string
		words   []uint32
		allowed capabilities
	}{
		{"bounding", c.GetCapBnd(), b.bounding},
		{"permitted", c.GetCapPrm(), b.all}, {"effective", c.GetCapEff(), b.all},
		{"inheritable", c.GetCapInh(), b.all}, {"ambient", c.GetCapAmb(), b.all},
	} {
		if more := ofWords(s.words) &^ s.allowed; more != 0 {
			return refuse(differs, s.allowed.String(), "its %s capabilities hold %s", s.name, more)
		}
	}
	if b.Process.NoNewPrivileges && c.GetNoNewPrivs() == 0 {
		return refuse(differs, "no_new_privs", "it may gain privileges (no_new_privs is off)")
	}
	// What every process may set (prctl(2)); the others want SETPCAP.
	if bits := c.GetSecbits(); bits&^keepCaps != 0 && !b.all.has(unix.CAP_SETPCAP) {
		return refuse(tampered, fmt.Sprintf("%#x, since the container has not SETPCAP", keepCaps), "its securebits are %#x", bits)
	}
	return first(b.label(c), b.users(c))
}

// keepCaps is SECBIT_KEEP_CAPS (linux/securebits.h).
const keepCaps = 1 << 4

// label checks the profile of AppArmor or the label of SELinux. The label's level is left to
// the restore, which sets all of the new container's: each pod has a level of its own.
func (b *bundle) label(c *creds.CredsEntry) error {
	got := c.GetLsmProfile()
	if want := b.Process.AppArmorProfile; want != "" && got != want {
		return refuse(differs, fmt.Sprintf("%q", want), "its AppArmor profile is %q", got)
	}
	want := b.Process.SelinuxLabel
	if want == "" {
		return nil
	}
	if domain(got) != domain(want) {
		return refuse(differs, fmt.Sprintf("%q", want), "its SELinux label is %q", got)
	}
	if s := c.GetLsmSockcreate(); s != "" && domain(s) != domain(want) {
		return refuse(differs, fmt.Sprintf("%q", want), "it makes sockets with the SELinux label %q", s)
	}
	return nil
}

// domain is a label of SELinux's user, role and type, without its level.
func domain(label string) string {
	parts := strings.SplitN(label, ":", 4)
	return strings.Join(parts[:min(len(parts), 3)], ":")
}

// users holds the container to its own user where its processes cannot have become another:
// they can with the capability, and by a set-user-ID program where those have effect.
func (b *bundle) users(c *creds.CredsEntry) error {
	u := b.Process.User
	if !b.Process.NoNewPrivileges {
		return nil
	}
	if !b.all.has(unix.CAP_SETUID) {
		for _, id := range []uint32{c.GetUid(), c.GetEuid(), c.GetSuid(), c.GetFsuid()} {
			if id != u.UID {
				return refuse(differs, fmt.Sprintf("%d, since the container can become no other", u.UID), "it is user %d", id)
			}
		}
	}
	if !b.all.has(unix.CAP_SETGID) {
		for _, id := range slices.Concat([]uint32{c.GetGid(), c.GetEgid(), c.GetSgid(), c.GetFsgid()}, c.GetGroups()) {
			if id != u.GID && !slices.Contains(u.AdditionalGids, id) {
				return refuse(differs, fmt.Sprintf("%d and %v, since the container can enter no other", u.GID, u.AdditionalGids), "it is in group %d", id)
			}
		}
	}
	return nil
}

// namespaces refuses a task that would be restored in one of the node's own namespaces and
// not in the container's, or in one that the container has not. host are those that CRIU was
// in at the dump, of those that the container's other tasks are in.
func (b *bundle) namespaces(ids, host, of *criu_core.TaskKobjIdsEntry) error {
	for _, ns := range []struct {
		kind string
		id   func(*criu_core.TaskKobjIdsEntry) uint32
	}{
		{"pid", (*criu_core.TaskKobjIdsEntry).GetPidNsId}, {"network", (*criu_core.TaskKobjIdsEntry).GetNetNsId},
		{"mount", (*criu_core.TaskKobjIdsEntry).GetMntNsId}, {"ipc", (*criu_core.TaskKobjIdsEntry).GetIpcNsId},
		{"uts", (*criu_core.TaskKobjIdsEntry).GetUtsNsId}, {"user", (*criu_core.TaskKobjIdsEntry).GetUserNsId},
		{"cgroup", (*criu_core.TaskKobjIdsEntry).GetCgroupNsId},
	} {
		task, node, others := ns.id(ids), ns.id(host), ns.id(of)
		if _, own := b.namespace(ns.kind); own && (task == 0 || task == node) {
			return refuse(tampered, "one of the container's own", "it is in the node's own %s namespace (%d)", ns.kind, task)
		} else if !own && task != 0 && task != node {
			return refuse(tampered, fmt.Sprintf("the node's, %d", node), "it is in a %s namespace of its own (%d)", ns.kind, task)
		}
		if task != others {
			return refuse(tampered, fmt.Sprint(others), "it is in a %s namespace (%d) that is not that of the container's other processes", ns.kind, task)
		}
	}
	return nil
}
