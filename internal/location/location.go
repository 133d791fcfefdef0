// Package location keeps where moved pods are. Every node hears the same records, in any
// order and any number of times, and must end with the same answer: of two records of one
// lineage the one with the greater epoch is right.
package location

import (
	"cmp"
	"slices"

	"github.com/drover-project/drover/internal/model"
	"github.com/drover-project/drover/internal/view"
)

// Compare orders the records of one lineage: a negative answer means that b is right. The
// epoch decides. An epoch is given out once, so two different records with one epoch are
// a mistake of somebody's; the other fields decide then, so that all nodes at least make
// the same choice.
func Compare(a, b model.Location) int {
	return cmp.Or(
		cmp.Compare(a.Epoch, b.Epoch),
		a.At.Compare(b.At),
		cmp.Compare(a.Node, b.Node),
		cmp.Compare(a.Pod.UID, b.Pod.UID),
		cmp.Compare(a.Pod.Namespace, b.Pod.Namespace),
		cmp.Compare(a.Pod.Name, b.Pod.Name),
		cmp.Compare(a.From, b.From),
		cmp.Compare(a.Migration, b.Migration),
	)
}

// Merge gives the record that is right of two of one lineage. It commutes, associates and
// is idempotent.
func Merge(a, b model.Location) model.Location {
	if Compare(a, b) < 0 {
		return b
	}
	return a
}

// Table holds one record a lineage, of a limited number of lineages: over the limit the
// one that moved longest ago is forgotten. Merging into it obeys the same laws as Merge;
// over the limit as long as At grows with the epoch of a lineage. It is not safe for
// concurrent use.
type Table struct {
	limit    int
	byOrigin map[string]model.Location
}

// NewTable makes an empty table for at most limit lineages (at least one).
func NewTable(limit int) *Table {
	return &Table{limit: max(1, limit), byOrigin: map[string]model.Location{}}
}

// Merge takes records in and gives those that were new to the table and are in it now, in
// the order of List: they are what is worth telling on. Records without origin, node or
// epoch are left out.
func (t *Table) Merge(ls ...model.Location) []model.Location {
	taken := map[string]bool{}
	for _, l := range ls {
		if l.Origin == "" || l.Node == "" || l.Epoch == 0 {
			continue
		}
		old, known := t.byOrigin[l.Origin]
		if known && Compare(old, l) >= 0 {
			continue
		}
		t.byOrigin[l.Origin] = l
		taken[l.Origin] = true
	}
	t.shrink()
	var news []model.Location
	for origin := range taken {
		if l, kept := t.byOrigin[origin]; kept {
			news = append(news, l)
		}
	}
	view.SortLocations(news)
	return news
}

// shrink forgets the oldest moves over the limit.
func (t *Table) shrink() {
	over := len(t.byOrigin) - t.limit
	if over <= 0 {
		return
	}
	all := t.List()
	slices.SortFunc(all, func(a, b model.Location) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Origin, b.Origin))
	})
	for _, l := range all[:over] {
		delete(t.byOrigin, l.Origin)
	}
}

// Get gives the record of a lineage by the UID of its first pod.
func (t *Table) Get(origin string) (model.Location, bool) {
	l, ok := t.byOrigin[origin]
	return l, ok
}

// Len is how many lineages are known.
func (t *Table) Len() int { return len(t.byOrigin) }

// List gives all records in the order of view.SortLocations; the slice is the caller's.
func (t *Table) List() []model.Location {
	all := make([]model.Location, 0, len(t.byOrigin))
	for _, l := range t.byOrigin {
		all = append(all, l)
	}
	view.SortLocations(all)
	return all
}
