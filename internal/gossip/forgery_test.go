package gossip

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

// bench is one store with what an attacker needs.
type bench struct {
	t     testing.TB
	ca    *identitytest.Authority
	store *store
	now   time.Time
}

func newBench(t *testing.T, c Confirmer) *bench {
	codec, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	ca := identitytest.NewAuthority(t)
	return &bench{t: t, ca: ca, store: newStore(ca.Pool(), codec, c), now: time.Now()}
}

func (b *bench) seal(id *identity.Identity, k kind, version uint64, v any) []byte {
	b.t.Helper()
	body, ok := v.([]byte)
	if !ok {
		var err error
		if body, err = b.store.codec.encode(v); err != nil {
			b.t.Fatal(err)
		}
	}
	raw, err := seal(id, k, version, body)
	if err != nil {
		b.t.Fatal(err)
	}
	return raw
}

func (b *bench) certificate(id *identity.Identity) []byte {
	return b.seal(id, kindCertificate, certificateVersion(id.Cert), id.Cert.Raw)
}

func (b *bench) ingest(raw []byte) result {
	_, _, r := b.store.ingest(raw, b.now)
	return r
}

// known makes a node whose certificate the store has.
func (b *bench) known(name model.NodeID) *identity.Identity {
	b.t.Helper()
	id := b.ca.Node(b.t, name)
	if r := b.ingest(b.certificate(id)); r != accepted {
		b.t.Fatalf("certificate of %s: %s", name, r)
	}
	return id
}

func (b *bench) version() uint64 { return uint64(b.now.UnixNano()) }

// registration is one of the life of an agent that has just begun.
func (b *bench) registration(id *identity.Identity, version uint64) []byte {
	return b.seal(id, kindRegistration, version, registrationBody{NodeState: model.NodeState{Node: id.Subject.Node, Version: version}})
}

func (b *bench) load(id *identity.Identity, version uint64, l saidLoad) []byte {
	b.t.Helper()
	raw, err := sealLoad(id, version, l)
	if err != nil {
		b.t.Fatal(err)
	}
	return raw
}

// as is an identity that lies about whose it is but signs with its own key.
func as(id *identity.Identity, node model.NodeID) *identity.Identity {
	lie := *id
	lie.Subject.Node = node
	return &lie
}

