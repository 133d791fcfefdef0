package simulate

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// Object is an object of Kubernetes and where it was read, for errors: "nodes.yaml:12".
type Object struct {
	runtime.Object
	Where string
}

// Fields says what becomes of fields that an object's kind does not have.
type Fields bool

// What can become of them.
const (
	// Strict: an error, for what a user has written.
	Strict Fields = true
	// Lenient: they are passed over, for what a newer API server may have written.
	Lenient Fields = false
)

var (
	lenient = scheme.Codecs.UniversalDeserializer()
	strict  = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
)

// Read reads the objects of a file, or of the files *.yaml, *.yml and *.json of a directory, by
// name. Lists are taken apart. Errors are one line and name the file and the line in which the
// document begins.
func Read(path string, fields Fields) ([]Object, error) {
	files, err := filesOf(path)
	if err != nil {
		return nil, err
	}
	var all []Object
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		for _, d := range split(raw) {
			objects, err := d.objects(fmt.Sprintf("%s:%d", file, d.line), fields)
			if err != nil {
				return nil, err
			}
			all = append(all, objects...)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no objects: want Kubernetes objects in YAML or JSON", path)
	}
	return all, nil
}

func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no files *.yaml, *.yml or *.json", path)
	}
	return files, nil
}

// document is one of the documents of a file; line is the first that says something, from 1.
type document struct {
	raw  []byte
	line int
}

// split takes a file apart at lines "---"; documents of nothing but comments are left out.
func split(raw []byte) []document {
	var all []document
	d := document{}
	add := func() {
		if d.line > 0 {
			all = append(all, d)
		}
		d = document{}
	}
	for n, line := range bytes.SplitAfter(raw, []byte("\n")) {
		text := bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("---")) && (len(text) == 3 || line[3] == ' ') {
			add()
			continue
		}
		if d.line == 0 && len(text) > 0 && text[0] != '#' {
			d.line = n + 1
		}
		if d.line > 0 {
			d.raw = append(d.raw, line...)
		}
	}
	add()
	return all
}

// objects decodes a document.
func (d document) objects(where string, fields Fields) ([]Object, error) {
	obj, err := decode(d.raw, fields)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if list, ok := obj.(*corev1.List); ok {
		var all []Object
		for i, item := range list.Items {
			at := fmt.Sprintf("%s: items[%d]", where, i)
			obj, err := decode(item.Raw, fields)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", at, err)
			}
			all = append(all, Object{obj, at})
		}
		return all, nil
	}
	if !meta.IsListType(obj) {
		return []Object{{obj, where}}, nil
	}
	items, err := meta.ExtractList(obj)
	all := make([]Object, len(items))
	for i, item := range items {
		all[i] = Object{item, fmt.Sprintf("%s: items[%d]", where, i)}
	}
	return all, err
}

func decode(raw []byte, fields Fields) (runtime.Object, error) {
	decoder := lenient
	if fields == Strict {
		decoder = strict
	}
	obj, _, err := decoder.Decode(raw, nil, nil)
	switch {
	case err == nil:
		return obj, nil
	case runtime.IsMissingKind(err) || runtime.IsMissingVersion(err):
		return nil, errors.New("there is no kind or no apiVersion: want an object of Kubernetes")
	case runtime.IsNotRegisteredError(err):
		var kind metav1.TypeMeta
		_ = yaml.Unmarshal(raw, &kind) // it was decoded as far as this
		return nil, fmt.Errorf("kind %s of %s is not known to the scheduler: leave it out", kind.Kind, kind.APIVersion)
	}
	var any map[string]any
	if yaml.Unmarshal(raw, &any) == nil {
		if at, text := badQuantity(any, ""); at != "" {
			return nil, fmt.Errorf("%s is %q, want a quantity such as 500m or 2Gi", at, text)
		}
	}
	return nil, errors.New(oneLine(err))
}

// badQuantity finds the first amount of resources that is none: the API's decoder says what is
// wrong and not where.
func badQuantity(v any, path string) (at, text string) {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			if at, text := badQuantity(e, fmt.Sprintf("%s[%d]", path, i)); at != "" {
				return at, text
			}
		}
	case map[string]any:
		amounts := slices.ContainsFunc([]string{"requests", "limits", "allocatable", "capacity", "overhead"}, func(name string) bool { return strings.HasSuffix(path, "."+name) })
		for _, key := range slices.Sorted(maps.Keys(v)) {
			here := strings.TrimPrefix(path+"."+key, ".")
			if text := fmt.Sprint(v[key]); amounts {
				if _, err := resource.ParseQuantity(text); err != nil {
					return here, text
				}
			} else if at, text := badQuantity(v[key], here); at != "" {
				return at, text
			}
		}
	}
	return "", ""
}

// oneLine is an error's text on one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
