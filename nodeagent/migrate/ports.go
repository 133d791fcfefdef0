package migrate

import (
	"context"
	"slices"
	"time"

	"github.com/drover-project/drover/api/v1alpha1"
	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/handoff"
)

// Move is one move, as every port sees it. It does not change while the move lasts, but for what
// is found out of its connections before the dump.
type Move struct {
	// Namespace, Name and UID of the PodMigration.
	Namespace, Name, UID string
	Epoch                int64
	// PostCopy: the images may lack memory, which the copy then fetches from the source while that is
	// held, also once it runs.
	PostCopy bool
	// Source is the pod that leaves, Target its replacement.
	Source, Target Pod
	// Containers are those that move, in the order in which kubelet creates them.
	Containers []Container
	// OwnerUID of the source pod's controlling owner; empty for a bare pod.
	OwnerUID string
	// KeepsConnections: the old address travels, is held on the source before Dump and is on the
	// target before Restore. Keep is which, and where to; what is still being found out of it, if
	// the pod asks for that.
	KeepsConnections bool
	Keep             Keep
}

// Container is one that moves.
type Container struct {
	// Name is the same in both pods' specs; ID is the source container's runtime ID, without
	// scheme.
	Name, ID string
}

// moves tells whether a container of the source is one of those.
func (m Move) moves(id string) bool {
	return slices.ContainsFunc(m.Containers, func(c Container) bool { return c.ID == id })
}

// Pod is one end of a move.
type Pod struct {
	Node, Namespace, Name, UID string
}

// Records reads and writes PodMigrations in the API server itself, never in a cache.
// client.Client made without a cache fits behind it: see Kube.
type Records interface {
	// Get reads one. That there is none is an error by which apierrors.IsNotFound knows it.
	Get(ctx context.Context, namespace, name string) (*v1alpha1.PodMigration, error)
	// UpdateStatus stores pm's status if pm.ResourceVersion is still the newest. OK: stored,
	// and the stored object is returned. Conflict: certainly not stored, also because the
	// API server found it invalid. Unknown: everything else, a timeout above all.
	UpdateStatus(ctx context.Context, pm *v1alpha1.PodMigration) (*v1alpha1.PodMigration, handoff.Outcome, error)
}

// Cluster answers questions about other objects, from the API server itself.
type Cluster interface {
	// Unwanted reads the source pod, its controlling owner and the replacement. It returns
	// in words which of them is gone or being deleted, "" when all are as they should be.
	Unwanted(ctx context.Context, m Move) (string, error)
	// BootID of a Node object (status.nodeInfo.bootID). gone: there is no such Node.
	BootID(ctx context.Context, node string) (bootID string, gone bool, err error)
}

// Checkpointer works on the containers that leave this node. Every method may be called
// again after the agent restarted, in any order, for the same move; CRIU and its hook live
// outside the agent's cgroup and outlive it.
type Checkpointer interface {
	// Inspect tells what there is of m's containers: are there processes, are the cgroups
	// frozen, is a dump under way that has not reached its hold. The fence is not its matter.
	Inspect(ctx context.Context, m Move) (handoff.SourceFacts, error)
	// Dump freezes the containers' cgroups, all before the first is dumped, and dumps them. It
	// returns once CRIU's hooks hold at post-dump: the cgroups frozen, every image complete in
	// Dumped.Dir. From then on the containers stay frozen until Release or End, whatever
	// dies. When it fails, they may be left frozen: Release follows. ctx ends when the move was aborted, or
	// the agent stops: then Dump gives up soon if that does the container no harm, or else
	// goes on to the hold.
	Dump(ctx context.Context, m Move) (Dumped, error)
	// Release undoes a dump in whatever stage it is, also one of an earlier life of the
	// agent: when it returns nil no CRIU works on the container and none will (a Dump that
	// is under way has returned an error), network locks are gone, the cgroup is thawed and
	// the images are removed. No container, or nothing done to it: nil.
	Release(ctx context.Context, m Move) error
	// End kills every process of the container without a moment in which it runs, lets CRIU
	// and its hook end, and removes the images. nil: no process is left. No container: nil.
	End(ctx context.Context, m Move) error
}

// Dumped is a complete dump.
type Dumped struct {
	// Dir holds a directory of images for each container, under its name, on this node.
	Dir string
	// FrozenAt is when the cgroup was frozen.
	FrozenAt time.Time
}

// Sender brings images to the target's agent.
type Sender interface {
	// Send returns once the target has confirmed that every file in dir is complete and
	// verified there, where nothing but a boot can lose it, and gives what it took. A lost
	// connection is no reason to fail; it ends early with ctx.
	Send(ctx context.Context, m Move, dir string) (Progress, error)
	// Progress tells how far it is; nil: nothing is being sent.
	Progress(m Move) *Progress
}

// Images looks after the images that came to this node.
type Images interface {
	// Complete gives the directory of m's images if they are complete and verified, else "". It must also be right after the agent restarted.
	Complete(ctx context.Context, m Move) (dir string, err error)
	// Discard removes what there is of them. Nothing there: nil.
	Discard(ctx context.Context, m Move) error
}

