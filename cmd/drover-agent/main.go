// Command drover-agent runs on every node: it measures, tells the others, decides that a
// suffering pod shall move, and moves it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/drover-project/drover/internal/hosted"
	"github.com/drover-project/drover/internal/keyring"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/placement"
	"github.com/drover-project/drover/internal/pressure"
	"github.com/drover-project/drover/internal/processors"
	"github.com/drover-project/drover/nodeagent"
	"github.com/drover-project/drover/nodeagent/decide"
	"github.com/drover-project/drover/nodeagent/files"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// flags that are not in the Config as they are typed.
type flags struct {
	mode, address, logLevel, lazyFrom string
	filesMiB                          int64
	thresholds                        func() pressure.Thresholds
}

func command() *cobra.Command {
	f := flags{}
	cfg := nodeagent.Config{
		Node: os.Getenv("NODE_NAME"), PodUID: os.Getenv("POD_UID"),
		// drover-runc knows no other paths.
		Layout: layout.Default, Program: "/opt/drover/bin/drover-runc", Params: placement.Defaults(), Decide: decide.Default(),
		Files: files.DefaultLimits,
	}
	c := &cobra.Command{
		Use: "drover-agent", Short: "Measures a node, tells the others, and moves pods that suffer",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := hosted.EnterCgroupNamespace(); err != nil {
				return err
			}
			if err := complete(&cfg, f); err != nil {
				return err
			}
			if err := processors.Rest(); err != nil {
				cfg.Log.Warn("the agent wakes up more often than it need", "error", err)
			}
			return nodeagent.Run(cmd.Context(), cfg)
		},
	}
	fs := c.Flags()
	fs.StringVar(&cfg.Node, "node-name", cfg.Node, "name of this Node object (environment: NODE_NAME)")
	fs.StringVar(&f.address, "address", os.Getenv("NODE_IP"), "this node's internal address, by which agents reach each other (environment: NODE_IP)")
	fs.StringVar(&cfg.Namespace, "namespace", "drover-system", "namespace that Drover is installed in")
	fs.StringVar(&cfg.PodUID, "pod-uid", cfg.PodUID, "UID of the agent's own pod (environment: POD_UID)")
	fs.StringVar(&f.mode, "mode", string(nodeagent.Observe), `"observe": say what would be moved and why; "act": move it`)
	fs.StringVar(&cfg.GossipKeyFile, "gossip-key-file", "", "file with the keys that encrypt gossip, one in a line, in base64; the first is sent with, and a change is followed")
	fs.StringVar(&cfg.CAFile, "ca-file", "", "file with the certificates of Drover's CA")
	fs.StringVar(&cfg.HostRoot, "host-root", "/proc/1/root", "where the node's root is seen")
	fs.StringVar(&cfg.ImageMemory, "image-memory", "50%", "how much of the node's memory the images of moves may take at most, in percent or as in 8G")
	fs.StringVar(&cfg.ImageDir, "image-dir", "", "directory of the node, on an encrypted file system, to keep images in instead of memory")
	fs.StringVar(&f.lazyFrom, "lazy-from", "64Mi", "a copy with at least this much memory that can be loaded later, as in 256Mi, runs before all of it is loaded; 0: none does")
	fs.Int64Var(&f.filesMiB, "files-mib", int64(cfg.Files.Bytes)>>20, "how much each volume, or a container's own file system, may hold that moves, in MiB; the pod stands frozen while it is packed, sent and unpacked")
	fs.IntVar(&cfg.Files.Entries, "files-count", cfg.Files.Entries, "how many files each of them may have")
	fs.StringVar(&cfg.PinDir, "pin-dir", "/sys/fs/bpf/drover", "directory in a BPF file system, where what measures goes on while the agent is away; empty: it does not")
	fs.StringVar(&cfg.Runc, "runc", "/usr/bin/runc", "the real runtime's path on the node")
	fs.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	f.thresholds = thresholdFlags(fs)
	fs.Float64Var(&cfg.Decide.Margin, "migration-margin", cfg.Decide.Margin, "a pod goes only where it is predicted to wait this many times less")
	fs.DurationVar(&cfg.Decide.CoolDown, "migration-cool-down", cfg.Decide.CoolDown, "how long a pod is left alone after a move, or the try of one")
	fs.Float64Var(&cfg.Params.Alpha, "alpha", cfg.Params.Alpha, "weight of an idle core, as in the scheduler's arguments")
	fs.Float64Var(&cfg.Params.Beta, "beta", cfg.Params.Beta, "weight of an idle GiB")
	fs.Float64Var(&cfg.Params.Tau, "tau", cfg.Params.Tau, "weight of a millisecond of route time")
	fs.Float64Var(&cfg.Params.Exponent, "route-time-exponent", cfg.Params.Exponent, "exponent of the route time")
	fs.DurationVar(&cfg.Params.Floor, "route-time-floor", cfg.Params.Floor, "the shortest route time that counts")
	fs.BoolVar(&cfg.Precopy, "precopy", true, "read the memory of a pod that moves while it still runs, and send it ahead (docs/moves.md)")
	fs.BoolVar(&cfg.DirtyTracking, "dirty-tracking", false, "where the kernel tracks which pages are written to, have CRIU write the memory of a pod that leaves in rounds while it still runs; with --precopy alone. Not where programs clear the kernel's marks of what they write to: their copies might hold old memory (docs/decisions/0035)")
	fs.BoolVar(&cfg.RouteXDP, "route-xdp", false, "turn probes of route times round by XDP where a device has no XDP program; attaching it may interrupt the device (docs/route-times.md)")
	fs.DurationVar(&cfg.Params.StaleAfter, "stale-after", cfg.Params.StaleAfter, "age from which a measurement does not count; a load that stays is told every 9s")
	c.CompletionOptions.DisableDefaultCmd = true
	c.AddCommand(pathCommand())
	return c
}

