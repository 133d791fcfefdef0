package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/drover-project/drover/internal/gossip"
	"github.com/drover-project/drover/internal/model"
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
	statusAddress  string
	decisions      int
	decisionMemory string
	events         bool
	nodeMetrics    int
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
		statusAddress:  "127.0.0.1:7950",
		decisions:      1000,
		decisionMemory: "16Mi",
		events:         true,
	}
}

// addTo puts the flags into a set.
func (o *options) addTo(fs *pflag.FlagSet) {
	fs.StringVar(&o.gossipKeyFile, "gossip-key-file", o.gossipKeyFile, "File with the keys of the agents' gossip, one in a line, in base64; a change is followed. Without it measurements are not known.")
	fs.StringVar(&o.caFile, "ca-file", o.caFile, "File with the certificates of Drover's CA, by which the agents' records are verified.")
	fs.StringVar(&o.namespace, "drover-namespace", o.namespace, "Namespace that the agents run in.")
	fs.StringVar(&o.agents, "drover-agent-selector", o.agents, "Label selector of the agents' pods.")
	fs.StringVar(&o.bindAddress, "gossip-bind-address", o.bindAddress, "IP address to listen on for gossip; the agents must be able to reach it. Default: the environment's POD_IP.")
	fs.IntVar(&o.port, "gossip-port", o.port, "Port of the gossip, here and at the agents, UDP and TCP.")
	fs.StringVar(&o.podName, "pod-name", o.podName, "Name by which the agents know this observer. Default: the environment's POD_NAME, or the host name.")
	fs.StringVar(&o.metricsAddress, "drover-metrics-address", o.metricsAddress, "Address to serve Drover's own metrics on (HTTP, /metrics); empty for none.")
	fs.StringVar(&o.statusAddress, "drover-status-address", o.statusAddress, "Loopback address to tell decisions (HTTP, /v1/decisions/NAMESPACE/POD) and the picture of the cluster (/v1/view) on; kubectl drover explain comes there by port-forward. Empty for none.")
	fs.IntVar(&o.decisions, "drover-decisions", o.decisions, "How many decisions are kept in memory at most, with the scores of up to 66 nodes; 0 for none.")
	fs.StringVar(&o.decisionMemory, "drover-decisions-memory", o.decisionMemory, "How much memory they take at most.")
	fs.BoolVar(&o.events, "drover-decision-events", o.events, "Tell by one Event on each bound pod how its node was scored, of at most 5 pods a second.")
	fs.IntVar(&o.nodeMetrics, "drover-node-metrics", o.nodeMetrics, "Of how many nodes at most to have gauges of A, C, M and T, four series each; 0 for none.")
}

// validate checks what can be checked without looking at anything outside.
func (o *options) validate() error {
	if err := o.validateSeen(); err != nil || o.gossipKeyFile == "" {
		return err
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

// validateSeen checks what decisions are shown by.
func (o *options) validateSeen() error {
	if o.statusAddress != "" {
		host, _, err := net.SplitHostPort(o.statusAddress)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("--drover-status-address is %q, want a loopback address and a port, such as 127.0.0.1:7950: what is told there names all pods, and asks nobody who they are", o.statusAddress)
		}
	}
	for flag, n := range map[string]int{"--drover-decisions": o.decisions, "--drover-node-metrics": o.nodeMetrics} {
		if n < 0 {
			return fmt.Errorf("%s is %d, must be 0 or more", flag, n)
		}
	}
	if q, err := resource.ParseQuantity(o.decisionMemory); err != nil || q.Sign() < 0 {
		return fmt.Errorf("--drover-decisions-memory is %q, want a quantity of 0 or more, such as 16Mi", o.decisionMemory)
	}
	return nil
}

// decisionBytes is how much memory decisions take at most, once it is valid.
func (o *options) decisionBytes() model.Bytes {
	q := resource.MustParse(o.decisionMemory)
	return model.Bytes(q.Value())
}
