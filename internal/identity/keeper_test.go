package identity_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/identity/signer"
)

var node1 = identity.Subject{Node: "n1", NodeUID: "uid-1"}

// office is an API server with a controller behind it that can be away.
type office struct {
	t         *testing.T
	set       *fake.Clientset
	ca        *identitytest.Authority
	authority *signer.Authority
	made      chan string // names of requests made
	failures  int         // creates that fail first
}

func newOffice(t *testing.T) *office {
	t.Helper()
	ca := identitytest.NewAuthority(t)
	authority, err := signer.NewAuthority(ca.PEM(t))
	if err != nil {
		t.Fatal(err)
	}
	o := &office{t: t, set: fake.NewClientset(), ca: ca, authority: authority, made: make(chan string, 100)}
	n := 0
	o.set.PrependReactor("create", "certificatesigningrequests", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if o.failures > 0 {
			o.failures--
			return true, nil, errors.New("connection refused")
		}
		csr := a.(k8stesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest)
		n++
		csr.Name = fmt.Sprint(csr.GenerateName, n)
		csr.Spec.Username = "system:serviceaccount:ns:drover-agent"
		csr.Spec.Extra = map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/node-name": {"n1"}}
		o.made <- csr.Name
		return false, nil, nil
	})
	return o
}

func (o *office) keeper(file string) *identity.Keeper {
	return identity.NewKeeper(identity.Config{
		Subject: node1, IPs: []net.IP{net.IPv4(10, 0, 0, 1)}, Roots: o.ca.Pool(), Life: 24 * time.Hour,
		Requests: o.set.CertificatesV1().CertificateSigningRequests(), File: file, Log: slog.New(slog.DiscardHandler),
	})
}

// answer does what drover-controller does about one request.
func (o *office) answer(name string, change func(*certificatesv1.CertificateSigningRequest)) {
	o.t.Helper()
	csrs := o.set.CertificatesV1().CertificateSigningRequests()
	csr, err := csrs.Get(o.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		o.t.Fatal(err)
	}
	if change == nil {
		grant, err := signer.Judge(csr, &signer.Node{Name: "n1", UID: "uid-1", Addresses: []net.IP{net.IPv4(10, 0, 0, 1)}}, "ns")
		if err != nil {
			o.t.Fatal(err)
		}
		if csr.Status.Certificate, err = o.authority.Sign(grant, time.Now()); err != nil {
			o.t.Fatal(err)
		}
	} else {
		change(csr)
	}
	if _, err := csrs.UpdateStatus(o.t.Context(), csr, metav1.UpdateOptions{}); err != nil {
		o.t.Fatal(err)
	}
}

// run starts a keeper; stop ends it and waits for it.
func run(k *identity.Keeper) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = k.Run(ctx); close(done) }()
	return func() { cancel(); <-done }
}

func TestKeeperGetsAndRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.failures = 3 // the API server is away at first
		k := o.keeper("")
		defer run(k)()
		o.answer(<-o.made, nil)
		first, err := k.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(first.Cert.IPAddresses) != 1 || first.Subject != node1 {
			t.Errorf("certificate for %v with addresses %v", first.Subject, first.Cert.IPAddresses)
		}
		got := time.Now()
		o.answer(<-o.made, nil) // synctest's clock runs to when this request is made
		if waited := time.Since(got); waited < 15*time.Hour || waited > 17*time.Hour {
			t.Errorf("renewed after %v, want two thirds of a day", waited)
		}
		synctest.Wait()
		second := k.Current()
		if !second.Cert.NotAfter.After(first.Cert.NotAfter) || !second.Key.Equal(first.Key) {
			t.Error("the second certificate is no longer one for the same key")
		}
	})
}

func TestKeeperOutlastsRefusalsAndSilence(t *testing.T) {
	refuse := func(kind certificatesv1.RequestConditionType) func(*certificatesv1.CertificateSigningRequest) {
		return func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: kind, Status: corev1.ConditionTrue, Message: "because"}}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		k := o.keeper("")
		defer run(k)()
		o.answer(<-o.made, refuse(certificatesv1.CertificateDenied))
		o.answer(<-o.made, refuse(certificatesv1.CertificateFailed))
		o.answer(<-o.made, func(c *certificatesv1.CertificateSigningRequest) { c.Status.Certificate = []byte("x") })
		other := identitytest.NewAuthority(t).Node(t, "n1")
		o.answer(<-o.made, func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Cert.Raw}) // of another CA
		})
		mine := o.ca.Node(t, "n1")
		o.answer(<-o.made, func(c *certificatesv1.CertificateSigningRequest) {
			c.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mine.Cert.Raw}) // for another key
		})
		name := <-o.made
		if err := o.set.CertificatesV1().CertificateSigningRequests().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-o.made // nobody answers: after a while a new one is made
		if k.Current() != nil {
			t.Error("an identity came from nowhere")
		}
		o.answer(<-o.made, nil)
		if _, err := k.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestKeeperUsesItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "identity.pem")
	o := newOffice(t)
	k := o.keeper(file)
	stop := run(k)
	o.answer(<-o.made, nil)
	first, err := k.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := os.Stat(file); err != nil; _, err = os.Stat(file) {
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	stop()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v; want mode 0600", info, err)
	}

	again := o.keeper(file)
	stop = run(again)
	id, err := again.Wait(t.Context())
	if err != nil || !id.Key.Equal(first.Key) || len(o.made) > 0 {
		t.Errorf("after a restart: %v, the same key %v, %d requests", err, id.Key.Equal(first.Key), len(o.made))
	}
	stop()

	for name, b := range map[string]string{"empty": "", "half": "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n", "noise": "x\x00y"} {
		if err := os.WriteFile(file, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		k := o.keeper(file)
		stop := run(k)
		o.answer(<-o.made, nil)
		if _, err := k.Wait(t.Context()); err != nil {
			t.Errorf("%s file: %v", name, err)
		}
		stop()
	}
}

func TestLoadRoots(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.crt")
	if _, err := identity.LoadRoots(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.LoadRoots(file); err == nil {
		t.Error("noise was taken for a CA")
	}
	ca := identitytest.NewAuthority(t)
	cert, _ := ca.PEM(t)
	if err := os.WriteFile(file, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	pool, err := identity.LoadRoots(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Verify(ca.Node(t, "n").Cert, pool, time.Now()); err != nil {
		t.Error(err)
	}
	if _, err := identity.Verify(ca.Cert, pool, time.Now()); err == nil {
		t.Error("the CA itself passed for an agent")
	}
}