// Runtime works on the copy that comes to this node and on the creates that wait for it.
type Runtime interface {
	// Inspect tells what there is for the pod m.Target. Call it some moments after a
	// restart, when wrappers and hooks have called again.
	Inspect(ctx context.Context, m Move) (Copy, error)
	// Restore answers the create of container id with "restore from dir" and returns.
	// What comes of it is told by Held or RestoreEnded of Notices.
	Restore(ctx context.Context, m Move, id, dir string) error
	// Pass lets the create of container id return while its copy stays frozen: it answers the
	// hook and returns when the create has said that all is well and the copy is there, frozen.
	Pass(ctx context.Context, m Move, id string) error
	// Resume lets the copies run: it makes sure that the wrapper and the hook of container id
	// are there and that every copy is frozen, calls mark, thaws them, and answers the hook. An
	// error before mark was called: nothing ran. An error after: call ResumeRest.
	Resume(ctx context.Context, m Move, id string, mark func() error) error
	// ResumeRest thaws every copy that there is, and answers a hook that waits: the mark is left.
	ResumeRest(ctx context.Context, m Move) error
	// Loaded returns when no copy of m's lacks memory any more, or what lacked some has ended.
	Loaded(ctx context.Context, m Move) error
	// Drop kills m's copies that lack memory, which is lost. nil: they are dead. Whole ones run on.
	Drop(ctx context.Context, m Move) error
	// Kill ends what there is of a restore or a copy for m.Target: CRIU, wrapper, every
	// process in the cgroup, without a moment in which user code runs. nil: nothing is left
	// and nothing can come of it. Nothing there: nil.
	Kill(ctx context.Context, m Move) error
	// Refuse answers the create of container id: it must not be created, because of reason.
	// The wrapper is gone: nil.
	Refuse(ctx context.Context, m Move, id, reason string) error
	// Fresh ends what is left of the copy whose place the create of container id takes, then
	// answers it: make it anew, without a checkpoint.
	Fresh(ctx context.Context, m Move, id string) error
}

// Copy is what a node finds of a moved pod's containers.
type Copy struct {
	// Passed are the copies whose creates were let return.
	Passed []handoff.Copy
	// ID of the container that is being restored or was; "" when there is none.
	ID string
	// Alive: processes exist. Frozen: the cgroup is. Dying: they were killed, and run no more.
	// Orphaned: CRIU, which alone can let them run, was killed. Held: CRIU's hook waits at
	// pre-resume. Restoring: the restore was begun and has not reached the hook.
	Alive, Frozen, Dying, Orphaned, Held, Restoring bool
	// Creates are the wrappers that are connected, oldest first, with the one of ID.
	Creates []Create
}

// Create is a create that waits in drover-runc.
type Create struct {
	// Namespace and Pod name the pod, PodUID is the pod object; Migration is the name that
	// its annotation drover.dev/migration holds.
	Namespace, Pod, PodUID, Migration string
	// ID of the container to create, and its Name in the pod's spec.
	ID, Name string
	// Deadline is when the wrapper gives up, by this node's clock.
	Deadline time.Time
}

// Fences is this node's directory of fences; fence.Dir fits.
type Fences interface {
	Write(f fence.Fence) error
	Lift(podUID string, epoch uint64) error
	Check(podUID string) (*fence.Fence, error)
}

// Marks tell that a copy on this node is about to run. They outlive the agent and are gone
// after a reboot; MarkDir on tmpfs fits.
type Marks interface {
	Begin(m Move) error
	Begun(m Move) (bool, error)
	Forget(m Move) error
}

// Arrivals tell drover-runc that a move to a pod was acknowledged in its record: from then
// on its creates need neither agent nor PodMigration. They survive a reboot, so they must
// never be written before the acknowledgement is in the record: a target that boots between
// would start afresh while the source takes the pod back. fence.RestoredDir fits.
type Arrivals interface {
	Write(r fence.Restored) error
	Check(podUID, migration string) (bool, error)
}

// Notices is what the Driver is told. Every method returns at once and may be called from
// any goroutine; what does not concern a known move is looked up or forgotten.
type Notices interface {
	// Observe: a PodMigration as a watch or a list showed it.
	Observe(pm *v1alpha1.PodMigration)
	// RecordGone: there is no such PodMigration any more.
	RecordGone(migrationUID string)
	// PodDeleted: a pod of this node, or one of its moves, is being deleted or is gone.
	PodDeleted(podUID string)
	// CreateWaits: drover-runc waits for an answer. Also called again when a wrapper
	// connects anew after the agent restarted.
	CreateWaits(c Create)
	// CreateEnded: that wrapper is gone, however it ended.
	CreateEnded(podUID, id string)
	// ImagesComplete: the images of this PodMigration are complete and verified.
	ImagesComplete(migrationUID string)
	// RestoreHeld: CRIU's hook waits at pre-resume and the cgroup of container id is frozen.
	RestoreHeld(podUID, id string)
	// RestoreEnded: the restore of container id failed, or CRIU or its hook died before
	// Resume; err tells how, with the end of CRIU's log.
	RestoreEnded(podUID, id string, err error)
	// ContainerEnded: the processes of container id, source or copy, are gone.
	ContainerEnded(id string)
}
