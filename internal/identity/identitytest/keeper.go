package identitytest

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/identity"
)

// patience is for a machine that is busy: what a keeper waits for is in its file already.
const patience = 30 * time.Second

// Keeper runs one that holds an identity of the CA until the test ends.
func (a *Authority) Keeper(t testing.TB, id *identity.Identity) *identity.Keeper {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(id.Key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "identity.pem")
	data := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Cert.Raw})...)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	k := identity.NewKeeper(identity.Config{Subject: id.Subject, Roots: a.Pool(), File: file})
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	soon, done := context.WithTimeout(t.Context(), patience)
	defer done()
	if _, err := k.Wait(soon); err != nil {
		t.Fatal(err)
	}
	return k
}
