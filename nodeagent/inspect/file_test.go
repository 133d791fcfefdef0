package inspect

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/bpfmap-file"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/ghost-file"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mnt"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/ns"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/packet-sock"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/tun"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/drover-project/drover/nodeagent/imagefile"
)

// devArchive is the content of /dev.
const devArchive = "tmpfs-dev-56.tar.gz.img"

// opened is a file by its path, in the mount that it is in.
func opened(t *testing.T, name string, flags uint32) *fdinfo.FileEntry {
	m := tree(genuine[mnt.MntEntry](t, mountsImage, mountsMagic))
	where := filepath.Join("/", name)
	for m.at(where) == nil {
		where = filepath.Dir(where)
	}
	return &fdinfo.FileEntry{Type: fdinfo.FdTypes_REG.Enum(), Id: proto.Uint32(50), Reg: &regfile.RegFileEntry{
		Id: proto.Uint32(50), Flags: &flags, Name: &name, MntId: proto.Int32(int32(m.at(where).GetMntId()))}}
}

func TestFiles(t *testing.T) {
	reg := func(name string) func(*dump) *fdinfo.FileEntry {
		return func(*dump) *fdinfo.FileEntry { return opened(t, name, 0) }
	}
	inet := func(do func(*sk_inet.InetSkEntry)) *fdinfo.FileEntry {
		for _, e := range genuine[fdinfo.FileEntry](t, "files.img", filesMagic) {
			if e.GetType() == fdinfo.FdTypes_INETSK {
				do(e.GetIsk())
				return e
			}
		}
		t.Fatal("no socket in testdata")
		return nil
	}
	bound := func(at, dir string) *fdinfo.FileEntry {
		return &fdinfo.FileEntry{Type: fdinfo.FdTypes_UNIXSK.Enum(), Id: proto.Uint32(50), Usk: &sk_unix.UnixSkEntry{
			Id: proto.Uint32(50), Name: append([]byte(at), 0), NameDir: &dir}}
	}
	may := func(d *dump, c string) {
		d.config = strings.Replace(d.config, `"bounding":[`, `"bounding":["`+c+`",`, 1)
	}
	for name, c := range map[string]struct {
		do   func(*dump) *fdinfo.FileEntry
		says string
	}{
		"of its image":               {reg("/counter"), ""},
		"of the cgroups":             {reg("/sys/fs/cgroup/cpu/cpu.stat"), ""},
		"of a process":               {reg("/proc/1/status"), ""},
		"a directory of descriptors": {reg("/proc/7/fd"), ""},
		"of a volume":                {reg("/etc/config/..2026/key"), ""},
		"out of the container":       {reg("/../../etc/shadow"), "without dots"},
		"out of a directory":         {reg("/dev/x/../../../etc/shadow"), "without dots"},
		"no path":                    {reg("."), "absolute path"},
		"CRIU's program":             {reg("/proc/self/exe"), "behind the link /proc/self"},
		"CRIU's program, by its PID": {reg("/proc/7/exe"), "behind the link /proc/7/exe"},
		"CRIU's files":               {reg("/proc/7/fd/1022/etc/shadow"), "behind the link /proc/7/fd"},
		"a thread's files":           {reg("/proc/7/task/9/fd/3"), "behind the link /proc/7/task/9/fd/3"},
		"CRIU's root":                {reg("/proc/1/root/etc/shadow"), "behind the link"},
		"mapped by CRIU":             {reg("/proc/1/map_files/1-2"), "behind the link"},
		"behind a link in /dev":      {reg("/dev/fd/1022"), "behind the link /fd"},
		"behind a link of its image": {reg("/run-link/x"), "behind the link /run-link"},
		"behind a link of a volume":  {reg("/etc/config/..data/key"), "behind the link /..data"},
		"a link itself":              {func(*dump) *fdinfo.FileEntry { return opened(t, "/dev/fd", unix.O_PATH|unix.O_NOFOLLOW) }, ""},
		"a link followed":            {func(*dump) *fdinfo.FileEntry { return opened(t, "/dev/fd", unix.O_PATH) }, "behind the link /fd"},
		"under a mount": {func(*dump) *fdinfo.FileEntry {
			e := opened(t, "/dev/shm/x", 0)
			e.Reg.MntId = proto.Int32(103)
			return e
		}, "is in the mount 103; allowed: 121 (/dev/shm)"},
		"from outside": {func(*dump) *fdinfo.FileEntry {
			e := opened(t, "/counter", 0)
			e.Reg.Ext = proto.Bool(true)
			return e
		}, "is from outside"},

		"a raw socket": {func(*dump) *fdinfo.FileEntry {
			return inet(func(s *sk_inet.InetSkEntry) {
				s.Type, s.Proto = proto.Uint32(unix.SOCK_RAW), proto.Uint32(unix.IPPROTO_ICMP)
			})
		}, "a raw socket (family 10, protocol 1); allowed: those that need no more than the container's capabilities: NET_BIND_SERVICE, BPF"},
		"a raw socket that it may have": {func(d *dump) *fdinfo.FileEntry {
			may(d, "CAP_NET_RAW")
			return inet(func(s *sk_inet.InetSkEntry) { s.Type = proto.Uint32(unix.SOCK_RAW) })
		}, ""},
		"a packet socket": {func(*dump) *fdinfo.FileEntry {
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_PACKETSK.Enum(), Id: proto.Uint32(50), Psk: &packet_sock.PacketSockEntry{}}
		}, "a packet socket"},
		"a socket that marks packets": {func(*dump) *fdinfo.FileEntry {
			return inet(func(s *sk_inet.InetSkEntry) { s.Opts.SoMark = proto.Uint32(0x4000) })
		}, "marks packets (0x4000)"},
		"a socket of another network": {func(*dump) *fdinfo.FileEntry {
			return inet(func(s *sk_inet.InetSkEntry) { s.NsId = proto.Uint32(2) })
		}, "in the network namespace 2; allowed: that of its processes, 10"},
		"a tun device": {func(*dump) *fdinfo.FileEntry {
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_TUNF.Enum(), Id: proto.Uint32(50), Tunf: &tun.TunfileEntry{}}
		}, "a tun or tap device"},
		"a BPF map that it may have": {func(*dump) *fdinfo.FileEntry {
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_BPFMAP.Enum(), Id: proto.Uint32(50), Bpf: &bpfmap_file.BpfmapFileEntry{}}
		}, ""},
		"a BPF map": {func(d *dump) *fdinfo.FileEntry {
			d.config, d.creds.CapBnd = strings.Replace(d.config, `,"CAP_BPF"`, "", 1), nil
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_BPFMAP.Enum(), Id: proto.Uint32(50)}
		}, "bounding capabilities hold BPF"}, // of the task that is always well
		"fanotify": {func(*dump) *fdinfo.FileEntry {
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_FANOTIFY.Enum(), Id: proto.Uint32(50)}
		}, "a fanotify group"},
		"its own namespace": {func(*dump) *fdinfo.FileEntry {
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_NS.Enum(), Id: proto.Uint32(50), Nsf: &ns.NsFileEntry{NsId: proto.Uint32(10)}}
		}, ""},
		"the node's namespace": {func(*dump) *fdinfo.FileEntry {
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_NS.Enum(), Id: proto.Uint32(50), Nsf: &ns.NsFileEntry{NsId: proto.Uint32(5)}}
		}, "is the namespace 5"},
		"a plugin's": {func(*dump) *fdinfo.FileEntry {
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_EXT.Enum(), Id: proto.Uint32(50)}
		}, "of the kind EXT"},
		"nothing of a socket": {func(*dump) *fdinfo.FileEntry {
			return &fdinfo.FileEntry{Type: fdinfo.FdTypes_INETSK.Enum(), Id: proto.Uint32(50)}
		}, ""},
		"a bound socket":         {func(*dump) *fdinfo.FileEntry { return bound("/run-link/app.sock", "") }, ""},
		"bound beside":           {func(*dump) *fdinfo.FileEntry { return bound("../run/app.sock", "/srv") }, ""},
		"bound to no path":       {func(*dump) *fdinfo.FileEntry { return bound("\x00abstract", "") }, ""},
		"bound in CRIU's files":  {func(*dump) *fdinfo.FileEntry { return bound("/proc/self/fd/1022/x", "") }, "is bound at"},
		"bound behind a link":    {func(*dump) *fdinfo.FileEntry { return bound("/dev/fd/1022/x", "") }, "is bound at"},
		"bound out of directory": {func(*dump) *fdinfo.FileEntry { return bound("x", "/srv/../../etc") }, "is bound in"},
	} {
		t.Run(name, func(t *testing.T) {
			d := good()
			all := []proto.Message{}
			for _, e := range genuine[fdinfo.FileEntry](t, "files.img", filesMagic) {
				all = append(all, e)
			}
			d.more["files.img"] = image(t, filesMagic, append(all, c.do(d))...)
			d.judge(t, c.says)
		})
	}
}

