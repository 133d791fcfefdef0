package inspect

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"google.golang.org/protobuf/proto"
)

// config is a bundle as containerd makes it for a restricted pod, shortened.
const config = `{"process":{"user":{"uid":1000,"gid":1000,"additionalGids":[2000]},
 "capabilities":{"bounding":["CAP_NET_BIND_SERVICE","CAP_BPF"],"permitted":["CAP_NET_BIND_SERVICE"],"effective":["CAP_NET_BIND_SERVICE"]},
 "noNewPrivileges":true,"apparmorProfile":"cri-containerd.apparmor.d"},
 "linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"},
 "namespaces":[{"type":"pid"},{"type":"network","path":"/proc/1/ns/net"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]}}`

// dump is what its images say.
type dump struct {
	host    *criu_core.TaskKobjIdsEntry
	ids     *criu_core.TaskKobjIdsEntry
	core    *criu_core.CoreEntry
	creds   *creds.CredsEntry
	config  string
	without string // an image that is missing
}

func good() *dump {
	namespaces := func(id uint32) *criu_core.TaskKobjIdsEntry {
		return &criu_core.TaskKobjIdsEntry{VmId: proto.Uint32(1), FilesId: proto.Uint32(1), FsId: proto.Uint32(1), SighandId: proto.Uint32(1),
			PidNsId: proto.Uint32(id), NetNsId: proto.Uint32(id), IpcNsId: proto.Uint32(id), UtsNsId: proto.Uint32(id), MntNsId: proto.Uint32(id)}
	}
	id := proto.Uint32(1000)
	c := &creds.CredsEntry{Uid: id, Euid: id, Suid: id, Fsuid: id, Gid: id, Egid: id, Sgid: id, Fsgid: id, Secbits: proto.Uint32(0),
		CapBnd: []uint32{1 << 10, 1 << 7}, CapPrm: []uint32{1 << 10, 0}, Groups: []uint32{2000, 1000},
		NoNewPrivs: proto.Uint32(1), LsmProfile: proto.String("cri-containerd.apparmor.d")}
	core := &criu_core.CoreEntry{Mtype: criu_core.CoreEntry_X86_64.Enum(),
		Tc: &criu_core.TaskCoreEntry{TaskState: proto.Uint32(1), ExitCode: proto.Uint32(0), Personality: proto.Uint32(0),
			Flags: proto.Uint32(0), BlkSigset: proto.Uint64(0), Comm: proto.String("x")},
		ThreadCore: &criu_core.ThreadCoreEntry{FutexRla: proto.Uint64(0), FutexRlaLen: proto.Uint32(0), Creds: c,
			SeccompMode: criu_core.SeccompMode_filter.Enum()}}
	return &dump{host: namespaces(1), ids: namespaces(2), core: core, creds: c, config: config}
}

func image(t *testing.T, magic uint32, m proto.Message) []byte {
	t.Helper()
	payload, err := proto.MarshalOptions{AllowPartial: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	data := binary.LittleEndian.AppendUint32(nil, commonMagic)
	data = binary.LittleEndian.AppendUint32(data, magic)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(payload)))
	return append(data, payload...)
}