func TestForgedRecordsAreRefused(t *testing.T) {
	b := newBench(t, nil)
	good, bad := b.known("good"), b.known("bad")
	stranger := identitytest.NewAuthority(t).Node(t, "good")
	v := b.version()
	if r := b.ingest(b.registration(good, v)); r != accepted {
		t.Fatalf("a good state: %s", r)
	}
	// borrowed takes the certificate of one and the key of the other.
	borrowed := &identity.Identity{Subject: good.Subject, Key: bad.Key, Cert: good.Cert}
	flipped := b.registration(good, v+1)
	flipped[len(flipped)-1] ^= 1
	changed := b.registration(good, v+1)
	changed[len(changed)/2] ^= 1
	far := uint64(b.now.Add(2 * maxAhead).UnixNano())
	for name, test := range map[string]struct {
		raw  []byte
		want result
	}{
		"the same again":                           {b.registration(good, v), duplicate},
		"replayed from before":                     {b.registration(good, v-1), stale},
		"from a day ahead":                         {b.registration(good, far), future},
		"signature changed":                        {flipped, badSignature},
		"body changed":                             {changed, badSignature},
		"another's name, own key":                  {b.registration(as(bad, "good"), v+1), unknownKey},
		"another's certificate, own key":           {b.registration(borrowed, v+1), badSignature},
		"another CA's node":                        {b.registration(stranger, v+1), unknownKey},
		"another CA's certificate":                 {b.certificate(stranger), badCertificate},
		"own certificate under another's name":     {b.certificate(as(bad, "good")), wrongOrigin},
		"another's certificate, signed by own key": {b.certificate(&identity.Identity{Subject: good.Subject, Key: bad.Key, Cert: renewed(b, good)}), badSignature},
		"own record about another":                 {b.seal(bad, kindRegistration, v+1, registrationBody{NodeState: model.NodeState{Node: "good", Version: v + 1}}), wrongOrigin},
		"body of another version":                  {b.seal(bad, kindRegistration, v+1, registrationBody{NodeState: model.NodeState{Node: "bad", Version: v + 9}}), malformed},
		"a life that begins later than it speaks":  {b.seal(bad, kindRegistration, v+1, registrationBody{model.NodeState{Node: "bad", Version: v + 1}, v + 2}), malformed},
		"routes with a bad part":                   {b.seal(bad, kindRoutes, v+1, partBody[waysTo]{Part: 7, Parts: 3}), malformed},
		"routes of many parts":                     {b.seal(bad, kindRoutes, v+1, partBody[waysTo]{Part: 0, Parts: 1 << 30}), malformed},
		"a route in another's part":                {b.seal(bad, kindRoutes, v+1, partBody[waysTo]{Part: 1 - partOf("x", 2), Parts: 2, Items: map[string]waysTo{"x": {}}}), malformed},
		"a pod without a name":                     {b.seal(bad, kindPods, v+1, partBody[podName]{Parts: 1, Items: map[string]podName{"uid": {Namespace: "ns"}}}), malformed},
		"a pod without a UID":                      {b.seal(bad, kindPods, v+1, partBody[podName]{Parts: 1, Items: map[string]podName{"": {"ns", "n"}}}), malformed},
		"a pod with a long name":                   {b.seal(bad, kindPods, v+1, partBody[podName]{Parts: 1, Items: map[string]podName{"uid": {"ns", strings.Repeat("n", maxName+1)}}}), malformed},
		"pods beyond a packet":                     {b.seal(bad, kindPods, v+1, noise(packetRecord)), oversized},
		"talk in another's part":                   {b.seal(bad, kindTalk, v+1, partBody[talking]{Part: 1 - partOf("10.1.0.1", 2), Parts: 2, Items: map[string]talking{"10.1.0.1": {Of: shop("web")}}}), malformed},
		"talk beyond a packet":                     {b.seal(bad, kindTalk, v+1, noise(packetRecord)), oversized},
		"suffering that is no list":                {b.seal(bad, kindSuffering, v+1, []byte("\x00{}")), malformed},
		"unknown kind":                             {b.seal(bad, 99, v+1, partBody[waysTo]{}), unknownKind},
		"a state of an older agent":                {b.seal(bad, 2, v+1, model.NodeState{Node: "bad", Version: v + 1}), unknownKind},
		"a load in the wire form of others":        {b.seal(bad, kindLoad, v+1, []byte{0}), malformed},
		"no body":                                  {b.seal(bad, kindRegistration, v+1, []byte{}), malformed},
		"body is no JSON":                          {b.seal(bad, kindRegistration, v+1, []byte{bodyPlain, '{'}), malformed},
		"body is no zstd":                          {b.seal(bad, kindRegistration, v+1, []byte{bodyZstd, 1, 2, 3}), malformed},
		"a bomb":                                   {b.seal(bad, kindRegistration, v+1, b.bomb()), malformed},
		"empty":                                    {nil, malformed},
		"too large":                                {make([]byte, maxRecord+1), oversized},
		"cut short":                                {b.registration(good, v+1)[:90], malformed},
		"something appended":                       {append(b.registration(good, v+1), 0), malformed},
	} {
		if got := b.ingest(test.raw); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
	if e := b.store.nodes["good"]; e.registration.version != v || len(e.certs) != 1 {
		t.Errorf("version %d with %d certificates is known of the good node, want %d with 1", e.registration.version, len(e.certs), v)
	}
	if bad := b.store.nodes["bad"].report; !bad.empty() {
		t.Errorf("%+v is known of the bad node", bad)
	}
}

// noise is a body that cannot be compressed.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(1)).Read(b)
	return b
}

// bomb is a small body that unpacks to more than is allowed.
func (b *bench) bomb() []byte {
	return b.store.codec.enc.EncodeAll(bytes.Repeat([]byte{' '}, 4*maxBody), []byte{bodyZstd})
}

// renewed is another certificate for a node, with another key.
func renewed(b *bench, id *identity.Identity) *x509.Certificate {
	return b.ca.Identity(b.t, id.Subject, nil).Cert
}

func TestCertificatesThatAreRefused(t *testing.T) {
	b := newBench(t, nil)
	node := identity.Subject{Node: "n", NodeUID: "u"}
	for name, test := range map[string]struct {
		subject identity.Subject
		change  func(*x509.Certificate)
		want    result
	}{
		"good":           {node, nil, accepted},
		"an observer's":  {identity.Subject{Observer: "o"}, nil, notEntitled},
		"over":           {node, func(c *x509.Certificate) { c.NotAfter = b.now.Add(-time.Second) }, badCertificate},
		"not yet":        {node, func(c *x509.Certificate) { c.NotBefore = b.now.Add(time.Hour) }, badCertificate},
		"a CA":           {node, func(c *x509.Certificate) { c.IsCA = true }, badCertificate},
		"without a URI":  {node, func(c *x509.Certificate) { c.URIs = nil }, badCertificate},
		"another CN":     {node, func(c *x509.Certificate) { c.Subject.CommonName = "drover:node:m" }, badCertificate},
		"for a server":   {node, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, badCertificate},
		"for everything": {node, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, badCertificate},
	} {
		id := b.ca.Identity(t, test.subject, test.change)
		origin := id
		if !id.Subject.IsNode() {
			origin = as(id, "n") // an observer has no node's name to put there
		}
		if got := b.ingest(b.certificate(origin)); got != test.want {
			t.Errorf("certificate %s: %s, want %s", name, got, test.want)
		}
	}
}

