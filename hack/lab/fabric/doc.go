// Package fabric is the lab's network: a user-space Ethernet switch over TAP devices whose
// every pair of ports has its own delay, which can be changed or cut while it runs.
//
// Linux can delay packets by itself (netem), but not every kernel is built with it. A
// switch in user space needs /dev/net/tun alone. One locked thread does all of the work: it
// waits in ppoll for frames and for the next delivery, so that idle costs next to nothing
// and a frame is never handed from thread to thread. For times that hold on a busy machine
// run it in a process of its own: the Go scheduler gives the thread no priority over other
// goroutines of the same process.
package fabric