// write gives the directories of the images and of the bundle.
func (d *dump) write(t *testing.T) (images, bundle string) {
	t.Helper()
	images, bundle = t.TempDir(), t.TempDir()
	for name, data := range map[string][]byte{
		"inventory.img": image(t, inventoryMagic, &inventory.InventoryEntry{ImgVersion: proto.Uint32(1), RootIds: d.host}),
		"core-1.img":    image(t, coreMagic, good().core), // the first is always well
		"core-2.img":    image(t, coreMagic, d.core),
		"ids-1.img":     image(t, idsMagic, d.ids),
		"pages-1.img":   []byte("memory"),
	} {
		if name == d.without {
			continue
		}
		if err := os.WriteFile(filepath.Join(images, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(d.config), 0o600); err != nil {
		t.Fatal(err)
	}
	return images, bundle
}

func TestCopy(t *testing.T) {
	const root = `"user":{"uid":0,"gid":0},`
	for name, c := range map[string]struct {
		do   func(*dump)
		says string // empty: it is restored
	}{
		"as dumped":                {func(*dump) {}, ""},
		"dropped what it had":      {func(d *dump) { d.creds.CapBnd, d.creds.CapPrm = []uint32{0, 0}, nil }, ""},
		"raised one that it may":   {func(d *dump) { d.creds.CapEff, d.creds.CapAmb = []uint32{1 << 10}, []uint32{1 << 10} }, ""},
		"bounding":                 {func(d *dump) { d.creds.CapBnd[0] |= 1 << 21 }, "bounding capabilities hold SYS_ADMIN"},
		"permitted":                {func(d *dump) { d.creds.CapPrm[0] |= 1 << 19 }, "permitted capabilities hold SYS_PTRACE"},
		"effective":                {func(d *dump) { d.creds.CapEff = []uint32{1} }, "effective capabilities hold CHOWN"},
		"inheritable":              {func(d *dump) { d.creds.CapInh = []uint32{2} }, "inheritable capabilities hold DAC_OVERRIDE"},
		"ambient":                  {func(d *dump) { d.creds.CapAmb = []uint32{0, 1 << 8} }, "ambient capabilities hold CHECKPOINT_RESTORE"},
		"one that nobody knows":    {func(d *dump) { d.creds.CapPrm = []uint32{0, 1 << 30} }, "number 62"},
		"a third word":             {func(d *dump) { d.creds.CapPrm = []uint32{0, 0, 1} }, "capabilities hold"},
		"no_new_privs":             {func(d *dump) { d.creds.NoNewPrivs = proto.Uint32(0) }, "no_new_privs"},
		"no_new_privs is not said": {func(d *dump) { d.creds.NoNewPrivs = nil }, "no_new_privs"},
		"AppArmor":                 {func(d *dump) { d.creds.LsmProfile = proto.String("unconfined") }, "AppArmor"},
		"user":                     {func(d *dump) { d.creds.Uid = proto.Uint32(0) }, "it is user 0"},
		"saved user":               {func(d *dump) { d.creds.Suid = proto.Uint32(0) }, "it is user 0"},
		"group":                    {func(d *dump) { d.creds.Egid = proto.Uint32(0) }, "group 0"},
		"another group":            {func(d *dump) { d.creds.Groups = append(d.creds.Groups, 42) }, "group 42"},
		"a user that it can become": {func(d *dump) {
			d.config = strings.Replace(d.config, `"bounding":[`, `"bounding":["CAP_SETUID","CAP_SETGID",`, 1)
			d.creds.Uid, d.creds.Egid = proto.Uint32(0), proto.Uint32(0)
		}, ""},
		"a user by a set-user-ID program": {func(d *dump) {
			d.config = strings.Replace(d.config, `"noNewPrivileges":true`, `"noNewPrivileges":false`, 1)
			d.creds.Uid = proto.Uint32(0)
		}, ""},
		"another user than the container's": {func(d *dump) {
			d.config = strings.Replace(d.config, `"user":{"uid":1000,"gid":1000,"additionalGids":[2000]},`, root, 1)
		}, "it is user 1000"},
		"no credentials":                      {func(d *dump) { d.core.ThreadCore.Creds = nil }, "no credentials"},
		"nothing of a task":                   {func(d *dump) { d.core.ThreadCore = nil }, "no credentials"},
		"a zombie":                            {func(d *dump) { d.core.ThreadCore, d.core.Tc.TaskState = nil, proto.Uint32(taskDead) }, ""},
		"a thread":                            {func(d *dump) { d.core.Tc = nil }, ""},
		"no seccomp":                          {func(d *dump) { d.core.ThreadCore.SeccompMode = criu_core.SeccompMode_disabled.Enum() }, "seccomp"},
		"seccomp unsaid":                      {func(d *dump) { d.core.ThreadCore.SeccompMode = nil }, "seccomp"},
		"a thread with its process's seccomp": {func(d *dump) { d.core.Tc, d.core.ThreadCore.SeccompMode = nil, nil }, ""},
		"a thread with more":                  {func(d *dump) { d.core.Tc, d.creds.CapEff = nil, []uint32{1} }, "effective capabilities"},
		"unconfined": {func(d *dump) {
			d.config = strings.Replace(d.config, `"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"},`, "", 1)
			d.core.ThreadCore.SeccompMode = nil
		}, ""},
		"the node's network": {func(d *dump) { d.ids.NetNsId = proto.Uint32(1) }, "node's own network"},
		"the node's mounts":  {func(d *dump) { d.ids.MntNsId = proto.Uint32(1) }, "node's own mount"},
		"the node's pids":    {func(d *dump) { d.ids.PidNsId = proto.Uint32(1) }, "node's own pid"},
		"no ipc":             {func(d *dump) { d.ids.IpcNsId = nil }, "node's own ipc"},
		"in the core": {func(d *dump) {
			d.core.Ids = proto.CloneOf(d.ids)
			d.core.Ids.UtsNsId = proto.Uint32(1)
		}, "node's own uts"},
		"the node's are not told": {func(d *dump) { d.host = nil }, "which namespaces"},
		"no ids":                  {func(d *dump) { d.without = "ids-1.img" }, "want some of both"},
	} {
		t.Run(name, func(t *testing.T) {
			d := good()
			c.do(d)
			err := Copy(d.write(t))
			if c.says == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if c.says != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("got %v, want a refusal that says %q", err, c.says)
			}
		})
	}
}

// What cannot be read is not restored, and said to be that.
func TestUnreadable(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, images, bundle string){
		"no inventory": func(t *testing.T, images, _ string) { os.Remove(filepath.Join(images, "inventory.img")) },
		"no bundle":    func(t *testing.T, _, bundle string) { os.Remove(filepath.Join(bundle, "config.json")) },
		"no images":    func(t *testing.T, images, _ string) { os.RemoveAll(images) },
		"a link": func(t *testing.T, images, _ string) {
			outside := filepath.Join(t.TempDir(), "core")
			if err := errors.Join(os.Rename(filepath.Join(images, "core-2.img"), outside),
				os.Symlink(outside, filepath.Join(images, "core-2.img"))); err != nil {
				t.Fatal(err)
			}
		},
		"two entries": func(t *testing.T, images, _ string) {
			f := filepath.Join(images, "core-2.img")
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, append(data, data[8:]...), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"another kind": func(t *testing.T, images, _ string) {
			if err := os.Rename(filepath.Join(images, "ids-1.img"), filepath.Join(images, "core-2.img")); err != nil {
				t.Fatal(err)
			}
		},
		"a capability that is not known": func(t *testing.T, _, bundle string) {
			if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(`{"process":{"capabilities":{"bounding":["CAP_MAGIC"]}}}`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			images, bundle := good().write(t)
			do(t, images, bundle)
			if err := Copy(images, bundle); err == nil || errors.Is(err, ErrRefused) {
				t.Errorf("got %v, want an error that is no refusal", err)
			}
		})
	}
}
