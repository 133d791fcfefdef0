package inspect

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"golang.org/x/sys/unix"
)

// bundle is what an OCI bundle's config.json allows its processes (runtime-spec, config.md
// and config-linux.md).
type bundle struct {
	Process struct {
		User struct {
			UID            uint32   `json:"uid"`
			GID            uint32   `json:"gid"`
			AdditionalGids []uint32 `json:"additionalGids"`
		} `json:"user"`
		Capabilities struct {
			Bounding    []string `json:"bounding"`
			Effective   []string `json:"effective"`
			Inheritable []string `json:"inheritable"`
			Permitted   []string `json:"permitted"`
			Ambient     []string `json:"ambient"`
		} `json:"capabilities"`
		NoNewPrivileges bool   `json:"noNewPrivileges"`
		AppArmorProfile string `json:"apparmorProfile"`
		SelinuxLabel    string `json:"selinuxLabel"`
	} `json:"process"`
	Linux struct {
		Namespaces []struct {
			Type string `json:"type"`
		} `json:"namespaces"`
		Seccomp *struct{} `json:"seccomp"`
	} `json:"linux"`

	// bounding and all are sets of capabilities: all is what a process can have come by.
	bounding, all capabilities
}

func readBundle(dir string) (*bundle, error) {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("inspect images: read the waiting container's bundle: %w", err)
	}
	return parseBundle(data)
}

func parseBundle(data []byte) (*bundle, error) {
	b := &bundle{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("inspect images: read the waiting container's bundle: %w", err)
	}
	var err error
	c := b.Process.Capabilities
	if b.bounding, err = named(c.Bounding); err != nil {
		return nil, err
	}
	b.all, err = named(slices.Concat(c.Bounding, c.Effective, c.Inheritable, c.Permitted, c.Ambient))
	return b, err
}

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
		return fmt.Errorf("it has no credentials")
	}
	if err := b.credentials(t.GetCreds()); err != nil {
		return err
	}
	if b.Linux.Seccomp == nil || core.GetTc() == nil {
		// Of a thread that has its process's filters CRIU says that it has none, and gives
		// them to all threads at once.
		return nil
	}
	if t.GetSeccompMode() != criu_core.SeccompMode_filter && core.GetTc().GetOldSeccompMode() != criu_core.SeccompMode_filter {
		return fmt.Errorf("it has no seccomp filter, and the container has one")
	}
	return nil
}

func (b *bundle) credentials(c *creds.CredsEntry) error {
	if c == nil {
		return fmt.Errorf("it has no credentials")
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
			return fmt.Errorf("its %s capabilities hold %s, which the container has not", s.name, more)
		}
	}
	if b.Process.NoNewPrivileges && c.GetNoNewPrivs() == 0 {
		return fmt.Errorf("it may gain privileges (no_new_privs is off), and the container may not")
	}
	if want := b.Process.AppArmorProfile; want != "" && c.GetLsmProfile() != want {
		return fmt.Errorf("its AppArmor profile is %q, the container's %q", c.GetLsmProfile(), want)
	}
	return b.users(c)
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
				return fmt.Errorf("it is user %d, and the container is %d and can become no other", id, u.UID)
			}
		}
	}
	if !b.all.has(unix.CAP_SETGID) {
		for _, id := range slices.Concat([]uint32{c.GetGid(), c.GetEgid(), c.GetSgid(), c.GetFsgid()}, c.GetGroups()) {
			if id != u.GID && !slices.Contains(u.AdditionalGids, id) {
				return fmt.Errorf("it is in group %d, and the container is in %d and %v and can enter no other", id, u.GID, u.AdditionalGids)
			}
		}
	}
	return nil
}

// namespaces refuses a task that would be restored in one of the node's own namespaces and
// not in the container's. host are those that CRIU was in at the dump.
func (b *bundle) namespaces(ids, host *criu_core.TaskKobjIdsEntry) error {
	for _, ns := range b.Linux.Namespaces {
		var own, node uint32
		switch ns.Type {
		case "pid":
			own, node = ids.GetPidNsId(), host.GetPidNsId()
		case "network":
			own, node = ids.GetNetNsId(), host.GetNetNsId()
		case "mount":
			own, node = ids.GetMntNsId(), host.GetMntNsId()
		case "ipc":
			own, node = ids.GetIpcNsId(), host.GetIpcNsId()
		case "uts":
			own, node = ids.GetUtsNsId(), host.GetUtsNsId()
		case "user":
			own, node = ids.GetUserNsId(), host.GetUserNsId()
		case "cgroup":
			own, node = ids.GetCgroupNsId(), host.GetCgroupNsId()
		default:
			continue
		}
		if own == 0 || own == node {
			return fmt.Errorf("it is in the node's own %s namespace (%d), and the container has one of its own", ns.Type, own)
		}
	}
	return nil
}
