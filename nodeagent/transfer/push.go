package transfer

import (
	"context"
	"fmt"

	"github.com/drover-project/drover/nodeagent/migrate"
)

// Push sends what there is in a directory of images that are not complete: files that were written to
// their end. It returns when the target has verified them. Like all that goes before the dump they
// count only when Send names them; when Push fails, or ctx ends, that makes it good.
func (s *Sender) Push(ctx context.Context, m migrate.Move, path string) error {
	x, err := s.session(m)
	if err != nil {
		return err
	}
	if err := x.push(ctx, path); err != nil {
		x.unsure = true
		return fmt.Errorf("send images %s ahead to node %s at %s: %w", path, m.Target.Node, x.address, err)
	}
	x.count.rounds.Add(1)
	return nil
}

// Unpush lets nothing count that Push has sent of a move: those files are not there any more. The target has
// them until the images are complete, so their room is declared beside that of all that follows.
func (s *Sender) Unpush(m migrate.Move) {
	x, err := s.session(m)
	if err != nil {
		return // nothing was sent
	}
	_ = x.shut() // of nothing that counts
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone, x.pushed = x.gone+x.pushed, 0
	clear(x.files)
	x.count.rounds.Store(0)
}

func (x *session) push(ctx context.Context, path string) error {
	dir, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	images, total, err := listImages(dir, true)
	if err != nil {
		return err
	}
	if err := x.shut(); err != nil { // of what went before
		return err
	}
	x.lanes, x.pushed = x.open(total, 0), total
	stop := context.AfterFunc(ctx, x.lanes.cancel)
	defer stop()
	return x.missing(path, images, total, false)
}
