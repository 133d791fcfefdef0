package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// allowCheckpoints lets the API server's user, whose name is the lab's, ask kubelets for
// checkpoints: Kubernetes' own role for it does not.
func allowCheckpoints(ctx context.Context, kube kubernetes.Interface) error {
	const name, apiServer = "bench-checkpoints", "drover-lab-apiserver"
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes/checkpoint"}, Verbs: []string{"*"}}},
	}
	if _, err := kube.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: apiServer}},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", APIGroup: rbacv1.GroupName, Name: name},
	}
	_, err := kube.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	return err
}

// archive is a checkpoint as kubelet writes it.
type archive struct {
	l         *labor
	path      string // as seen from here
	container string
}

// checkpoint asks the kubelet of a pod's node, through the API server.
func (l *labor) checkpoint(ctx context.Context, p *corev1.Pod) (*archive, error) {
	container := p.Spec.Containers[0].Name
	body, err := l.kube.CoreV1().RESTClient().Post().
		AbsPath("/api/v1/nodes", p.Spec.NodeName, "proxy/checkpoint", p.Namespace, p.Name, container).DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("checkpoint pod %s: %w: %s", p.Name, err, body)
	}
	var answer struct{ Items []string }
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Items) != 1 {
		return nil, fmt.Errorf("checkpoint pod %s: kubelet answered %q: want one archive (%v)", p.Name, body, err)
	}
	root, err := l.Lab.Root(p.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	return &archive{l, filepath.Join(root, answer.Items[0]), container}, nil
}

func (a *archive) remove() error { return os.Remove(a.path) }

// importAs makes an image of it and imports that on the node it goes to, without a registry on
// the way and without a copy on disk: the standard path can hardly be shorter.
func (a *archive) importAs(ctx context.Context, ref string) (size int64, err error) {
	f, err := os.Open(a.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	cmd, err := a.l.command(ctx, a.l.to, "ctr", "-n", "k8s.io", "images", "import", "--local", "-")
	if err != nil {
		return 0, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	size, err = writeImage(in, f, ref, a.container)
	if err = errors.Join(err, in.Close(), cmd.Wait()); err != nil {
		return 0, fmt.Errorf("import %s on %s: %w: %s", ref, a.l.to, err, said.Bytes())
	}
	return size, nil
}

// nameAnnotations tell container runtimes of which container an image is a checkpoint: containerd's
// since 2.1, and what CRI-O and older tools read.
var nameAnnotations = []string{"org.criu.checkpoint.container.name", "io.kubernetes.cri-o.annotations.checkpoint.name"}

// writeImage writes an OCI layout as a tar: an image whose only layer is the archive as it is. It
// gives the size of that.
func writeImage(to io.Writer, layer io.ReadSeeker, ref, container string) (int64, error) {
	sum := sha256.New()
	size, err := io.Copy(sum, layer)
	if err != nil {
		return 0, err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	diff := v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum.Sum(nil))}
	config, about, err := blob(types.OCIConfigJSON, v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff}}})
	if err != nil {
		return 0, err
	}
	annotations := map[string]string{}
	for _, a := range nameAnnotations {
		annotations[a] = container
	}
	manifest, top, err := blob(types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: about, Annotations: annotations,
		Layers: []v1.Descriptor{{MediaType: types.OCIUncompressedLayer, Size: size, Digest: diff}},
	})
	if err != nil {
		return 0, err
	}
	top.Annotations = map[string]string{"io.containerd.image.name": ref}
	index, _, err := blob(types.OCIImageIndex, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{top}})
	if err != nil {
		return 0, err
	}
	w := tar.NewWriter(to)
	for _, file := range []struct {
		name string
		size int64
		from io.Reader
	}{
		{"oci-layout", int64(len(ociLayout)), bytes.NewReader([]byte(ociLayout))},
		{blobPath(diff), size, layer},
		{blobPath(about.Digest), about.Size, bytes.NewReader(config)},
		{blobPath(top.Digest), top.Size, bytes.NewReader(manifest)},
		{"index.json", int64(len(index)), bytes.NewReader(index)},
	} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file.name, Size: file.size, Mode: 0o644}); err != nil {
			return 0, err
		}
		if _, err := io.Copy(w, file.from); err != nil {
			return 0, err
		}
	}
	return size, w.Close()
}

const ociLayout = `{"imageLayoutVersion":"1.0.0"}`

func blobPath(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

func blob(kind types.MediaType, content any) ([]byte, v1.Descriptor, error) {
	data, err := json.Marshal(content)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	return data, v1.Descriptor{MediaType: kind, Size: size, Digest: digest}, err
}
