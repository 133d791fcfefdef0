package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	client "k8s.io/client-go/kubernetes/typed/certificates/v1"
)

// Config says whose identity to keep, and where to ask for it.
type Config struct {
	Subject Subject
	// IPs become IP SANs; the signer refuses any that is not an address of the Node.
	IPs []net.IP
	// Life is how long a certificate is asked for, 10 minutes at least. Default 24 h.
	Life time.Duration
	// Roots holds Drover's CA.
	Roots *x509.CertPool
	// Requests is where certificate requests are made.
	Requests client.CertificateSigningRequestInterface
	// File keeps key and certificate over a restart (mode 0600). Empty: in memory only.
	File string
	Log  *slog.Logger
}

// Keeper holds an identity and renews it at two thirds of its life. The key stays the
// same for as long as the process lives, so that what it signed stays verifiable.
type Keeper struct {
	cfg     Config
	current atomic.Pointer[Identity]
	first   chan struct{}
}

// NewKeeper returns a Keeper with no identity yet; Run gets one.
func NewKeeper(cfg Config) *Keeper {
	if cfg.Life == 0 {
		cfg.Life = 24 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{cfg: cfg, first: make(chan struct{})}
}

// Current is the identity now, nil until the first certificate has come.
func (k *Keeper) Current() *Identity { return k.current.Load() }

// Roots is the CA pool against which others are verified.
func (k *Keeper) Roots() *x509.CertPool { return k.cfg.Roots }

// Wait returns the identity as soon as there is one.
func (k *Keeper) Wait(ctx context.Context) (*Identity, error) {
	select {
	case <-k.first:
		return k.Current(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the certificate of %s: %w", k.cfg.Subject, context.Cause(ctx))
	}
}

// Run gets the identity, from the file if that is still good, and renews it until ctx
// ends. While drover-controller is away it retries with growing pauses for ever.
func (k *Keeper) Run(ctx context.Context) error {
	key, err := k.begin()
	if err != nil {
		return err
	}
	backoff := newBackoff()
	for ctx.Err() == nil {
		if id := k.Current(); id != nil && !sleepUntil(ctx, id.renewAt()) {
			break
		}
		id, err := k.request(ctx, key)
		if err != nil {
			pause := backoff.Step()
			if ctx.Err() == nil {
				k.cfg.Log.Error("no certificate yet, will ask again", "subject", k.cfg.Subject.String(), "error", err, "in", pause)
			}
			sleepUntil(ctx, time.Now().Add(pause))
			continue
		}
		backoff = newBackoff()
		k.set(id)
		k.save(id)
	}
	return nil
}

// begin takes the identity from the file if it is fit for use, or else makes a new key.
func (k *Keeper) begin() (ed25519.PrivateKey, error) {
	if k.cfg.File != "" {
		id, err := loadFile(k.cfg.File, k.cfg.Subject, k.cfg.Roots, time.Now())
		if err == nil {
			k.set(id)
			return id.Key, nil
		}
		k.cfg.Log.Info("making a new key", "file", k.cfg.File, "because", err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for %s: %w", k.cfg.Subject, err)
	}
	return key, nil
}

// attempt bounds the wait for one request; after it a new one is made, since someone may
// have deleted or spoilt the old.
const attempt = 10 * time.Minute

func (k *Keeper) request(ctx context.Context, key ed25519.PrivateKey) (*Identity, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attempt, errors.New("not signed for 10 minutes: is drover-controller running?"))
	defer cancel()
	csr, err := SigningRequest(k.cfg.Subject, key, k.cfg.IPs, k.cfg.Life)
	if err != nil {
		return nil, err
	}
	csr, err = k.cfg.Requests.Create(ctx, csr, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create certificate request for %s: %w", k.cfg.Subject, err)
	}
	k.cfg.Log.Info("waiting for drover-controller to sign", "request", csr.Name, "subject", k.cfg.Subject.String())
	stop := k.remind(ctx, csr.Name)
	defer stop()
	cert, err := awaitCertificate(ctx, k.cfg.Requests, csr.Name)
	if err != nil {
		return nil, err
	}
	return newIdentity(k.cfg.Subject, key, cert, k.cfg.Roots, time.Now())
}

// remind logs now and then that the request still waits, until stop is called.
func (k *Keeper) remind(ctx context.Context, name string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleepUntil(ctx, time.Now().Add(30*time.Second)) {
			k.cfg.Log.Warn("certificate request still unsigned: is drover-controller running?", "request", name)
		}
	}()
	return func() { cancel(); <-done }
}

func (k *Keeper) set(id *Identity) {
	if k.current.Swap(id) == nil {
		close(k.first)
	}
	k.cfg.Log.Info("certificate in use", "subject", id.Subject.String(), "until", id.Cert.NotAfter, "renew", id.renewAt())
}

func (k *Keeper) save(id *Identity) {
	if k.cfg.File == "" {
		return
	}
	if err := saveFile(k.cfg.File, id); err != nil {
		k.cfg.Log.Warn("certificate not kept over a restart", "file", k.cfg.File, "error", err)
	}
}

func newBackoff() *wait.Backoff {
	return &wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.2, Steps: 30, Cap: time.Minute}
}

// sleepUntil returns true at the time t, false when ctx ends before.
func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
