package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/drover-project/drover/internal/gossip"
)

// options are the flags beyond those of kube-scheduler.
type options struct {
	gossipKeyFile  string
	caFile         string
	namespace      string
	agents         string
	bindAddress    string
	port           int
	podName        string
	metricsAddress string
}

func newOptions() *options {
	hostname, _ := os.Hostname() // a name for logs and members; the flag replaces it
	name := os.Getenv("POD_NAME")
	if name == "" {
		name = hostname
	}
	return &options{
		namespace:      "drover-system",
		agents:         "app.kubernetes.io/name=drover-agent",
		bindAddress:    os.Getenv("POD_IP"),
		port:           gossip.DefaultPort,
		podName:        name,
		metricsAddress: ":7949",
	}
}

// addTo puts the flags on the command, and in its help after kube-scheduler's.
func (o *options) addTo(cmd *cobra.Command) {
	fs := pflag.NewFlagSet("drover", pflag.ContinueOnError)
	fs.StringVar(&o.gossipKeyFile, "gossip-key-file", o.gossipKeyFile, "File with the keys of the agents' gossip, one in a line, in base64; a change is followed. Without it measurements are not known.")
	fs.StringVar(&o.caFile, "ca-file", o.caFile, "File with the certificates of Drover's CA, by which the agents' records are verified.")
	fs.StringVar(&o.namespace, "drover-namespace", o.namespace, "Namespace that the agents run in.")
	fs.StringVar(&o.agents, "drover-agent-selector", o.agents, "Label selector of the agents' pods.")
	fs.StringVar(&o.bindAddress, "gossip-bind-address", o.bindAddress, "IP address to listen on for gossip; the agents must be able to reach it. Default: the environment's POD_IP.")
	fs.IntVar(&o.port, "gossip-port", o.port, "Port of the gossip, here and at the agents, UDP and TCP.")
	fs.StringVar(&o.podName, "pod-name", o.podName, "Name by which the agents know this observer. Default: the environment's POD_NAME, or the host name.")
	fs.StringVar(&o.metricsAddress, "drover-metrics-address", o.metricsAddress, "Address to serve Drover's own metrics on (HTTP, /metrics); empty for none.")
	cmd.Flags().AddFlagSet(fs)

	help, usage := cmd.HelpFunc(), cmd.UsageFunc()
	extra := "\nDrover flags:\n\n" + fs.FlagUsages()
	cmd.SetHelpFunc(func(c *cobra.Command, args []string) {
		help(c, args)
		fmt.Fprint(c.OutOrStdout(), extra)
	})
	cmd.SetUsageFunc(func(c *cobra.Command) error {
		err := usage(c)
		fmt.Fprint(c.OutOrStderr(), extra)
		return err
	})
}

// validate checks what can be checked without looking at anything outside.
func (o *options) validate() error {
	if o.gossipKeyFile == "" {
		return nil
	}
	if o.caFile == "" {
		return errors.New("--gossip-key-file needs --ca-file")
	}
	if net.ParseIP(o.bindAddress) == nil {
		return fmt.Errorf("--gossip-bind-address is %q, want an IP address (or set POD_IP in the environment)", o.bindAddress)
	}
	if o.port < 1 || o.port > 65535 {
		return fmt.Errorf("--gossip-port is %d, want 1 to 65535", o.port)
	}
	if _, err := labels.Parse(o.agents); err != nil {
		return fmt.Errorf("--drover-agent-selector: %w", err)
	}
	if o.podName == "" {
		return errors.New("--pod-name is empty, and neither POD_NAME nor a host name is set")
	}
	return nil
}