// pathCommand is what the companion of an agent runs.
func pathCommand() *cobra.Command {
	return &cobra.Command{
		Use: "path", Short: "Waits for its end, in a pod from whose network the agent of the node measures the pod path",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			<-cmd.Context().Done()
			return nil
		},
	}
}

// complete reads what the flags name.
func complete(cfg *nodeagent.Config, f flags) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return fmt.Errorf("--log-level %q: want debug, info, warn or error", f.logLevel)
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	l := logr.FromSlogHandler(cfg.Log.Handler())
	ctrllog.SetLogger(l)
	klog.SetLogger(l)
	cfg.Mode, cfg.Thresholds = nodeagent.Mode(f.mode), f.thresholds()
	cfg.Files.Bytes = f.filesMiB << 20
	if f.address != "" {
		a, err := netip.ParseAddr(f.address)
		if err != nil {
			return fmt.Errorf("--address %q is no IP address", f.address)
		}
		cfg.Address = a
	}
	from, err := resource.ParseQuantity(f.lazyFrom)
	if err != nil || from.Sign() < 0 {
		return fmt.Errorf("--lazy-from %q: want an amount of memory, as in 64Mi, or 0", f.lazyFrom)
	}
	cfg.LazyFrom = model.Bytes(from.Value())
	if cfg.GossipKeyFile == "" {
		return errors.New("--gossip-key-file is missing: the file with the keys that encrypt gossip, in base64")
	}
	if _, err := keyring.Load(cfg.GossipKeyFile); err != nil {
		return fmt.Errorf("--gossip-key-file: %w", err)
	}
	if cfg.Kubernetes, err = rest.InClusterConfig(); err != nil {
		return fmt.Errorf("reach the API server: %w", err)
	}
	cfg.Kubernetes.QPS, cfg.Kubernetes.Burst = 50, 100
	return nil
}
