package kernels

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/drover-project/drover/test/kernels/features"
)

// column is one kernel.
type column struct {
	title string
	results
}

// table shows kernel by feature.
func table(packages []string, columns []column) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name string, cell func(column) string) {
		fmt.Fprint(w, name)
		for _, c := range columns {
			fmt.Fprint(w, "\t", cell(c))
		}
		fmt.Fprintln(w)
	}
	row("", func(c column) string { return c.title })
	for _, f := range features.All() {
		row(f.Name, func(c column) string {
			a := c.features[f.Name]
			switch {
			case !a.yes:
				return "no"
			case a.detail != "":
				return a.detail
			}
			return "yes"
		})
	}
	for _, p := range packages {
		row("tests of "+p, func(c column) string {
			switch o := c.packages[p]; {
			case o == nil:
				return "-"
			case o.failed != "":
				return "FAILED"
			case len(o.skipped) > 0:
				return fmt.Sprintf("%d in %s, %d not for it", o.passed, o.took, len(o.skipped))
			default:
				return fmt.Sprintf("%d in %s", o.passed, o.took)
			}
		})
	}
	w.Flush()
	return b.String()
}
