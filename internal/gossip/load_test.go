package gossip

import (
	"bytes"
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/drover-project/drover/internal/deadband"
	"github.com/drover-project/drover/internal/identity"
	"github.com/drover-project/drover/internal/identity/identitytest"
	"github.com/drover-project/drover/internal/model"
)

// typicalLoad is that of a node of 64 cores with all that there is to tell.
func typicalLoad() saidLoad {
	return saidLoad{model.Load{
		Requested: model.Resources{CPU: 41.35, Memory: 180 * model.GiB},
		Used:      model.Resources{CPU: 23.456, Memory: 201*model.GiB + 7},
		Pressure:  .137, Pressures: map[model.Resource]float64{model.OnCPU: .137, model.OnMemory: .01, model.OnIO: .22},
		At: time.Unix(1_800_000_000, 123_456_789),
	}, &model.Bandwidth{Sent: 123e6, Received: 4e5}}
}

func versionOf(l saidLoad) uint64 { return uint64(floorUnits(l.load.At)) * uint64(loadUnit) }

func TestLoadIsSmall(t *testing.T) {
	b := newBench(t, nil)
	id, l := b.known("node-17.example.internal"), typicalLoad()
	if n := len(b.load(id, versionOf(l), l)); n > 86 {
		t.Errorf("the record of a load that tells all has %d bytes, want at most 86", n)
	}
	l.bandwidth = nil
	if n := len(b.load(id, versionOf(l), l)); n > 83 {
		t.Errorf("without bandwidth it has %d bytes, want at most 83", n)
	}
}

// told is what others understand of a load.
func told(version uint64, l saidLoad) (saidLoad, bool) {
	flags, body := encodeLoad(version, l)
	return decodeLoad(flags, body, version)
}

// What the wire form rounds off is small beside the dead bands, and never makes a node look
// emptier of requests than it is.
func TestLoadIsExactEnough(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	for range 20_000 {
		cpu, memory := model.Cores(math.Exp(rng.Float64()*9-2)), model.Bytes(math.Exp(rng.Float64()*12+20))
		share := func() float64 { return rng.Float64() }
		l := saidLoad{load: model.Load{
			Allocatable: model.Resources{CPU: cpu, Memory: memory},
			Requested:   model.Resources{CPU: cpu * model.Cores(share()), Memory: model.Bytes(float64(memory) * share())},
			Used:        model.Resources{CPU: cpu * model.Cores(share()), Memory: model.Bytes(float64(memory) * share())},
			Pressure:    share(),
			At:          time.Unix(0, 1_800_000_000_000_000_000+rng.Int63n(1e15)),
		}}
		l.load.Pressures = map[model.Resource]float64{}
		for _, r := range []model.Resource{model.OnCPU, model.OnMemory, model.OnIO} {
			if rng.Intn(2) == 0 {
				l.load.Pressures[r] = share()
			}
		}
		if p, known := l.load.Pressures[model.OnCPU]; known {
			l.load.Pressure = p
		}
		if rng.Intn(2) == 0 {
			l.bandwidth = &model.Bandwidth{Sent: model.Rate(math.Exp(share() * 25)), Received: model.Rate(math.Exp(share() * 25))}
		}
		version := versionOf(l) + uint64(rng.Intn(3))*uint64(loadUnit)
		got, ok := told(version, l)
		if !ok {
			t.Fatalf("%+v is not understood", l)
		}
		near := func(what string, was, is, band float64) {
			if math.Abs(was-is) > band/4 {
				t.Fatalf("%s %v is told as %v; the band is %v", what, was, is, band)
			}
		}
		near("cpu", float64(l.load.Used.CPU), float64(got.load.Used.CPU), float64(max(deadband.LeastCPU, deadband.CPUShare*cpu)))
		near("memory", float64(l.load.Used.Memory), float64(got.load.Used.Memory), float64(max(deadband.LeastMemory, model.Bytes(deadband.MemoryShare*float64(memory)))))
		near("pressure", l.load.Pressure, got.load.Pressure, deadband.Pressure)
		if len(got.load.Pressures) != len(l.load.Pressures) || (got.bandwidth == nil) != (l.bandwidth == nil) {
			t.Fatalf("%+v is told as %+v", l, got)
		}
		for r, p := range l.load.Pressures {
			near(string(r), p, got.load.Pressures[r], deadband.Pressure)
		}
		if l.bandwidth != nil {
			near("sent", float64(l.bandwidth.Sent), float64(got.bandwidth.Sent), float64(max(deadband.LeastRate, deadband.RateShare*l.bandwidth.Sent)))
			near("received", float64(l.bandwidth.Received), float64(got.bandwidth.Received), float64(max(deadband.LeastRate, deadband.RateShare*l.bandwidth.Received)))
		}
		// A 4096th and a thousandth of a core, or a MiB, more at most.
		if over := got.load.Requested.CPU - l.load.Requested.CPU; over < -1e-8 || over > .001+l.load.Requested.CPU/2048 {
			t.Fatalf("%v cores requested are told as %v", l.load.Requested.CPU, got.load.Requested.CPU)
		}
		if over := got.load.Requested.Memory - l.load.Requested.Memory; over < 0 || over > model.MiB+l.load.Requested.Memory/2048 {
			t.Fatalf("%v bytes requested are told as %v", l.load.Requested.Memory, got.load.Requested.Memory)
		}
		if lag := l.load.At.Sub(got.load.At); lag < 0 || lag >= loadUnit {
			t.Fatalf("measured at %v is told as %v", l.load.At, got.load.At)
		}
		if again, _ := told(version, got); !cmp.Equal(got, again, cmp.AllowUnexported(saidLoad{})) {
			t.Fatalf("what was told is told on as\n%+v, not as\n%+v", again, got)
		}
	}
}

