// Package measure is the agent's senses: what the node has and uses (Load), who waits for
// its CPU, memory and IO, and for whom (Contention), and how long the way to other nodes takes.
//
// It reads the kernel (control groups, procfs, eBPF) and gives plain values; what they mean
// is for the core packages to say.
package measure
