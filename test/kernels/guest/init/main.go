// Command init is process 1 of a virtual machine with another kernel; see package guest.
package main

import "github.com/drover-project/drover/test/kernels/guest"

func main() { guest.Main() }