func TestGhosts(t *testing.T) {
	for name, c := range map[string]struct {
		mode uint32
		rdev uint64
		says string
	}{
		"a file":            {mode: unix.S_IFREG | 0o600},
		"a pipe":            {mode: unix.S_IFIFO | 0o600},
		"a disk":            {unix.S_IFBLK | 0o666, unix.Mkdev(254, 0), "the device node of a deleted file, b 254:0; allowed: those of the container's specification"},
		"/dev/null":         {mode: unix.S_IFCHR | 0o666, rdev: unix.Mkdev(1, 3)},
		"the memory":        {unix.S_IFCHR | 0o666, unix.Mkdev(1, 1), "c 1:1"},
		"a link":            {unix.S_IFLNK | 0o777, 0, "a deleted link"},
		"nothing known":     {0o600, 0, "a deleted file of mode"},
		"/dev/null as disk": {unix.S_IFBLK | 0o666, unix.Mkdev(1, 3), "b 1:3"},
	} {
		t.Run(name, func(t *testing.T) {
			d := good()
			d.more["ghost-file-a.img"] = append(image(t, ghostMagic, &ghost_file.GhostFileEntry{Uid: proto.Uint32(0), Gid: proto.Uint32(0), Mode: &c.mode,
				Rdev: proto.Uint32(uint32(c.rdev))}), "its content"...)
			d.judge(t, c.says)
		})
	}
}

