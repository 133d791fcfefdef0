package inspect

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/creds"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/netdev"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/rlimit"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drover-project/drover/nodeagent/imagefile"
)

// config is a bundle as containerd makes it for a restricted pod, shortened.
const config = `{"process":{"user":{"uid":1000,"gid":1000,"additionalGids":[2000]},
 "capabilities":{"bounding":["CAP_NET_BIND_SERVICE","CAP_BPF"],"permitted":["CAP_NET_BIND_SERVICE"],"effective":["CAP_NET_BIND_SERVICE"]},
 "noNewPrivileges":true,"apparmorProfile":"cri-containerd.apparmor.d","oomScoreAdj":500,
 "rlimits":[{"type":"RLIMIT_NOFILE","hard":1024,"soft":1024}]},
 "root":{"path":"rootfs"},
 "mounts":[
  {"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},
  {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
  {"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
  {"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
  {"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
  {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]},
  {"destination":"/etc/config","type":"bind","source":"/pod/volume","options":["rbind","rprivate","ro"]},
  {"destination":"/etc/hosts","type":"bind","source":"/pod/hosts","options":["rbind","rprivate","rw"]},
  {"destination":"/dev/termination-log","type":"bind","source":"/pod/log","options":["rbind","rprivate","rw"]},
  {"destination":"/etc/hostname","type":"bind","source":"/pod/hostname","options":["rbind","rprivate","rw"]},
  {"destination":"/dev/shm","type":"bind","source":"/pod/shm","options":["rbind","rprivate"]},
  {"destination":"/run-link/secrets/kubernetes.io/serviceaccount","type":"bind","source":"/pod/account","options":["rbind","rprivate","ro"]}],
 "linux":{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"},
 "maskedPaths":["/proc/acpi","/proc/keys","/proc/timer_list","/proc/sched_debug","/sys/firmware"],
 "readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"],
 "namespaces":[{"type":"pid"},{"type":"network","path":"/proc/1/ns/net"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]}}`

// dump is what its images say. Those of mounts and files are from testdata: of a container
// of runc's, on kernel 6.18 with control groups of version 1.
type dump struct {
	host    *criu_core.TaskKobjIdsEntry
	ids     *criu_core.TaskKobjIdsEntry
	core    *criu_core.CoreEntry
	creds   *creds.CredsEntry
	config  string
	without string // an image that is missing
	// more are images, by name, in place of those of testdata or beside them.
	more map[string][]byte
	// node is what the node has, by path: "" for a directory, "-> x" for a link.
	node map[string]string
}

func good() *dump {
	namespaces := func(id uint32) *criu_core.TaskKobjIdsEntry {
		return &criu_core.TaskKobjIdsEntry{VmId: proto.Uint32(1), FilesId: proto.Uint32(1), FsId: proto.Uint32(1), SighandId: proto.Uint32(1),
			PidNsId: proto.Uint32(id), NetNsId: proto.Uint32(id + 1), IpcNsId: proto.Uint32(id + 2), UtsNsId: proto.Uint32(id + 3), MntNsId: proto.Uint32(id + 4),
			UserNsId: proto.Uint32(7), CgroupNsId: proto.Uint32(8), TimeNsId: proto.Uint32(6)}
	}
	id := proto.Uint32(1000)
	c := &creds.CredsEntry{Uid: id, Euid: id, Suid: id, Fsuid: id, Gid: id, Egid: id, Sgid: id, Fsgid: id, Secbits: proto.Uint32(0),
		CapBnd: []uint32{1 << 10, 1 << 7}, CapPrm: []uint32{1 << 10, 0}, Groups: []uint32{2000, 1000},
		NoNewPrivs: proto.Uint32(1), LsmProfile: proto.String("cri-containerd.apparmor.d")}
	limits := &criu_core.TaskRlimitsEntry{}
	for range limitNames {
		limits.Rlimits = append(limits.Rlimits, &rlimit.RlimitEntry{Cur: proto.Uint64(1024), Max: proto.Uint64(1024)})
	}
	core := &criu_core.CoreEntry{Mtype: criu_core.CoreEntry_X86_64.Enum(),
		Tc: &criu_core.TaskCoreEntry{TaskState: proto.Uint32(1), ExitCode: proto.Uint32(0), Personality: proto.Uint32(0),
			Flags: proto.Uint32(0), BlkSigset: proto.Uint64(0), Comm: proto.String("x"), Rlimits: limits, OomScoreAdj: proto.Int32(500)},
		ThreadCore: &criu_core.ThreadCoreEntry{FutexRla: proto.Uint64(0), FutexRlaLen: proto.Uint32(0), Creds: c,
			SchedNice: proto.Int32(0), SchedPolicy: proto.Uint32(0), SeccompMode: criu_core.SeccompMode_filter.Enum()}}
	return &dump{host: namespaces(1), ids: namespaces(9), core: core, creds: c, config: config, more: map[string][]byte{},
		node: map[string]string{"proc/acpi": "", "proc/keys": "", "proc/timer_list": "", "proc/sys": "", "proc/bus": "", "proc/fs": "", "proc/irq": "",
			"sys/firmware": "", "bundle/rootfs/run-link": "-> /run", "pod/volume/..data": "-> ..2026", "pod/volume/..2026/key": ""}}
}

