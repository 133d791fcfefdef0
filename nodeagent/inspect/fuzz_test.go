package inspect

import (
	"bytes"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"

	"github.com/drover-project/drover/nodeagent/imagefile"
)

// FuzzCore: whatever an image holds, it is refused or it is within the bundle.
func FuzzCore(f *testing.F) {
	b, err := parseBundle([]byte(config))
	if err != nil {
		f.Fatal(err)
	}
	whole := image(f, coreMagic, good().core)
	f.Add(whole)
	f.Add(whole[4:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		core := &criu_core.CoreEntry{}
		if imagefile.One(bytes.NewReader(data), coreMagic, core) != nil || b.core(core) != nil || core.GetThreadCore() == nil {
			return
		}
		c := core.GetThreadCore().GetCreds()
		if c.GetUid() != 1000 || c.GetNoNewPrivs() == 0 || ofWords(c.GetCapEff())&^b.all != 0 {
			t.Errorf("let through: %v", c)
		}
	})
}

// FuzzNamespaces: no task gets through in one of the node's own namespaces.
func FuzzNamespaces(f *testing.F) {
	b, err := parseBundle([]byte(config))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image(f, idsMagic, good().ids), image(f, idsMagic, good().host))
	f.Add(image(f, idsMagic, good().host), image(f, idsMagic, good().host))
	f.Fuzz(func(t *testing.T, task, node []byte) {
		ids, host := &criu_core.TaskKobjIdsEntry{}, &criu_core.TaskKobjIdsEntry{}
		if imagefile.One(bytes.NewReader(task), idsMagic, ids) != nil || imagefile.One(bytes.NewReader(node), idsMagic, host) != nil || b.namespaces(ids, host, ids) != nil {
			return
		}
		if ids.GetNetNsId() == host.GetNetNsId() || ids.GetMntNsId() == host.GetMntNsId() || ids.GetPidNsId() == host.GetPidNsId() {
			t.Errorf("let through: %v on %v", ids, host)
		}
	})
}

// FuzzBundle: what is no bundle is an error, and a bundle without a word allows nothing.
func FuzzBundle(f *testing.F) {
	f.Add([]byte(config))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"process":{"capabilities":{"bounding":["CAP_MAGIC"]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBundle(data)
		if err != nil {
			return
		}
		if len(b.Process.Capabilities.Bounding) == 0 && b.bounding != 0 || b.bounding&^b.all != 0 {
			t.Errorf("%q allows %s", data, b.bounding)
		}
	})
}