// archive is CRIU's of a tmpfs, as it was and with more in it.
func archive(t testing.TB, more ...*tar.Header) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/dump", devArchive))
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range more {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestTmpfs(t *testing.T) {
	link := func(name, to string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for name, c := range map[string]struct {
		more []*tar.Header
		says string
	}{
		"as dumped":             {nil, ""},
		"a file":                {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "./x"}}, ""},
		"a socket's link":       {[]*tar.Header{link("./log", "/run/log")}, ""},
		"a disk":                {[]*tar.Header{{Typeflag: tar.TypeBlock, Name: "./sda", Devmajor: 8}}, "the device node ./sda, b 8:0"},
		"the memory":            {[]*tar.Header{{Typeflag: tar.TypeChar, Name: "./mem", Devmajor: 1, Devminor: 1}}, "c 1:1"},
		"out of it":             {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "./../x"}}, `the file "./../x"`},
		"anywhere":              {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "/etc/x"}}, `the file "/etc/x"`},
		"through a link":        {[]*tar.Header{link("./a", "/etc"), {Typeflag: tar.TypeReg, Name: "./a/x"}}, "behind the link /a"},
		"over a link":           {[]*tar.Header{link("./a", "/etc/x"), {Typeflag: tar.TypeReg, Name: "./a"}}, "behind the link /a"},
		"a link to one outside": {[]*tar.Header{{Typeflag: tar.TypeLink, Name: "./a", Linkname: "../x"}}, `the file "../x"`},
		"a link behind one":     {[]*tar.Header{link("./a", "/etc"), {Typeflag: tar.TypeLink, Name: "./b", Linkname: "./a/x"}}, "behind the link /a"},
	} {
		t.Run(name, func(t *testing.T) {
			d := good()
			d.more[devArchive] = archive(t, c.more...)
			d.judge(t, c.says)
		})
	}
	t.Run("a file opened behind a second name of a link", func(t *testing.T) {
		d := good()
		d.more[devArchive] = archive(t, link("./a", "/"), &tar.Header{Typeflag: tar.TypeLink, Name: "./b", Linkname: "./a"})
		d.more["files.img"] = image(t, filesMagic, opened(t, "/dev/b/etc/shadow", 0))
		d.judge(t, "behind the link /b")
	})
	t.Run("one that may make devices", func(t *testing.T) {
		d := good()
		d.config = strings.Replace(d.config, `"bounding":[`, `"bounding":["CAP_MKNOD",`, 1)
		d.more[devArchive] = archive(t, &tar.Header{Typeflag: tar.TypeChar, Name: "./x", Devmajor: 10, Devminor: 1})
		d.judge(t, "")
	})
}

// FuzzFiles: no file gets through by a path with dots, or of CRIU's own.
func FuzzFiles(f *testing.F) {
	data, err := os.ReadFile("testdata/dump/files.img")
	if err != nil {
		f.Fatal(err)
	}
	b, err := readBundle(hostOf(f))
	if err != nil {
		f.Fatal(err)
	}
	m, err := b.mounts(genuine[mnt.MntEntry](f, mountsImage, mountsMagic))
	if err != nil {
		f.Fatal(err)
	}
	all := &files{bundle: b, mounts: m, links: map[uint32]links{}, ids: good().ids}
	f.Add(data)
	f.Add(image(f, filesMagic, &fdinfo.FileEntry{Type: fdinfo.FdTypes_UNIXSK.Enum(), Id: proto.Uint32(1),
		Usk: &sk_unix.UnixSkEntry{Name: []byte("/run/x"), Opts: &sk_opts.SkOptsEntry{}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		imagefile.Each(bytes.NewReader(data), filesMagic, func(e *fdinfo.FileEntry) error {
			name := e.GetReg().GetName()
			if all.open(e) == nil && e.GetType() == fdinfo.FdTypes_REG && (dots(name) || strings.HasPrefix(name, "/proc/self/")) {
				t.Errorf("let through: %v", e)
			}
			return nil
		})
	})
}

// FuzzTmpfs: no device gets through that the container has not.
func FuzzTmpfs(f *testing.F) {
	b, err := parseBundle([]byte(config))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(archive(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := b.tmpfs(56, bytes.NewReader(data)); err != nil {
			return
		}
		unzipped, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(unzipped); ; {
			h, err := r.Next()
			if err != nil {
				return
			}
			if h.Typeflag == tar.TypeBlock || h.Typeflag == tar.TypeChar && h.Devmajor != 1 && h.Devmajor != 5 {
				t.Errorf("let through: %+v", h)
			}
		}
	})
}