func TestCertificateEndsWhileKnown(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("n")
	b.now = id.Cert.NotAfter.Add(time.Second)
	if r := b.ingest(b.registration(id, b.version())); r != badCertificate {
		t.Errorf("state under a certificate that is over: %s, want %s", r, badCertificate)
	}
	b.store.sweep(b.now, func(model.NodeID) bool { return false })
	if len(b.store.nodes) != 0 {
		t.Error("a node without a certificate and without a state is kept")
	}
}

func TestNodeMadeAgainUnderAnotherUID(t *testing.T) {
	b := newBench(t, nil)
	old := b.known("n")
	b.ingest(b.registration(old, b.version()))
	again := b.ca.Identity(t, identity.Subject{Node: "n", NodeUID: "another"}, func(c *x509.Certificate) {
		c.NotBefore = old.Cert.NotBefore.Add(30 * time.Second)
	})
	if r := b.ingest(b.certificate(again)); r != accepted {
		t.Fatalf("certificate of the new Node: %s", r)
	}
	if r := b.ingest(b.registration(old, b.version()+1)); r != unknownKey {
		t.Errorf("state of the Node that was deleted: %s, want %s", r, unknownKey)
	}
	if r := b.ingest(b.certificate(old)); r != stale {
		t.Errorf("certificate of the Node that was deleted: %s, want %s", r, stale)
	}
	if !b.store.nodes["n"].report.empty() {
		t.Error("the deleted Node's state is still there")
	}
}

// TestNodeMadeAgainWithinASecond: certificates tell time by the second.
func TestNodeMadeAgainWithinASecond(t *testing.T) {
	b := newBench(t, nil)
	one := b.ca.Node(t, "n")
	two := b.ca.Identity(t, identity.Subject{Node: "n", NodeUID: "another"}, func(c *x509.Certificate) { c.NotBefore = one.Cert.NotBefore })
	var kept []string
	for _, order := range [][]*identity.Identity{{one, two, one}, {two, one, two}} {
		other := b.another()
		for _, id := range order {
			other.ingest(b.certificate(id))
		}
		for _, c := range other.store.nodes["n"].certs {
			kept = append(kept, c.uid)
		}
	}
	if len(kept) != 2 || kept[0] != kept[1] {
		t.Errorf("in two orders, these are kept: %v", kept)
	}
}

func TestCertificatesOfOneNodeAreBounded(t *testing.T) {
	b := newBench(t, nil)
	var newest *identity.Identity
	for i := range 20 {
		newest = b.ca.Identity(t, identity.Subject{Node: "n", NodeUID: "u"}, func(c *x509.Certificate) {
			c.NotBefore = c.NotBefore.Add(time.Duration(i) * time.Second)
		})
		b.ingest(b.certificate(newest))
	}
	if n := len(b.store.nodes["n"].certs); n != certificatesPerNode {
		t.Errorf("%d certificates are kept, want %d", n, certificatesPerNode)
	}
	if r := b.ingest(b.registration(newest, b.version())); r != accepted {
		t.Errorf("state under the newest certificate: %s", r)
	}
}

type says bool

func (s says) Confirmed(model.Location) bool { return bool(s) }

func TestLocationsNeedBothEndsOrTheRecord(t *testing.T) {
	move := testLocation("lineage", "a", "b", 1)
	elsewhere := move
	elsewhere.Pod.UID = "another"
	self := move
	self.From = self.Node
	for name, test := range map[string]struct {
		confirmer Confirmer
		say       map[model.NodeID]model.Location
		results   map[model.NodeID]result
		confirmed bool
	}{
		"both":                 {say: map[model.NodeID]model.Location{"a": move, "b": move}, confirmed: true},
		"source alone":         {say: map[model.NodeID]model.Location{"a": move}},
		"target alone":         {say: map[model.NodeID]model.Location{"b": move}},
		"target and record":    {confirmer: says(true), say: map[model.NodeID]model.Location{"b": move}, confirmed: true},
		"target, no record":    {confirmer: says(false), say: map[model.NodeID]model.Location{"b": move}},
		"they differ":          {say: map[model.NodeID]model.Location{"a": move, "b": elsewhere}},
		"a third":              {confirmer: says(true), say: map[model.NodeID]model.Location{"c": move}, results: map[model.NodeID]result{"c": notEntitled}},
		"within one node":      {confirmer: says(true), say: map[model.NodeID]model.Location{"b": self}, confirmed: true},
		"one node as both":     {confirmer: says(false), say: map[model.NodeID]model.Location{"b": self}},
		"a third and the ends": {say: map[model.NodeID]model.Location{"a": move, "b": move, "c": move}, results: map[model.NodeID]result{"c": notEntitled}, confirmed: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, test.confirmer)
			for node, l := range test.say {
				want := accepted
				if r, ok := test.results[node]; ok {
					want = r
				}
				if got := b.ingest(b.seal(b.known(node), kindLocation, b.version(), l)); got != want {
					t.Errorf("said by %s: %s, want %s", node, got, want)
				}
			}
			if got := len(b.store.confirmedPlaces()) == 1; got != test.confirmed {
				t.Errorf("confirmed: %v, want %v", got, test.confirmed)
			}
		})
	}
}

