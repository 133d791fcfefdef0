// Package migrate drives the moves of one node: it feeds the machines of internal/handoff
// with what happens (the record changes, a create waits, a hook holds, images arrive) and
// carries out what they ask for, through the small interfaces in ports.go.
//
// One Driver serves a node, as source of some moves and target of others. Each move has
// one worker whose goroutine alone touches its machine; actions run beside it and report
// back as events. A worker that dies with the agent is rebuilt from the record and from
// what Inspect finds, so nothing here needs to be remembered on disk but two marks: that a
// copy was about to run, and that a move has been acknowledged.
package migrate
