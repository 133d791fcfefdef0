// Package growth draws how the time to spread a report and the bytes for it grow with the
// number of nodes.
package growth

// Growth is the data.
type Growth struct {
	Points []Point `json:"points"`
	Goals  []Goal  `json:"goals"`
}

// Point is one size of one system.
type Point struct {
	System string `json:"system"`
	Nodes  int    `json:"nodes"`
	// Modelled: the model says so, nothing was measured.
	Modelled bool `json:"modelled,omitempty"`
	// Seconds is the time, since it was told, until 99 % of the nodes have the report that 99
	// in 100 are not slower than; 0: it was not over while they were followed.
	Seconds float64 `json:"seconds"`
	// Bytes are those that a node sends a second.
	Bytes float64 `json:"bytes"`
}

// Goal is what no size up to Nodes is to exceed.
type Goal struct {
	Nodes   int     `json:"nodes"`
	Seconds float64 `json:"seconds"`
	Bytes   float64 `json:"bytes"`
}
