// Package badinput sends a node what no honest peer sends: truncated, oversized, replayed and
// forged datagrams by the million, as somebody on its own network could, and tells what
// changed and what it cost.
package badinput