func TestConfirmedStaysWithoutTheRecord(t *testing.T) {
	b := newBench(t, says(true))
	id := b.known("b")
	b.ingest(b.seal(id, kindLocation, b.version(), testLocation("lineage", "a", "b", 1)))
	if n := len(b.store.confirmedPlaces()); n != 1 {
		t.Fatalf("%d places, want 1", n)
	}
	b.store.confirmer = says(false) // the PodMigration was deleted
	if n := len(b.store.confirmedPlaces()); n != 1 {
		t.Errorf("%d places after the record is gone, want 1", n)
	}
	b.ingest(b.seal(id, kindLocation, b.version()+1, testLocation("lineage", "a", "b", 1))) // repeated
	if n := len(b.store.confirmedPlaces()); n != 1 {
		t.Errorf("%d places after it was said again, want 1", n)
	}
	other := testLocation("lineage", "a", "b", 1)
	other.Pod.UID = "another"
	b.ingest(b.seal(id, kindLocation, b.version()+2, other)) // but it cannot be turned into something else
	if n := len(b.store.confirmedPlaces()); n != 0 {
		t.Errorf("%d places after the announcement was changed, want 0", n)
	}
	b.now = b.now.Add(locationRetention + time.Minute)
	b.store.sweep(b.now, func(model.NodeID) bool { return true })
	if e := b.store.nodes["b"]; e != nil && len(e.said) != 0 {
		t.Error("an announcement that nobody repeats is kept")
	}
	b.consistent()
}

func TestOneNodeCannotFillTheMemory(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("b")
	for i := range locationsPerNode + 50 {
		raw := b.seal(id, kindLocation, b.version()+uint64(i), testLocation(fmt.Sprint("l", i), "a", "b", 1))
		if r := b.ingest(raw); r != accepted {
			t.Fatal(r)
		}
	}
	b.consistent()
	if n := len(b.store.nodes["b"].said); n != locationsPerNode {
		t.Errorf("%d announcements are kept, want %d", n, locationsPerNode)
	}
}

// TestSmallRecordsUnpackToLittle, whatever a node with a certificate packs into them.
func TestSmallRecordsUnpackToLittle(t *testing.T) {
	b := newBench(t, nil)
	id := b.known("b")
	v := b.version()
	list := func(n int, item string) string { return "[" + strings.Repeat(item+",", n) + item + "]" }
	packed := func(text string) []byte { return b.store.codec.enc.EncodeAll([]byte(text), []byte{bodyZstd}) }
	plain := func(text string) []byte { return append([]byte{bodyPlain}, text...) }
	node := fmt.Sprintf(`{"node":"b","version":%d,`, v)
	for what, raw := range map[string][]byte{
		"containers in contention":          b.seal(id, kindSuffering, v, packed(list(50_000, "{}"))),
		"containers in contention, as such": b.seal(id, kindSuffering, v, plain(list(50_000, "{}"))),
		"one container more than there may": b.seal(id, kindSuffering, v, plain(list(maxSuffering, "null"))),
		"silent nodes":                      b.seal(id, kindRegistration, v, packed(node+`"silent":`+list(50_000, `""`)+"}")),
		"pods with long names": b.seal(id, kindPods, v, packed(fmt.Sprintf(`{"part":0,"parts":1,"items":{"uid":{"s":%q,"n":%q},"uid2":{"s":%q,"n":%q}}}`,
			strings.Repeat("s", maxName), strings.Repeat("n", maxName), strings.Repeat("s", maxName), strings.Repeat("n", maxName))+strings.Repeat(" ", 5000))),
	} {
		if r := b.ingest(raw); r != malformed {
			t.Errorf("%s in %d bytes: %s", what, len(raw), r)
		}
	}
	most := b.seal(id, kindSuffering, v, plain(list(maxSuffering-1, "{}")))
	if r := b.ingest(most); r != accepted || len(b.store.nodes["b"].suffering.list) != maxSuffering {
		t.Errorf("as many as there may be: %s", r)
	}
}
