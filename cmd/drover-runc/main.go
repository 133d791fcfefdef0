// Drover-runc is an OCI runtime in front of runc: it keeps moved pods from being started
// again, and turns the create of a replacement into the restore of its checkpoint.
package main

import (
	"os"

	"github.com/drover-project/drover/internal/runtimewrapper"
)

func main() {
	os.Exit(runtimewrapper.Main(os.Args))
}
