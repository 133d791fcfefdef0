package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/drover-project/drover/internal/criu"
	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/lazypages"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// loaderLog is the log of CRIU's lazy-pages daemon in the loader's directory.
const loaderLog = "lazy-pages.log"

// beginLoading starts what loads the copy's memory from its images, or from the source, while it is held and
// while it runs; unless all of it must be there before, for what reason eager says. See docs/decisions/0032, 0036.
func (c *Copies) beginLoading(ctx context.Context, n note, eager string) error {
	if err := c.clearLoader(n); err != nil { // of an earlier restore of this container
		return err
	}
	if eager != "" {
		c.cfg.Log.Debug("a copy runs when all of its memory is there", "pod", n.PodUID, "container", n.ID, "because", eager)
		return nil
	}
	dir := c.cfg.Layout.Loader(n.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	n.Lazy = true
	if err := c.write(n); err != nil {
		return err
	}
	// A daemon that never says that it is ready ends with the restore that it is for.
	stop := context.AfterFunc(ctx, func() { _, _ = hosted.CutOff(dir) })
	err := c.host(ctx, c.loader(n))
	stop()
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err) // what there is of it ends with the copy
	}
	if err != nil && n.From != nil {
		return fmt.Errorf("the images lack memory, and nothing can load it: %w", err) // what there is of it ends with the copy
	}
	if err != nil {
		c.cfg.Log.Warn("a copy runs when all of its memory is there, since it cannot be loaded later", "pod", n.PodUID, "container", n.ID, "err", err)
		n.Lazy = false
		return errors.Join(c.write(n), c.clearLoader(n))
	}
	if now, err := c.read(n.ID); err != nil || now == nil {
		return errors.Join(err, errors.New("the copy was ended meanwhile"), c.endLoading(ctx, n))
	}
	<-c.ready
	follow := c.follow(c.life, n)
	go follow()
	return nil
}

// loader is CRIU's lazy-pages daemon, with what gives it the memory that the images lack.
func (c *Copies) loader(n note) hosted.Command {
	dir := c.cfg.Layout.Loader(n.ID)
	cmd := hosted.Command{
		Dir: dir, Guard: n.CgroupsPath,
		Args: []string{"criu", "lazy-pages", "--images-dir", n.Images, "--work-dir", c.cfg.Layout.Work(n.ID),
			"--log-file", filepath.Join(dir, loaderLog), "--status-fd", "3"},
	}
	if n.From != nil {
		cmd.Args = append(cmd.Args, "--page-server", "--ps-socket", "4")
		cmd.Beside = []string{c.cfg.Wrapper, lazypages.Verb, c.cfg.Layout.Relay(n.ID)}
	}
	return cmd
}

// clearLoader removes what is there of a daemon, and not the directory, in which runc may wait.
func (c *Copies) clearLoader(n note) error {
	return errors.Join(os.RemoveAll(c.cfg.Layout.Loader(n.ID)), os.RemoveAll(c.cfg.Layout.LazySocket(n.ID)))
}

// loading tells whether memory of the copy is still being loaded, or why it never will be.
func (c *Copies) loading(n note) (still bool, failed string) {
	dir := c.cfg.Layout.Loader(n.ID)
	if !n.Lazy {
		return false, ""
	}
	if exit, ok, _ := hosted.Noted(dir); ok && exit != (hosted.Exit{}) {
		return false, c.says(dir, exit)
	}
	if running, err := hosted.Running(dir); running || err != nil {
		return true, ""
	}
	return false, c.failure(dir)
}

// failure tells why a loader that has ended did not come to its end; empty: it did.
func (c *Copies) failure(dir string) string {
	exit, ok, err := hosted.Wait(context.Background(), dir)
	_, there := os.Stat(dir)
	switch {
	case err != nil:
		return err.Error()
	case ok && exit == (hosted.Exit{}), errors.Is(there, os.ErrNotExist): // removed by awaitLoaded
		return ""
	case !ok:
		return "the process that looks after CRIU's lazy-pages daemon was killed"
	}
	return c.says(dir, exit)
}

