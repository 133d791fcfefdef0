// Package guest is what runs in a virtual machine with another kernel: it makes the machine a
// place like a node, runs tests there, and tells of them on a serial line.
package guest

// Layout is how control groups are mounted.
type Layout string

// The layouts.
const (
	V2     Layout = "v2"     // all of it on /sys/fs/cgroup
	Hybrid Layout = "hybrid" // v1 with every controller, and v2 without any on its unified, as systemd does it
)

// Plan is what a machine shall do. It lies on the machine's second disk, as plan.json.
type Plan struct {
	Layout Layout
	// Packages are directories below the disk's tests, as of the source, each with its test
	// program called test.
	Packages []string
	Tests    string // which of their tests: -test.run
	// Node is one of them, or empty: its tests want a node, and are run in their own way. What lies in
	// its directory's "root" is copied to the machine's.
	Node *Node
}

// Node is what is run of a package whose tests want a node.
type Node struct {
	Package string
	// Arguments are the test program's beside the usual ones.
	Arguments []string
	Env       []string
}

// What begins a line that is not a test's own.
const (
	MarkFeature = "@feature " // name, tab, yes or no, tab, detail
	MarkBegin   = "@begin "   // package
	MarkEnd     = "@end "     // package, tab, time, tab, error or nothing
	MarkFailed  = "@failed "  // why the machine cannot go on
	MarkDone    = "@done"
)

// The disks, as the kernel names them: the root file system, and the plan with its tests.
const (
	rootDisk = "/dev/vda"
	planDisk = "/dev/vdb"
)

// Results is the serial line that results are told on; the other one is the kernel's console.
const Results = "/dev/ttyS1"
