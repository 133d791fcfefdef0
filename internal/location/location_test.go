package location

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drover-project/drover/internal/model"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// random gives a record with few different values a field, so that ties are common.
func random(r *rand.Rand) model.Location {
	return model.Location{
		Origin: fmt.Sprint("o", r.Intn(4)),
		Pod:    model.PodID{Namespace: "ns", Name: fmt.Sprint("p", r.Intn(2)), UID: fmt.Sprint(r.Intn(2))},
		Node:   model.NodeID(fmt.Sprint("n", r.Intn(2))), From: "n9",
		Epoch: 1 + uint64(r.Intn(3)),
		At:    t0.Add(time.Duration(r.Intn(2)) * time.Second),
	}
}

// growing gives a record whose time grows with its epoch, as real ones do.
func growing(r *rand.Rand) model.Location {
	l := random(r)
	l.Origin = fmt.Sprint("o", r.Intn(12))
	l.At = t0.Add(time.Duration(l.Epoch)*time.Hour + time.Duration(r.Intn(3))*time.Minute)
	return l
}

func TestMergeLaws(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 20000 {
		a, b, c := random(r), random(r), random(r)
		b.Origin, c.Origin = a.Origin, a.Origin
		if Merge(a, b) != Merge(b, a) {
			t.Fatalf("does not commute: %+v %+v", a, b)
		}
		if Merge(a, Merge(b, c)) != Merge(Merge(a, b), c) {
			t.Fatalf("does not associate: %+v %+v %+v", a, b, c)
		}
		if Merge(a, a) != a {
			t.Fatalf("is not idempotent: %+v", a)
		}
		if m := Merge(a, b); m.Epoch != max(a.Epoch, b.Epoch) {
			t.Fatalf("epoch %d of %d and %d", m.Epoch, a.Epoch, b.Epoch)
		}
	}
}

func TestTableForgetsTheOrderOfArrival(t *testing.T) {
	for name, gen := range map[string]func(*rand.Rand) model.Location{"under the limit": random, "over the limit": growing} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewSource(2))
			for range 2000 {
				ls := make([]model.Location, 1+r.Intn(20))
				for i := range ls {
					ls[i] = gen(r)
				}
				const limit = 5 // random has 4 lineages, growing 12
				one, other := NewTable(limit), NewTable(limit)
				one.Merge(ls...)
				for _, i := range r.Perm(len(ls)) {
					other.Merge(ls[i])
					other.Merge(ls[r.Intn(i+1)]) // and again something old
				}
				if diff := cmp.Diff(one.List(), other.List()); diff != "" {
					t.Fatalf("two orders of arrival, two tables (-one +other):\n%s", diff)
				}
				if one.Len() > limit {
					t.Fatalf("%d lineages in a table for %d", one.Len(), limit)
				}
			}
		})
	}
}

func TestTableMergeTellsWhatIsNew(t *testing.T) {
	at := func(origin string, epoch uint64) model.Location {
		return model.Location{Origin: origin, Node: "n1", Epoch: epoch, At: t0.Add(time.Duration(epoch) * time.Second)}
	}
	tab := NewTable(2)
	for _, step := range []struct {
		in   []model.Location
		want []model.Location
	}{
		{in: []model.Location{at("a", 2)}, want: []model.Location{at("a", 2)}},
		{in: []model.Location{at("a", 2)}},
		{in: []model.Location{at("a", 1)}},
		{in: []model.Location{at("a", 3), at("a", 4)}, want: []model.Location{at("a", 4)}},
		{in: []model.Location{{Node: "n1", Epoch: 1}, {Origin: "x", Epoch: 1}, {Origin: "x", Node: "n1"}}},
		{in: []model.Location{at("b", 5), at("c", 6)}, want: []model.Location{at("b", 5), at("c", 6)}},
	} {
		if diff := cmp.Diff(step.want, tab.Merge(step.in...)); diff != "" {
			t.Errorf("merging %+v (-want +got):\n%s", step.in, diff)
		}
	}
	if _, ok := tab.Get("a"); ok {
		t.Error("the oldest move must be forgotten over the limit")
	}
	if l, ok := tab.Get("c"); !ok || l.Epoch != 6 {
		t.Errorf("c = %+v, %v", l, ok)
	}
}
