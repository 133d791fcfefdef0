// Package gossip measures how gossip spreads what nodes say, in virtual time, over a network
// that loses, delays, reorders and duplicates: how long a report takes to all nodes, and what
// each of them sends and receives for it. Beside it runs memberlist with its defaults, which
// spreads the same bytes.
package gossip
