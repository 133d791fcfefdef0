package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/drover-project/drover/internal/keyring"
)

func secretOf(keys keyring.Keys) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "drover-system", Name: gossipSecret}, Data: map[string][]byte{"key": keys.Text()}}
}

// kubelets bring a member the Secret as it is when they come round: each at another time.
type kubelets struct {
	t    *testing.T
	c    client.Client
	have map[string]keyring.Keys
	turn int
}

func (k *kubelets) inUse(ctx context.Context, _ client.Client) (map[string][]string, error) {
	s := &corev1.Secret{}
	if err := k.c.Get(ctx, client.ObjectKey{Namespace: "drover-system", Name: gossipSecret}, s); err != nil {
		return nil, err
	}
	now, err := keyring.Parse(s.Data["key"])
	if err != nil {
		return nil, err
	}
	members := []string{"a", "b", "c"}
	k.have[members[k.turn%3]] = now
	k.turn++
	names := map[string][]string{}
	for _, from := range members {
		for _, key := range k.have[from] {
			names[from] = append(names[from], keyring.Name(key))
		}
		for _, to := range members {
			if !k.have[to].Has(k.have[from][0]) {
				k.t.Errorf("%s sends with a key that %s has not", from, to)
			}
		}
	}
	return names, nil
}

func TestRotation(t *testing.T) { synctest.Test(t, testRotation) }

func testRotation(t *testing.T) {
	old := bytes.Repeat([]byte("o"), 32)
	for _, interrupted := range []bool{false, true} {
		c := fake.NewClientBuilder().WithObjects(secretOf(keyring.Keys{old})).Build()
		k := &kubelets{t, c, map[string]keyring.Keys{"a": {old}, "b": {old}, "c": {old}}, 0}
		var out bytes.Buffer
		tool := &tool{system: "drover-system", IOStreams: genericclioptions.IOStreams{Out: &out}}
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			members := k.inUse
			if interrupted {
				calls := 0
				members = func(ctx context.Context, c client.Client) (map[string][]string, error) {
					if calls++; calls > 2 {
						return nil, errors.New("interrupted")
					}
					return k.inUse(ctx, c)
				}
			}
			err := tool.rotate(ctx, c, members)
			cancel()
			if err == nil {
				break
			}
			if !interrupted {
				t.Fatal(err)
			}
		}
		keys := k.have["a"]
		if len(keys) != 1 || bytes.Equal(keys[0], old) {
			t.Errorf("%d keys in the end", len(keys))
		}
		if n := strings.Count(out.String(), "is the only one"); n != 1 {
			t.Errorf("%d rotations:\n%s", n, out.String())
		}
	}
}

func TestStepsOfARotation(t *testing.T) {
	a, b, n := bytes.Repeat([]byte("a"), 32), bytes.Repeat([]byte("b"), 32), bytes.Repeat([]byte("n"), 32)
	for name, c := range map[string]struct {
		keys  keyring.Keys
		to    []byte
		want  keyring.Keys
		ended bool
		fails string
	}{
		"begins":                          {keys: keyring.Keys{a}, want: keyring.Keys{a, n}},
		"begins with one that was put by": {keys: keyring.Keys{a, b}, want: keyring.Keys{a, b, n}},
		"is sent with":                    {keys: keyring.Keys{a, b, n}, to: n, want: keyring.Keys{n, a, b}},
		"is the only one":                 {keys: keyring.Keys{n, a, b}, to: n, want: keyring.Keys{n}},
		"ends":                            {keys: keyring.Keys{n}, to: n, want: keyring.Keys{n}, ended: true},
		"was changed by hand":             {keys: keyring.Keys{a}, to: n, fails: "take its annotation"},
		"has too many":                    {keys: keyring.Keys{a, b, a[:16], a[:24]}, fails: "5 gossip keys"},
	} {
		s := secretOf(c.keys)
		if c.to != nil {
			s.Annotations = map[string]string{annotationRotation: keyring.Name(c.to)}
		}
		_, err := nextStep(s, c.keys, func() []byte { return n })
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) || !bytes.Equal(s.Data["key"], c.keys.Text()) {
				t.Errorf("%s: error %v, want …%s…, and nothing changed", name, err, c.fails)
			}
			continue
		}
		if err != nil || !bytes.Equal(s.Data["key"], c.want.Text()) || (s.Annotations[annotationRotation] == "") != c.ended {
			t.Errorf("%s: %s, annotations %v, %v", name, s.Data["key"], s.Annotations, err)
		}
	}
}

func TestRotationGivesUp(t *testing.T) {
	old := bytes.Repeat([]byte("o"), 32)
	c := fake.NewClientBuilder().WithObjects(secretOf(keyring.Keys{old})).Build()
	tool := &tool{system: "drover-system", IOStreams: genericclioptions.IOStreams{Out: &bytes.Buffer{}}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := tool.rotate(ctx, c, func(context.Context, client.Client) (map[string][]string, error) {
		return map[string][]string{"slow": nil, "there": {keyring.Name(old)}}, nil
	})
	if err == nil || !strings.Contains(err.Error(), "slow") || strings.Contains(err.Error(), "there,") {
		t.Errorf("%v does not say who is behind", err)
	}
	s := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "drover-system", Name: gossipSecret}, s); err != nil || !bytes.Equal(s.Data["key"], keyring.Keys{old}.Text()) {
		t.Errorf("the Secret was changed before all had it: %v", err)
	}
}

func TestKeysInMetrics(t *testing.T) {
	got := keysIn([]byte("# HELP x\ndrover_gossip_key_info{key=\"aa\",use=\"accepted\"} 1\ndrover_gossip_key_info{key=\"bb\",use=\"primary\"} 1\ndrover_gossip_key_info{key=\"cc\",use=\"accepted\"} 1\nother 1\n"))
	if want := []string{"bb", "aa", "cc"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
