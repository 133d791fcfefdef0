package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/drover-project/drover/internal/identity/signer"
)

// sign adds the signer of the agents' certificates, if there is a CA.
func (o *options) sign(mgr ctrl.Manager) error {
	if o.caCert == "" && o.caKey == "" {
		mgr.GetLogger().Info("no --ca-cert-file and --ca-key-file: certificate requests are left to others")
		return nil
	}
	if o.caCert == "" || o.caKey == "" {
		return errors.New("--ca-cert-file and --ca-key-file go together: give both or none")
	}
	if o.agentAccount != signer.AgentServiceAccount {
		return fmt.Errorf("--agent-service-account=%q: only %q is supported", o.agentAccount, signer.AgentServiceAccount)
	}
	cert, err := os.ReadFile(o.caCert)
	if err != nil {
		return fmt.Errorf("read the CA's certificate: %w", err)
	}
	key, err := os.ReadFile(o.caKey)
	if err != nil {
		return fmt.Errorf("read the CA's key: %w", err)
	}
	authority, err := signer.NewAuthority(cert, key)
	if err != nil {
		return fmt.Errorf("CA in %s and %s: %w", o.caCert, o.caKey, err)
	}
	s := &signer.Reconciler{
		Client: mgr.GetClient(), Nodes: mgr.GetAPIReader(), Authority: authority,
		Namespace: o.controller.Namespace, Now: time.Now,
	}
	return s.SetupWithManager(mgr)
}
