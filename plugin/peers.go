package plugin

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Limits of the annotation: more than anybody needs, little enough to look at for every pod.
const (
	maxPeerTerms  = 32
	maxPeerWeight = 1_000_000
)

// Peer is one term of the annotation drover.dev/peers: the pods of the same namespace that
// carry this label, and how much of the pod's traffic goes to all of them together.
type Peer struct {
	Key, Value string
	Weight     float64
}

// ParsePeers reads "app=db,app=cache:3": terms key=value[:weight], separated by commas. A
// weight is a decimal number greater than 0; without one it is 1. The error is one line
// that quotes the term.
func ParsePeers(annotation string) ([]Peer, error) {
	if annotation == "" {
		return nil, nil
	}
	terms := strings.Split(annotation, ",")
	if len(terms) > maxPeerTerms {
		return nil, fmt.Errorf("%d terms, at most %d are allowed", len(terms), maxPeerTerms)
	}
	var peers []Peer
	for _, term := range terms {
		p, err := parsePeer(strings.TrimSpace(term))
		if err != nil {
			return nil, fmt.Errorf("term %s: %w", quote(term), err)
		}
		for _, other := range peers {
			if p.Key == other.Key && p.Value == other.Value {
				return nil, fmt.Errorf("%s=%s stands there twice", p.Key, p.Value)
			}
		}
		peers = append(peers, p)
	}
	return peers, nil
}

func parsePeer(term string) (Peer, error) {
	selector, weight, weighted := strings.Cut(term, ":")
	key, value, ok := strings.Cut(selector, "=")
	if !ok || key == "" || value == "" {
		return Peer{}, fmt.Errorf("want key=value or key=value:weight")
	}
	if faults := validation.IsQualifiedName(key); len(faults) > 0 {
		return Peer{}, fmt.Errorf("the label key %s is not valid: %s", quote(key), faults[0])
	}
	if faults := validation.IsValidLabelValue(value); len(faults) > 0 {
		return Peer{}, fmt.Errorf("the label value %s is not valid: %s", quote(value), faults[0])
	}
	p := Peer{Key: key, Value: value, Weight: 1}
	if weighted {
		w, err := strconv.ParseFloat(weight, 64)
		if err != nil || strings.Trim(weight, "0123456789.") != "" || !(w > 0 && w <= maxPeerWeight) {
			return Peer{}, fmt.Errorf("the weight %s must be a number more than 0 and at most %d", quote(weight), maxPeerWeight)
		}
		p.Weight = w
	}
	return p, nil
}

// quote shows what a user wrote, on one line and not at length.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strconv.Quote(s)
}
