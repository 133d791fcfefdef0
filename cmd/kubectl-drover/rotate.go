package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/drover-project/drover/internal/agentclient"
	"github.com/drover-project/drover/internal/keyring"
)

const (
	gossipSecret = "drover-gossip"
	// annotationRotation on the Secret names the key that is on its way to become the only one.
	annotationRotation = "drover.dev/gossip-key-rotation"
	// metricsPort is where agents and schedulers tell their metrics.
	metricsPort = 7949
)

func (t *tool) rotateKeyCommand() *cobra.Command {
	timeout := 10 * time.Minute
	c := &cobra.Command{
		Use:   "rotate-key",
		Short: "Give the gossip another key, without a restart and without losing a member",
		Long: `Gives the gossip of agents and schedulers another key, in three changes of the Secret drover-gossip:
the new key is taken in beside the old, then sent with, then the old one is dropped. Before each
change every agent and scheduler that is ready has to have taken the last one into use, which takes as
long as kubelets take to write a changed Secret: a minute or two. If it is interrupted, run it again:
it goes on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := t.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return t.rotate(ctx, c, t.keysInUse)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to go on at most")
	return c
}

// inUse gives the names of the keys that each member has, by pod; the first is sent with.
type inUse func(ctx context.Context, c client.Client) (map[string][]string, error)

func (t *tool) rotate(ctx context.Context, c client.Client, members inUse) error {
	for {
		s := &corev1.Secret{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: t.system, Name: gossipSecret}, s); err != nil {
			return fmt.Errorf("read the gossip's keys: %w", err)
		}
		keys, err := keyring.Parse(s.Data["key"])
		if err != nil {
			return fmt.Errorf("Secret %s/%s: %w", t.system, gossipSecret, err)
		}
		if err := t.agreed(ctx, c, members, keys); err != nil {
			return err
		}
		said, err := nextStep(s, keys, newKey)
		if err != nil {
			return err
		}
		// An update under the version that was read: of two who rotate at once one is refused.
		if err := c.Update(ctx, s); err != nil {
			return fmt.Errorf("change the gossip's keys: %w", err)
		}
		fmt.Fprintln(t.Out, said)
		if s.Annotations[annotationRotation] == "" {
			return nil
		}
	}
}

func newKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return key
}

// nextStep changes the Secret by one step of a rotation, and says which.
func nextStep(s *corev1.Secret, keys keyring.Keys, fresh func() []byte) (said string, err error) {
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	to := s.Annotations[annotationRotation]
	at := slices.IndexFunc(keys, func(key []byte) bool { return keyring.Name(key) == to })
	switch {
	case to == "":
		key := fresh()
		keys = append(slices.Clone(keys), key)
		s.Annotations[annotationRotation] = keyring.Name(key)
		said = fmt.Sprintf("key %s is taken in beside %s", keyring.Name(key), keyring.Name(keys[0]))
	case at < 0:
		return "", fmt.Errorf("Secret %s/%s was changed during a rotation: key %s, which was to be the new one, is not in it: take its annotation %s away to begin again", s.Namespace, s.Name, to, annotationRotation)
	case at > 0:
		key := keys[at]
		keys = append(keyring.Keys{key}, slices.Delete(slices.Clone(keys), at, at+1)...)
		said = fmt.Sprintf("key %s is sent with", to)
	case len(keys) > 1:
		keys = keys[:1]
		said = fmt.Sprintf("key %s is the only one", to)
	default: // and all have it
		delete(s.Annotations, annotationRotation)
		said = "every member has it alone"
	}
	if err := keys.Validate(); err != nil {
		return "", fmt.Errorf("Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	s.Data["key"] = keys.Text()
	return said, nil
}

// agreed waits until all members have exactly these keys, and send with the first.
func (t *tool) agreed(ctx context.Context, c client.Client, members inUse, keys keyring.Keys) error {
	last := ""
	err := wait.PollUntilContextCancel(ctx, 2*time.Second, true, func(ctx context.Context) (bool, error) {
		have, err := members(ctx, c)
		if err != nil {
			return false, err
		}
		missing := behind(have, keys)
		if why := strings.Join(missing, ", "); why != last && why != "" {
			fmt.Fprintf(t.Out, "waiting for %s\n", why)
			last = why
		}
		return len(missing) == 0, nil
	})
	if wait.Interrupted(err) {
		return fmt.Errorf("not all members have the keys of Secret %s/%s: %s: run it again to go on", t.system, gossipSecret, last)
	}
	return err
}

// behind are the members that do not have the keys yet, in order.
func behind(have map[string][]string, keys keyring.Keys) []string {
	var missing []string
	want := keys.Names()
	slices.Sort(want[1:])
	for _, member := range slices.Sorted(maps.Keys(have)) {
		names := slices.Clone(have[member])
		if len(names) > 0 {
			slices.Sort(names[1:])
		}
		if !slices.Equal(names, want) {
			missing = append(missing, member)
		}
	}
	return missing
}

// keysInUse asks every agent and scheduler that is ready.
func (t *tool) keysInUse(ctx context.Context, c client.Client) (map[string][]string, error) {
	cfg, err := t.config()
	if err != nil {
		return nil, err
	}
	have := map[string][]string{}
	for _, name := range []string{"drover-agent", "drover-scheduler"} {
		pods, err := t.podsOf(ctx, c, name, "members of the gossip")
		if err != nil {
			return nil, err
		}
		for i := range pods {
			if p := &pods[i]; isReady(p) {
				// One that does not answer now has no keys yet, as far as is known.
				have[p.Name], _ = keysOf(ctx, cfg, p)
			}
		}
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("there is no member of the gossip in namespace %q: is Drover installed there? (--drover-namespace)", t.system)
	}
	return have, nil
}

func isReady(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func keysOf(ctx context.Context, cfg *rest.Config, p *corev1.Pod) (names []string, err error) {
	err = agentclient.Fetch(ctx, cfg, p, metricsPort, "/metrics", func(r io.Reader) error {
		text, err := io.ReadAll(r)
		names = keysIn(text)
		return err
	})
	return names, err
}

var keyLine = regexp.MustCompile(`^drover_gossip_key_info\{key="([0-9a-f]+)",use="(primary|accepted)"\} 1$`)

// keysIn reads the names of the keys from metrics, the primary one first.
func keysIn(metrics []byte) []string {
	var names []string
	for lines := bufio.NewScanner(bytes.NewReader(metrics)); lines.Scan(); {
		switch m := keyLine.FindStringSubmatch(lines.Text()); {
		case m == nil:
		case m[2] == "primary":
			names = slices.Insert(names, 0, m[1])
		default:
			names = append(names, m[1])
		}
	}
	return names
}
