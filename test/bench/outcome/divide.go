package main

// claim is a pod's on a node's cores.
type claim struct {
	weight float64 // what it requests
	most   float64 // cores that it can use
}

// divide gives each claim its part of some cores: by weight, and what one cannot use goes to the
// others.
func divide(cores float64, claims []claim) []float64 {
	parts := make([]float64, len(claims))
	for left := cores; ; {
		weights := 0.
		for i, c := range claims {
			if parts[i] < c.most {
				weights += c.weight
			}
		}
		if weights == 0 {
			return parts
		}
		// The ones that would get more than they can use get just that, and the rest is divided anew.
		full := false
		for i, c := range claims {
			if parts[i] < c.most && left*c.weight/weights >= c.most {
				full = true
			}
		}
		share := left
		for i, c := range claims {
			switch part := share * c.weight / weights; {
			case parts[i] >= c.most:
			case part >= c.most:
				parts[i] = c.most
				left -= c.most
			case !full:
				parts[i] = part
			}
		}
		if !full {
			return parts
		}
	}
}