func TestSenselessLoadsAreTold(t *testing.T) {
	nan := math.NaN()
	l := saidLoad{model.Load{
		Requested: model.Resources{CPU: -1, Memory: -1}, Used: model.Resources{CPU: model.Cores(math.Inf(1)), Memory: math.MaxInt64}, Pressure: nan,
		Pressures: map[model.Resource]float64{model.OnMemory: 7, model.OnIO: -7},
	}, &model.Bandwidth{Sent: model.Rate(nan)}}
	got, ok := told(0, l)
	const most = 255 << 30
	want := saidLoad{model.Load{
		Used:      model.Resources{CPU: most / 1000., Memory: most * model.MiB},
		Pressures: map[model.Resource]float64{model.OnMemory: 1, model.OnIO: 0},
	}, &model.Bandwidth{Sent: most * 1024}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(saidLoad{}), cmpopts.EquateApprox(1e-9, 0)); !ok || diff != "" {
		t.Errorf("understood %v (-want +got):\n%s", ok, diff)
	}
}

func TestForgedLoadsAreRefused(t *testing.T) {
	b := newBench(t, nil)
	good, bad := b.known("good"), b.known("bad")
	stranger := identitytest.NewAuthority(t).Node(t, "good")
	l := typicalLoad()
	l.load.At = b.now
	v := versionOf(l)
	const next = uint64(loadUnit)
	raw := b.load(good, v, l)
	if r := b.ingest(raw); r != accepted {
		t.Fatalf("a good load: %s", r)
	}
	change := func(at int, with byte) []byte {
		c := b.load(good, v+next, l)
		c[(at+len(c))%len(c)] ^= with
		return c
	}
	// with seals flags and a body of its own.
	with := func(id *identity.Identity, flags byte, body ...byte) []byte {
		whole := b.load(id, v+next, saidLoad{})
		whole = append(whole[:loadHeader:loadHeader], body...)
		whole[0] = wireLoad | flags
		return append(whole, id.Sign(signedLoad(mustKey(id), id.Subject.Node, whole))...)
	}
	zeros := make([]byte, leastLoad-1) // all but the pressure
	// A record of the longer wire form under the load's context, and the other way round.
	asOther := b.load(bad, v+next, l)
	asOther = append(asOther[:len(asOther)-64:len(asOther)-64], bad.Sign(signed(asOther[:len(asOther)-64]))...)
	for name, test := range map[string]struct {
		raw  []byte
		want result
	}{
		"the same again":                     {raw, duplicate},
		"another with its version":           {b.load(good, v, saidLoad{}), duplicate},
		"replayed from before":               {b.load(good, v-next, l), stale},
		"from a day ahead":                   {b.load(good, uint64(b.now.Add(2*maxAhead).UnixNano()), l), future},
		"from after all clocks":              {b.load(good, math.MaxUint64, l), future},
		"from where versions end":            {change(loadHeader-loadVersion, 0xff), future},
		"signature changed":                  {change(-1, 1), badSignature},
		"body changed":                       {change(loadHeader+1, 1), badSignature},
		"version changed":                    {change(loadHeader-1, 1), badSignature},
		"another's name, own key":            {b.load(as(bad, "good"), v+next, l), badSignature},
		"another's certificate, own key":     {b.load(&identity.Identity{Subject: good.Subject, Key: bad.Key, Cert: good.Cert}, v+next, l), badSignature},
		"another CA's node":                  {b.load(stranger, v+next, l), unknownKey},
		"signed as another kind of record":   {asOther, badSignature},
		"flags changed":                      {change(0, loadIO), badSignature},
		"an unknown flag":                    {change(0, 0x80), malformed},
		"a lag of a load not measured":       {with(bad, loadLags, append(zeros, 0, 2)...), malformed},
		"a lag of nothing":                   {with(bad, loadMeasured|loadLags, append(zeros, 0, 0)...), malformed},
		"a lag in a longer form":             {with(bad, loadMeasured|loadLags, append(zeros, 0, 0x82, 0)...), malformed},
		"a lag beyond all clocks":            {with(bad, loadMeasured|loadLags, append(zeros, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)...), malformed},
		"more pressure than all of the time": {with(bad, 0, append(zeros, 201)...), malformed},
		"less than its flags say":            {with(bad, loadIO, append(zeros, 0)...), malformed},
		"more than they say":                 {with(bad, 0, append(zeros, 0, 0)...), malformed},
		"cut short":                          {raw[:loadHeader+leastLoad+63], malformed},
		"too long":                           {append(bytes.Clone(raw), make([]byte, greatestLoad)...), malformed},
		"nothing but its format":             {[]byte{wireLoad}, malformed},
	} {
		if got := b.ingest(test.raw); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
	if e := b.store.nodes["good"]; !bytes.Equal(e.load.raw, raw) {
		t.Errorf("the good node's load is %+v now", e.load)
	}
	if e := b.store.nodes["bad"]; e.load != nil {
		t.Errorf("the bad node's load is %+v", e.load)
	}
	b.now = good.Cert.NotAfter.Add(time.Second)
	if got := b.ingest(b.load(good, b.version(), l)); got != badCertificate {
		t.Errorf("under a certificate that is over: %s, want %s", got, badCertificate)
	}
}

func mustKey(id *identity.Identity) keyID {
	key, _ := keyIDOf(id.Cert)
	return key
}

// Keys that begin with the same bytes are told apart by the signature.
func TestKeysThatBeginAlike(t *testing.T) {
	b := newBench(t, nil)
	x, y := b.known("x"), b.known("y")
	at := func(id *identity.Identity) keyPrefix {
		key := mustKey(id)
		return keyPrefix(key[:])
	}
	// As if y's key began as x's: such pairs are easily made, but not here.
	both := append(b.store.keys[at(y)], b.store.keys[at(x)]...)
	b.store.keys[at(x)] = both
	if r := b.ingest(b.load(x, b.version(), typicalLoad())); r != accepted {
		t.Errorf("x's load: %s", r)
	}
	if b.store.nodes["x"].load == nil || b.store.nodes["y"].load != nil {
		t.Error("x's load was not taken for x's")
	}
	forged := b.load(x, b.version()+uint64(time.Second), typicalLoad())
	forged[len(forged)-1] ^= 1
	if r := b.ingest(forged); r != badSignature {
		t.Errorf("a load that neither has signed: %s", r)
	}
	// Even under the very same key, what x has said is not y's.
	twin := *b.store.nodes["x"].certs[mustKey(x)]
	twin.slot.origin = "y"
	b.store.keys[at(x)] = append([]*certificate{&twin}, both...)
	if r := b.ingest(b.load(x, b.version()+uint64(time.Minute), typicalLoad())); r != accepted || b.store.nodes["y"].load != nil {
		t.Errorf("x's load beside a y of x's key: %s", r)
	}
	b.store.keys[at(x)] = both
	// A certificate that goes takes its own key along, and no other.
	b.store.clear(b.store.nodes["x"])
	if left := b.store.keys[at(x)]; len(left) != 1 || left[0].slot.origin != "y" {
		t.Errorf("%d keys are left, want y's", len(left))
	}
}

func FuzzLoad(f *testing.F) {
	l := typicalLoad()
	for _, later := range []uint64{0, 5} {
		version := versionOf(l) + later*uint64(loadUnit)
		flags, body := encodeLoad(version, l)
		f.Add(flags, body, version/uint64(loadUnit))
	}
	f.Add(byte(0), make([]byte, leastLoad), uint64(0))
	f.Fuzz(func(t *testing.T, flags byte, body []byte, units uint64) {
		flags &= loadFlags
		version := units % (math.MaxInt64 / uint64(loadUnit)) * uint64(loadUnit)
		l, ok := decodeLoad(flags, body, version)
		if !ok {
			return
		}
		for _, x := range []float64{float64(l.load.Requested.CPU), float64(l.load.Requested.Memory), float64(l.load.Used.CPU), float64(l.load.Used.Memory), l.load.Pressure} {
			if !(x >= 0) || math.IsInf(x, 1) {
				t.Fatalf("%x says %+v", body, l)
			}
		}
		if f, again := encodeLoad(version, l); f != flags || !bytes.Equal(again, body) {
			t.Fatalf("%x %x says %+v, which is %x %x", flags, body, l, f, again)
		}
	})
}
