// Package chaos breaks real moves in every way at every step: a fault strikes while a pod
// moves between two nodes of a lab, what was broken comes back as it does in life, and a
// witness outside says whether a tick was lost or doubled. Then nothing may be left behind.
//
// TestPairwise runs a choice in which every fault and every step is met; TestTable runs them
// all, goes on where it was interrupted, and writes docs/chaos.md.
package chaos
