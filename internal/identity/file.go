package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// saveFile writes key and certificate as PEM, atomically, readable by the owner alone.
func saveFile(path string, id *Identity) error {
	key, err := x509.MarshalPKCS8PrivateKey(id.Key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	var b bytes.Buffer
	// A bytes.Buffer takes every write.
	_ = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: id.Cert.Raw})
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make directory for %s: %w", path, err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("put identity in place: %w", err)
	}
	return nil
}

// loadFile reads what saveFile wrote, if it is for want, verifies, and is not yet due
// for renewal.
func loadFile(path string, want Subject, roots *x509.CertPool, now time.Time) (*Identity, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	keyBlock, rest := pem.Decode(b)
	if keyBlock == nil {
		return nil, fmt.Errorf("identity file %s holds no PEM key", path)
	}
	certBlock, _ := pem.Decode(rest)
	if certBlock == nil {
		return nil, fmt.Errorf("identity file %s holds no PEM certificate", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse key in %s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key in %s is a %T, want Ed25519", path, parsed)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate in %s: %w", path, err)
	}
	id, err := newIdentity(want, key, cert, roots, now)
	if err != nil {
		return nil, err
	}
	if !now.Before(id.renewAt()) {
		return nil, errors.New("certificate is due for renewal")
	}
	return id, nil
}

// LoadRoots reads Drover's CA certificates from a PEM file.
func LoadRoots(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("CA file %s holds no PEM certificate", path)
	}
	return pool, nil
}
