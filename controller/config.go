package controller

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// Config is what a Reconciler needs to know. The zero value of a duration means its default.
type Config struct {
	// Namespace is Drover's own: the agents' pods and the pause switch are there.
	Namespace string
	// AgentSelector finds the agents' pods in Namespace.
	AgentSelector labels.Selector
	// UnschedulableAfter: a replacement that the scheduler called unschedulable, this long
	// after it was made, aborts the move. Default 30 s.
	UnschedulableAfter time.Duration
	// BindDeadline: a replacement without a node, this long after it was made, aborts the
	// move whatever the scheduler says. Default 60 s.
	BindDeadline time.Duration
	// BudgetDeadline is how long a move waits for a PodDisruptionBudget that allows no
	// disruption. Default 30 s.
	BudgetDeadline time.Duration
	// PrepareDeadline: a move undecided this long after it was accepted is aborted. Default 5 min.
	PrepareDeadline time.Duration
	// ReadyDeadline: a replacement that is not ready this long after the commit is handed
	// over anyway, if its source is not ready either; one that is kept for its address until
	// then is ended. Default 60 s.
	ReadyDeadline time.Duration
	// EndDeadline: this long after the commit the source pod is deleted even though its
	// agent has not said that the processes are gone. Default 30 s.
	EndDeadline time.Duration
	// SettleDeadline: this long after an abort before any create waited, the agents are not
	// waited for any more. Default 10 s.
	SettleDeadline time.Duration
	// PauseImage holds the old addresses of pods that keep their connections: an image by its
	// digest, NAME@sha256:…, whose program does nothing. Empty: no address is held.
	PauseImage string
	// CarryEarlierAddresses: a pod that moves again takes along the addresses that it still has by earlier
	// moves. Default false: such a move closes connections, or is refused if they are required.
	CarryEarlierAddresses bool
	// KeepFor is how long a finished PodMigration is kept. Default 1 h; negative: for ever.
	KeepFor time.Duration
	// Poll is how often an unfinished move is looked at when no event comes. Default 1 s.
	Poll time.Duration
}

// byDigest is an image that cannot be another tomorrow.
var byDigest = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)

// DefaultAgentSelector is the label that the chart gives the agents' pods.
const DefaultAgentSelector = "app.kubernetes.io/name=drover-agent"

// WithDefaults fills in what is zero.
func (c Config) WithDefaults() Config {
	fill := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	fill(&c.UnschedulableAfter, 30*time.Second)
	fill(&c.BindDeadline, time.Minute)
	fill(&c.BudgetDeadline, 30*time.Second)
	fill(&c.PrepareDeadline, 5*time.Minute)
	fill(&c.ReadyDeadline, time.Minute)
	fill(&c.EndDeadline, 30*time.Second)
	fill(&c.SettleDeadline, 10*time.Second)
	fill(&c.KeepFor, time.Hour)
	fill(&c.Poll, time.Second)
	if c.AgentSelector == nil {
		c.AgentSelector, _ = labels.Parse(DefaultAgentSelector)
	}
	return c
}

// Validate says what of a Config cannot work.
func (c Config) Validate() error {
	if c.Namespace == "" {
		return errors.New("namespace is empty: name the one that Drover runs in")
	}
	if c.PauseImage != "" && !byDigest.MatchString(c.PauseImage) {
		return fmt.Errorf("pause-image is %q: want an image by its digest, NAME@sha256:…, for that is all that the fence of a node lets through", c.PauseImage)
	}
	for name, d := range map[string]time.Duration{
		"unschedulable-after": c.UnschedulableAfter, "bind-deadline": c.BindDeadline,
		"budget-deadline": c.BudgetDeadline, "prepare-deadline": c.PrepareDeadline, "ready-deadline": c.ReadyDeadline,
		"end-deadline": c.EndDeadline, "settle-deadline": c.SettleDeadline, "poll": c.Poll,
	} {
		if d < 0 {
			return fmt.Errorf("%s is %s: it must be positive, or 0 for the default", name, d)
		}
	}
	return nil
}