// says tells how the daemon ended.
func (c *Copies) says(dir string, exit hosted.Exit) string {
	parts := []string{fmt.Sprintf("CRIU's lazy-pages daemon ended with code %d", exit.Code), exit.Error, criu.Errors(filepath.Join(dir, loaderLog))}
	parts = append(parts, strings.ReplaceAll(hosted.Output(dir, 400), "\n", "; "))
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// follow gives what waits until the copy's memory is loaded, to be run once. From now on followed
// waits for that.
func (c *Copies) follow(ctx context.Context, n note) (run func()) {
	done := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follows[n.ID] = done
	return func() {
		defer close(done)
		defer c.feed(ctx, n)()
		c.awaitLoaded(ctx, n)
	}
}

// awaitLoaded returns when the copy's memory is loaded. If it never will be, the copy is killed:
// it would read zeros. hosted has done so already, unless it was killed itself.
func (c *Copies) awaitLoaded(ctx context.Context, n note) {
	dir := c.cfg.Layout.Loader(n.ID)
	if _, _, err := hosted.Wait(ctx, dir); err != nil {
		return
	}
	now, err := c.read(n.ID)
	if err != nil || now == nil || now.Wrapper != n.Wrapper || !now.Lazy {
		return // ended, by kill
	}
	c.mu.Lock()
	over := c.over[n.ID]
	c.mu.Unlock()
	if over {
		return // it lost nothing
	}
	why := c.failure(dir)
	if why == "" {
		// Under another name at once: half of it would look as if it had failed.
		err := os.Rename(dir, dir+".done")
		if errors.Is(err, fs.ErrNotExist) { // done in an earlier life of the agent
			err = nil
		}
		if err := errors.Join(err, os.RemoveAll(dir+".done"), os.RemoveAll(c.cfg.Layout.LazySocket(n.ID))); err != nil {
			c.cfg.Log.Warn("cannot remove what loaded a copy's memory", "pod", n.PodUID, "err", err)
		}
		c.cfg.Log.Info("nothing of a copy's memory is left to be loaded", "pod", n.PodUID, "container", n.ID)
		return
	}
	c.lose(ctx, *now, why)
}

// lose kills a copy whose memory cannot be loaded.
func (c *Copies) lose(ctx context.Context, n note, why string) {
	c.cfg.Log.Error("a copy's memory cannot be loaded: it is killed", "pod", n.PodUID, "container", n.ID, "stage", n.Stage, "why", why)
	for ctx.Err() == nil {
		err := c.slay(ctx, n)
		if err == nil {
			break
		}
		c.cfg.Log.Error("a copy whose memory cannot be loaded is not dead yet", "pod", n.PodUID, "container", n.ID, "err", err)
		wait, cancel := context.WithTimeout(ctx, moment)
		<-wait.Done()
		cancel()
	}
	if now, err := c.read(n.ID); err == nil && now != nil {
		n = *now
	}
	if n.Stage != running && !n.Passed {
		c.told(func(to Notices) { to.RestoreEnded(n.PodUID, n.ID, errLost(why)) })
	}
	if n.Stage == running && c.cfg.Lost != nil {
		c.cfg.Lost(migrate.Pod{Namespace: n.Namespace, Name: n.Pod, UID: n.PodUID}, why)
	}
}

func errLost(why string) error { return fmt.Errorf("the memory of the copy cannot be loaded: %s", why) }

// slay empties the copy's group before the daemon, which may live on without its keeper, ends.
func (c *Copies) slay(ctx context.Context, n note) error {
	group, err := c.group(n)
	if err != nil {
		return err
	}
	if err := group.KillStuck(ctx); err != nil {
		return err
	}
	_, err = hosted.CutOff(c.cfg.Layout.Loader(n.ID))
	return err
}

// endLoading ends what loads a copy's memory when nothing is left of the copy.
func (c *Copies) endLoading(ctx context.Context, n note) error {
	now, err := c.read(n.ID)
	if err != nil {
		return err
	}
	if !n.Lazy && (now == nil || !now.Lazy) {
		return nil
	}
	dir := c.cfg.Layout.Loader(n.ID)
	if _, err := hosted.CutOff(dir); err != nil {
		return err
	}
	_, _, err = hosted.Wait(ctx, dir)
	return err
}

// followed returns when follow, if it was begun, has come to its end.
func (c *Copies) followed(ctx context.Context, n note) {
	c.mu.Lock()
	done := c.follows[n.ID]
	c.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.follows[n.ID] == done {
		delete(c.follows, n.ID)
	}
}

// Loaded returns when the memory of m's copies is loaded, or they have ended: until then their
// images are needed.
func (c *Copies) Loaded(ctx context.Context, m migrate.Move) error {
	notes, err := c.of(m.Target.UID)
	if err != nil {
		return err
	}
	for _, n := range notes {
		if n.Lazy {
			if _, _, err := hosted.Wait(ctx, c.cfg.Layout.Loader(n.ID)); err != nil {
				return fmt.Errorf("wait until the memory of container %s is loaded: %w", n.ID, err)
			}
			c.followed(ctx, n) // a copy that lacks some is dead then
		}
	}
	return nil
}
