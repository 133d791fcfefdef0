// Package movable judges whether a pod can be moved, and says all that speaks against it: the
// controller asks it before it accepts a move, and people ask it by kubectl drover check. It
// is pure: it sees the objects that it is given and nothing else. What only the node of the
// pod can know is package nodeagent/examine's to find, in the same words.
package movable

import (
	"fmt"
	"strings"
)

// Finding is one thing that speaks against a move.
type Finding struct {
	// Reason is a CamelCase word.
	Reason string `json:"reason"`
	// Message is a sentence that names the part: a volume, a container, a socket, a node.
	Message string `json:"message"`
	// Remedy says what to do about it; empty: nothing can be done, or the message says it.
	Remedy string `json:"remedy,omitempty"`
}

// Reasons that a pod's objects give.
const (
	ReasonPodTerminating       = "PodTerminating"
	ReasonNotScheduled         = "NotScheduled"
	ReasonNotRunning           = "NotRunning"
	ReasonNotOptedIn           = "NotOptedIn"
	ReasonHoldsAddress         = "HoldsAddress"
	ReasonWrongRuntimeClass    = "WrongRuntimeClass"
	ReasonEphemeralContainer   = "EphemeralContainer"
	ReasonHostNamespace        = "HostNamespace"
	ReasonUnsupportedLifecycle = "UnsupportedLifecycle"
	ReasonUnsupportedDevice    = "UnsupportedDevice"
	ReasonUnsupportedVolume    = "UnsupportedVolume"
	ReasonReadWriteOnce        = "ReadWriteOnceVolume"
)

// Reasons that processes give, as package nodeagent/examine finds them.
const (
	ReasonMPTCP             = "MPTCPSocket"
	ReasonSocket            = "UnsupportedSocket"
	ReasonIOURing           = "IOUring"
	ReasonPerf              = "PerfEvent"
	ReasonBPF               = "BPFObject"
	ReasonUserfaultfd       = "Userfaultfd"
	ReasonSeccompNotify     = "SeccompNotify"
	ReasonDescriptor        = "UnsupportedDescriptor"
	ReasonDevice            = "DeviceOpen"
	ReasonSecretMemory      = "SecretMemory"
	ReasonFileOutside       = "FileOutside"
	ReasonLargeDeletedFile  = "LargeDeletedFile"
	ReasonVolumeFile        = "VolumeFileOpen"
	ReasonFiles             = "UnsupportedFiles"
	ReasonTraced            = "Traced"
	ReasonOtherNamespace    = "OtherNamespace"
	ReasonNoProcess         = "NoProcess"
	ReasonNotExamined       = "NotExamined"
	ReasonNoCandidate       = "NoCandidate"
	ReasonCannotRestore     = "CannotRestore"
	ReasonCannotLoadLater   = "CannotLoadLater"
	ReasonCPUFeatures       = "CPUFeatures"
	ReasonOtherArchitecture = "OtherArchitecture"
	ReasonNoHandler         = "NoRuntimeHandler"
	ReasonClosed            = "NodeClosed"
	ReasonNotAlive          = "AgentNotAlive"
	ReasonBarred            = "NotAllowedThere"
	ReasonNoRoom            = "NoRoom"
)

// Found makes a Finding; it has no remedy.
func Found(reason, format string, args ...any) Finding {
	return Finding{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// But is the finding with what to do about it.
func (f Finding) But(remedy string) Finding {
	f.Remedy = remedy
	return f
}

// String is the finding in one line.
func (f Finding) String() string {
	s := f.Reason + ": " + f.Message
	if f.Remedy != "" {
		s += " (" + f.Remedy + ")"
	}
	return s
}

// Sum is all findings as one: the first one's reason, and what all say. It wants at least one.
func Sum(all []Finding) Finding {
	first := all[0]
	if len(all) == 1 {
		if first.Remedy != "" {
			first.Message += " (" + first.Remedy + ")"
		}
		return Finding{Reason: first.Reason, Message: first.Message}
	}
	lines := make([]string, len(all))
	for i, f := range all {
		lines[i] = f.String()
	}
	return Finding{Reason: first.Reason, Message: strings.Join(lines, "; ")}
}
