package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/drover-project/drover/internal/identity/signer"
	"github.com/drover-project/drover/internal/refusals"
)

// authority reads Drover's CA; nil without one.
func (o *options) authority() (*signer.Authority, error) {
	switch {
	case o.agentAccount != signer.AgentServiceAccount:
		return nil, fmt.Errorf("--agent-service-account=%q: only %q is supported", o.agentAccount, signer.AgentServiceAccount)
	case o.caCert == "" && o.caKey == "":
		return nil, nil
	case o.caCert == "" || o.caKey == "":
		return nil, errors.New("--ca-cert-file and --ca-key-file go together: give both or none")
	}
	cert, err := os.ReadFile(o.caCert)
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	key, err := os.ReadFile(o.caKey)
	if err != nil {
		return nil, fmt.Errorf("read the CA's key: %w", err)
	}
	a, err := signer.NewAuthority(cert, key)
	if err != nil {
		return nil, fmt.Errorf("CA in %s and %s: %w", o.caCert, o.caKey, err)
	}
	return a, nil
}

// sign adds the signer of the agents' certificates, if there is a CA.
func (o *options) sign(mgr ctrl.Manager, a *signer.Authority) error {
	if a == nil {
		mgr.GetLogger().Info("no --ca-cert-file and --ca-key-file: certificate requests are left to others")
		return nil
	}
	refused := refusals.New(refusals.Certificate)
	if err := metrics.Registry.Register(refused); err != nil {
		return fmt.Errorf("count refused certificate requests: %w", err)
	}
	s := &signer.Reconciler{
		Client: mgr.GetClient(), Nodes: mgr.GetAPIReader(), Authority: a,
		Namespace: o.controller.Namespace, Now: time.Now, Refusals: refused,
	}
	return s.SetupWithManager(mgr)
}
