package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"

	"github.com/drover-project/drover/internal/fence"
	"github.com/drover-project/drover/internal/layout"
	"github.com/drover-project/drover/internal/process"
	"github.com/drover-project/drover/nodeagent/migrate"
)

// note tells of a sandbox in which something was made, or is about to be.
type note struct {
	// Namespace, Name and UID are the PodMigration's, PodUID the pod's whose sandbox it is.
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid"`
	Role      migrate.Role `json:"role"`
	PodUID    string       `json:"podUID"`
	// Network is the network namespace as the bundles of the pod's containers name it. If that is by
	// a process, the sandbox's first, Holder is that one: another with its number is another sandbox.
	Network string          `json:"network"`
	Holder  process.Process `json:"holder"`
}

// errGone: there is no such sandbox any more, or nothing was made in one.
var errGone = errors.New("the pod's sandbox is gone, or nothing was made in it")

// find gives the network namespace as the agent, which is in the node's process namespace, reaches
// it: links lead where they do on the node. errGone: the directory is there that it was in, and it
// is not.
func (n note) find(host string) (string, error) {
	if n.Holder.PID > 0 {
		if !n.Holder.Alive() {
			return "", fmt.Errorf("%w: its first process, %d, has ended", errGone, n.Holder.PID)
		}
		return n.Network, nil
	}
	path, err := securejoin.SecureJoin(host, n.Network)
	if err != nil {
		return "", fmt.Errorf("find %s on the node: %w", n.Network, err)
	}
	if _, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return "", fmt.Errorf("whether the network namespace %s is still there cannot be told: %v", n.Network, err) // not that it is not
		}
		return "", fmt.Errorf("%w: %s", errGone, n.Network)
	}
	return path, err
}

// sandboxOf finds the sandbox of a move's pod on this node, by what drover-runc noted of its
// containers, and where it is.
func (e *Ends) sandboxOf(m migrate.Move, role migrate.Role) (note, string, error) {
	pod := m.Source
	if role == migrate.RoleTarget {
		pod = m.Target
	}
	n := note{Namespace: m.Namespace, Name: m.Name, UID: m.UID, Role: role, PodUID: pod.UID}
	ids, err := e.layout.Containers()
	if err != nil {
		return n, "", err
	}
	for _, id := range ids {
		c, err := e.layout.ReadContainer(id)
		if err != nil || c == nil || c.PodUID != pod.UID {
			continue // of another pod, or gone meanwhile
		}
		at := ""
		found, err := n.in(e.host, c.Bundle)
		if err == nil {
			at, err = found.find(e.host)
		}
		if err == nil {
			return found, at, nil
		}
		if !errors.Is(err, errGone) && !errors.Is(err, fs.ErrNotExist) {
			return n, "", fmt.Errorf("find the sandbox of pod %s by its container %s: %w", pod.UID, id, err)
		}
	}
	return n, "", fmt.Errorf("pod %s has no container with a sandbox on this node: %w", pod.UID, errGone)
}

// in is the note of the sandbox that a container's bundle names.
func (n note) in(host, bundle string) (note, error) {
	file, err := securejoin.SecureJoin(host, filepath.Join(bundle, "config.json"))
	if err != nil {
		return n, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return n, err
	}
	var spec struct {
		Linux struct {
			Namespaces []struct{ Type, Path string }
		}
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return n, fmt.Errorf("%s: %w", bundle, err)
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == "network" {
			n.Network = filepath.Clean(ns.Path)
		}
	}
	if n.Network == "" || n.Network == "." {
		return n, fmt.Errorf("%s names no network namespace: the pod must not have hostNetwork", bundle)
	}
	number, byProcess := strings.CutPrefix(n.Network, "/proc/")
	if !byProcess {
		return n, nil
	}
	pid, err := strconv.Atoi(strings.TrimSuffix(number, "/ns/net"))
	if err != nil {
		return n, fmt.Errorf("%s: the network namespace %s is of no process", bundle, n.Network)
	}
	n.Holder, err = process.Of(pid)
	return n, err
}

// begin notes a sandbox before anything is made in it.
func (e *Ends) begin(n note) error {
	path, err := e.file(n.UID, n.Role)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return layout.WriteNote(path, n)
}

// noted is the sandbox in which something was made for a move, and where it is; errGone: there is
// none.
func (e *Ends) noted(uid string, role migrate.Role) (note, string, error) {
	path, err := e.file(uid, role)
	if err != nil {
		return note{}, "", err
	}
	var n note
	is, err := layout.ReadNote(path, &n)
	if err != nil {
		return n, "", err
	}
	if !is {
		return n, "", errGone
	}
	at, err := n.find(e.host)
	return n, at, err
}

func (e *Ends) forget(uid string, role migrate.Role) error {
	if role == migrate.RoleSource {
		e.drop(uid)
		if p := e.parting(uid); p != nil {
			if err := p.Close(); err != nil {
				return err
			}
		}
	}
	path, err := e.file(uid, role)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (e *Ends) file(uid string, role migrate.Role) (string, error) {
	if err := fence.ValidUID(uid); err != nil {
		return "", fmt.Errorf("migration: %w", err)
	}
	return filepath.Join(e.dir(), uid+"."+string(role)), nil
}

func (e *Ends) dir() string { return filepath.Join(e.layout.Run, "leases") }

// notes are all.
func (e *Ends) notes() ([]note, error) {
	entries, err := os.ReadDir(e.dir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []note
	for _, entry := range entries {
		var n note
		if is, err := layout.ReadNote(filepath.Join(e.dir(), entry.Name()), &n); err != nil {
			return nil, err
		} else if is && entry.Name() == n.UID+"."+string(n.Role) {
			all = append(all, n)
		}
	}
	return all, nil
}
