package pressure

// Evidence is what tells that a container is unwell without telling that others make it so.
// It is shown, and explains a grade; by itself it moves nothing.
type Evidence struct {
	// OfLimit is the memory it holds as a share of its own limit; 0 without one.
	OfLimit float64 `json:"ofLimit"`
	// MajorFaults and Refaults are pages that it had to wait for, per second: of programs and
	// files, and such as it had a moment before.
	MajorFaults float64 `json:"majorFaults"`
	Refaults    float64 `json:"refaults"`
	// OOMKills is how many of its processes were killed for want of memory since it began.
	OOMKills int `json:"oomKills"`
	// MemoryStall and IOStall are all its stall, its own doing included, 0..1.
	MemoryStall float64 `json:"memoryStall"`
	IOStall     float64 `json:"ioStall"`
}
