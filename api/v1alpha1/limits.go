package v1alpha1

import "unicode/utf8"

// Bounds of a record, which the schema has, too: whoever may write a part of one cannot make
// it too large for the others to write theirs.
const (
	// MaxMessage is the length of a message, in characters. A record in which every message is
	// as long as it may be is within etcd's limit of 1.5 MiB, at six bytes a character.
	MaxMessage = 2048
	// MaxSteps is the length of a timeline, MaxNodeSteps the part of one node in it.
	MaxSteps     = 64
	MaxNodeSteps = 16
	// MaxContainers is how many containers of a pod can move.
	MaxContainers = 256
)

// Cut gives the message as it is if it is no longer than MaxMessage bytes; else its
// beginning and an ellipsis, as long as that together.
func Cut(message string) string {
	const ellipsis = "…"
	if len(message) <= MaxMessage {
		return message
	}
	end := MaxMessage - len(ellipsis)
	for end > 0 && !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + ellipsis
}

// AddStep adds a step to the timeline, its message cut; a full one stays as it is, for
// nobody decides by it.
func (s *PodMigrationStatus) AddStep(e TimelineEntry) {
	if len(s.Timeline) >= MaxSteps {
		return
	}
	e.Message = Cut(e.Message)
	s.Timeline = append(s.Timeline, e)
}
