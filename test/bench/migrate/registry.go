package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// serve is a registry (OCI distribution specification, pull) that has one image, under every name
// and tag.
func serve(img v1.Image) (http.Handler, error) {
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	about, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v2/{name}/manifests/{reference}", func(w http.ResponseWriter, _ *http.Request) {
		give(w, about.MediaType, digest, int64(len(manifest)), bytes.NewReader(manifest))
	})
	mux.HandleFunc("GET /v2/{name}/blobs/{digest}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("digest") == about.Config.Digest.String() {
			give(w, about.Config.MediaType, about.Config.Digest, int64(len(config)), bytes.NewReader(config))
			return
		}
		for _, l := range about.Layers {
			if r.PathValue("digest") != l.Digest.String() {
				continue
			}
			layer, err := img.LayerByDigest(l.Digest)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			data, err := layer.Compressed()
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			defer data.Close()
			give(w, l.MediaType, l.Digest, l.Size, data)
			return
		}
		http.Error(w, fmt.Sprintf("no blob %s", r.PathValue("digest")), http.StatusNotFound)
	})
	return mux, nil
}

func give(w http.ResponseWriter, kind types.MediaType, digest v1.Hash, size int64, from io.Reader) {
	w.Header().Set("Content-Type", string(kind))
	w.Header().Set("Docker-Content-Digest", digest.String())
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	io.Copy(w, from) // of a HEAD nothing is sent; who went away hears nothing
}
