package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/drover-project/drover/test/beat"
)

// bareDir is where a node has the bundle and the images of bare: a tmpfs.
const bareDir = "/run/bench"

// bare is a dump and a restore by runc and CRIU on one host, with nothing between them.
func bare(ctx context.Context, l *labor, w workload) (f figures, err error) {
	process := l.process()
	root, err := l.Lab.Root(l.from)
	if err != nil {
		return f, err
	}
	dir := filepath.Join(root, bareDir)
	id := fmt.Sprintf("bare-%d", process)
	runc := func(ctx context.Context, verb string, args ...string) error {
		return l.run(ctx, l.from, append([]string{"runc", "--root", bareDir + "/runc", "--log", bareDir + "/log", verb}, args...)...)
	}
	defer func() {
		l.ear.Forget(process)
		end, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = errors.Join(err, runc(end, "delete", "--force", id), os.RemoveAll(dir))
	}()
	if err := l.bundle(dir, process, w); err != nil {
		return f, err
	}
	if err := runc(ctx, "run", "--detach", "--bundle", bareDir, id); err != nil {
		return f, bareError(dir, err)
	}
	f, err = l.timed(ctx, process, w, func() (f figures, err error) {
		began := time.Now()
		where := []string{"--image-path", bareDir + "/images", "--work-path", bareDir + "/work", "--manage-cgroups-mode", "ignore"}
		if err := runc(ctx, "checkpoint", append(where, id)...); err != nil {
			return f, bareError(dir, err)
		}
		if err := runc(ctx, "restore", append(where, "--detach", "--bundle", bareDir, id)...); err != nil {
			return f, bareError(dir, err)
		}
		if err := l.ear.More(ctx, process, 1); err != nil {
			return f, err
		}
		f.gap, f.first = beat.Silence(l.ear.Of(process), began)
		f.sent, err = sizeOf(filepath.Join(dir, "images"))
		return f, err
	})
	if err != nil {
		return f, err
	}
	return f, l.intact(ctx, process)
}

// bundle makes what runc runs: the program, in namespaces of its own but for the network's.
func (l *labor) bundle(dir string, process uint64, w workload) error {
	pods, err := l.Lab.PodsGroup(l.from)
	if err != nil {
		return err
	}
	for _, d := range []string{"rootfs", "images", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	program, err := os.ReadFile(l.Program("beat"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs", "beat"), program, 0o755); err != nil {
		return err
	}
	type object = map[string]any
	spec := object{
		"ociVersion": "1.2.0",
		"process":    object{"user": object{"uid": 0, "gid": 0}, "args": append([]string{"/beat"}, l.arguments(process, w)...), "cwd": "/", "noNewPrivileges": true},
		"root":       object{"path": "rootfs"},
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
		},
		"linux": object{
			"cgroupsPath": filepath.Join(pods, "bench-bare"),
			"namespaces":  []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}},
		},
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
}

// bareError adds what runc and CRIU wrote.
func bareError(dir string, err error) error {
	for _, log := range []string{"log", "work/dump.log", "work/restore.log"} {
		data, read := os.ReadFile(filepath.Join(dir, log))
		if read == nil {
			err = fmt.Errorf("%w\n%s: %s", err, log, data[max(0, len(data)-1000):])
		}
	}
	return err
}

func sizeOf(dir string) (sum int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}