func image(t testing.TB, magic uint32, entries ...proto.Message) []byte {
	t.Helper()
	data := binary.LittleEndian.AppendUint32(nil, imagefile.CommonMagic)
	data = binary.LittleEndian.AppendUint32(data, magic)
	for _, e := range entries {
		fill(e.ProtoReflect())
		payload, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		data = binary.LittleEndian.AppendUint32(data, uint32(len(payload)))
		data = append(data, payload...)
	}
	return data
}

// fill sets what CRIU always writes and a test does not mention.
func fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch message := f.Kind() == protoreflect.MessageKind; {
		case f.Cardinality() == protoreflect.Required && !m.Has(f) && !message:
			m.Set(f, f.Default())
		case f.IsList() && message:
			for j := range m.Get(f).List().Len() {
				fill(m.Get(f).List().Get(j).Message())
			}
		case message && (m.Has(f) || f.Cardinality() == protoreflect.Required):
			fill(m.Mutable(f).Message())
		}
	}
}

// write gives the directories of the images and of the node, and the bundle's on that.
func (d *dump) write(t testing.TB) (images, host, bundle string) {
	t.Helper()
	images, host, bundle = t.TempDir(), t.TempDir(), "/bundle"
	if err := os.CopyFS(images, os.DirFS("testdata/dump")); err != nil {
		t.Fatal(err)
	}
	first := good().core
	if strings.Contains(d.config, "selinuxLabel") {
		first.ThreadCore.Creds.LsmProfile = proto.String("system_u:system_r:container_t:s0:c1,c2")
	}
	all := map[string][]byte{
		"inventory.img": image(t, inventoryMagic, &inventory.InventoryEntry{ImgVersion: proto.Uint32(1), RootIds: d.host}),
		"core-1.img":    image(t, coreMagic, first), // always well
		"core-2.img":    image(t, coreMagic, d.core),
		"ids-1.img":     image(t, idsMagic, d.ids),
		"pages-1.img":   []byte("memory"),
	}
	maps.Copy(all, d.more)
	for name, data := range all {
		if err := os.WriteFile(filepath.Join(images, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if d.without != "" {
		if err := os.Remove(filepath.Join(images, d.without)); err != nil {
			t.Fatal(err)
		}
	}
	for name, what := range d.node {
		p := filepath.Join(host, name)
		err := os.MkdirAll(filepath.Dir(p), 0o700)
		if to, ok := strings.CutPrefix(what, "-> "); ok {
			err = errors.Join(err, os.Symlink(to, p))
		} else {
			err = errors.Join(err, os.MkdirAll(p, 0o700))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(host, bundle, "config.json"), []byte(d.config), 0o600); err != nil {
		t.Fatal(err)
	}
	return images, host, bundle
}

// judge inspects what the test has made of a dump.
func (d *dump) judge(t *testing.T, says string) {
	t.Helper()
	err := Copy(d.write(t))
	if says == "" && err != nil {
		t.Errorf("refused: %v", err)
	}
	if says == "" {
		return
	}
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want a refusal that says %q", err, says)
	}
}

// selinux makes the node one of SELinux, where the source's processes have a label.
func (d *dump) selinux(label string) {
	d.config = strings.Replace(d.config, `"apparmorProfile":"cri-containerd.apparmor.d"`, `"selinuxLabel":"system_u:system_r:container_t:s0:c3,c4"`, 1)
	d.creds.LsmProfile = proto.String(label)
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
		"the node's network": {func(d *dump) { d.ids.NetNsId = proto.Uint32(2) }, "node's own network"},
		"the node's mounts":  {func(d *dump) { d.ids.MntNsId = proto.Uint32(5) }, "node's own mount"},
		"the node's pids":    {func(d *dump) { d.ids.PidNsId = proto.Uint32(1) }, "node's own pid"},
		"no ipc":             {func(d *dump) { d.ids.IpcNsId = nil }, "node's own ipc"},
		"in the core": {func(d *dump) {
			d.core.Ids = proto.CloneOf(d.ids)
			d.core.Ids.UtsNsId = proto.Uint32(4)
		}, "node's own uts"},
		"the node's are not told": {func(d *dump) { d.host = nil }, "which namespaces"},
		"a user namespace":        {func(d *dump) { d.ids.UserNsId = proto.Uint32(14) }, "user namespace of its own (14)"},
		"a control group one":     {func(d *dump) { d.ids.CgroupNsId = proto.Uint32(14) }, "cgroup namespace of its own"},
		"another mount namespace": {func(d *dump) {
			ids := proto.CloneOf(d.ids)
			ids.MntNsId = proto.Uint32(14)
			d.more["ids-2.img"] = image(t, idsMagic, ids)
		}, "not that of the container's other"},
		"after a move, in a time namespace of its own": {func(d *dump) { d.ids.TimeNsId = proto.Uint32(14) }, ""},
		"no ids": {func(d *dump) { d.without = "ids-1.img" }, "want some of both"},

		"keeps its capabilities":          {func(d *dump) { d.creds.Secbits = proto.Uint32(0x10) }, ""},
		"securebits":                      {func(d *dump) { d.creds.Secbits = proto.Uint32(0x4) }, "securebits are 0x4; allowed: 0x10"},
		"OOM killer":                      {func(d *dump) { d.core.Tc.OomScoreAdj = proto.Int32(-999) }, "oom_score_adj is -999; allowed: 3 and more"},
		"OOM killer unsaid":               {func(d *dump) { d.core.Tc.OomScoreAdj = nil }, "would have CRIU's"},
		"OOM killer, from a smaller node": {func(d *dump) { d.core.Tc.OomScoreAdj = proto.Int32(100) }, ""},
		"OOM killer, best effort": {func(d *dump) {
			d.config = strings.Replace(d.config, `"oomScoreAdj":500`, `"oomScoreAdj":1000`, 1)
		}, "oom_score_adj is 500; allowed: 1000"},
		"limit":                {func(d *dump) { d.core.Tc.Rlimits.Rlimits[7].Max = proto.Uint64(4096) }, "RLIMIT_NOFILE is 1024, and at most 4096; allowed: 1024"},
		"limit that is lower":  {func(d *dump) { d.core.Tc.Rlimits.Rlimits[7].Max = proto.Uint64(1024) }, ""},
		"limit of the runtime": {func(d *dump) { d.core.Tc.Rlimits.Rlimits[8].Max = proto.Uint64(1 << 40) }, ""},
		"limits unsaid":        {func(d *dump) { d.core.Tc.Rlimits = nil }, "no RLIMIT_NOFILE"},
		"real time":            {func(d *dump) { d.core.ThreadCore.SchedPolicy = proto.Uint32(schedFIFO) }, "scheduling policy is 1"},
		"a batch job":          {func(d *dump) { d.core.ThreadCore.SchedPolicy = proto.Uint32(3) }, ""},
		"not nice":             {func(d *dump) { d.core.ThreadCore.SchedNice = proto.Int32(-5) }, "nice value is -5"},
		"a thread in real time": {func(d *dump) {
			d.core.Tc, d.core.ThreadCore.SchedPolicy = nil, proto.Uint32(schedDeadline)
		}, "scheduling policy is 6"},
		"real time that it may have": {func(d *dump) {
			d.config = strings.Replace(d.config, `"bounding":[`, `"bounding":["CAP_SYS_NICE",`, 1)
			d.core.ThreadCore.SchedPolicy, d.core.ThreadCore.SchedNice = proto.Uint32(schedRR), proto.Int32(-20)
		}, ""},
		"SELinux, with another pod's level": {func(d *dump) { d.selinux("system_u:system_r:container_t:s0:c1,c2") }, ""},
		"SELinux":                           {func(d *dump) { d.selinux("system_u:system_r:spc_t:s0:c3,c4") }, "SELinux label is"},
		"SELinux unsaid":                    {func(d *dump) { d.selinux("") }, "SELinux label is"},
		"SELinux for sockets": {func(d *dump) {
			d.selinux("system_u:system_r:container_t:s0:c1,c2")
			d.creds.LsmSockcreate = proto.String("system_u:system_r:spc_t:s0")
		}, "makes sockets"},

		"more than the standard streams": {func(d *dump) { d.more["descriptors.json"] = []byte(`["a","b","c","pipe:[7]"]`) }, "4 files are handed"},
		"a name that is a command": {func(d *dump) {
			d.more["inventory.img"] = image(t, inventoryMagic, &inventory.InventoryEntry{ImgVersion: proto.Uint32(1), RootIds: d.host,
				DumpCriuRunId: proto.String("x; flush ruleset")})
		}, "the dump is called"},
		"AppArmor policies":       {func(d *dump) { d.more["apparmor.img"] = nil }, "apparmor.img: an image of that name"},
		"users of its own":        {func(d *dump) { d.more["userns-9.img"] = nil }, "userns-9.img: a user namespace"},
		"one in place of another": {func(d *dump) { d.more["tmpfs-dev-056.tar.gz.img"] = nil }, "an image of that name"},
		"an old form":             {func(d *dump) { d.more["reg-files.img"] = nil }, "an image of that name"},
		"rules of the network":    {func(d *dump) { d.more["iptables-10.img"] = nil }, "an image of that name"},
		"a network of CRIU's":     {func(d *dump) { d.more["netns-10.img"] = image(t, netnsMagic, &netdev.NetnsEntry{}) }, "network namespace is"},
		"no network of its node":  {func(d *dump) { d.without = "netns-10.img" }, "0 netns images"},
	} {
		t.Run(name, func(t *testing.T) {
			d := good()
			c.do(d)
			d.judge(t, c.says)
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
			images, host, bundle := good().write(t)
			do(t, images, filepath.Join(host, bundle))
			if err := Copy(images, host, bundle); err == nil || errors.Is(err, ErrRefused) {
				t.Errorf("got %v, want an error that is no refusal", err)
			}
		})
	}
}
