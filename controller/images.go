package controller

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// pinImages makes the replacement's containers use the very images that the source's run,
// by digest: a tag may mean another image by now, or on another node. It returns why
// images could not be pinned, one sentence for each.
func pinImages(s *corev1.PodSpec, source *corev1.Pod) []string {
	var unpinned []string
	statuses := slices.Concat(source.Status.ContainerStatuses, source.Status.InitContainerStatuses)
	for _, list := range [][]corev1.Container{s.Containers, s.InitContainers} {
		for i := range list {
			c := &list[i]
			at := slices.IndexFunc(statuses, func(st corev1.ContainerStatus) bool { return st.Name == c.Name })
			if at < 0 {
				unpinned = append(unpinned, fmt.Sprintf("container %s: its status does not tell its image", c.Name))
				continue
			}
			image, why := pinned(c.Image, statuses[at].ImageID)
			if why != "" {
				unpinned = append(unpinned, fmt.Sprintf("container %s: %s", c.Name, why))
			}
			c.Image = image
		}
	}
	return unpinned
}

// pinned is the image by the digest that the runtime says it runs. The repository has to be
// the one that the pod names: the digest may be unknown to it otherwise, or the node may
// have no right to another. Images that came by no registry have no digest there; such a
// pod keeps its tag.
func pinned(image, id string) (_, why string) {
	if _, digest, is := strings.Cut(image, "@"); is && digest != "" {
		return image, ""
	}
	if _, after, scheme := strings.Cut(id, "://"); scheme {
		id = after // docker-pullable://
	}
	repository, digest, is := strings.Cut(id, "@")
	switch {
	case !is:
		return image, fmt.Sprintf("image %s is known on the node as %q, which is no digest in a registry", image, id)
	case familiar(repository) != familiar(untagged(image)):
		return image, fmt.Sprintf("image %s is known on the node by a digest in another repository, %s", image, id)
	}
	return untagged(image) + "@" + digest, ""
}

// untagged is an image reference without its tag.
func untagged(image string) string {
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		return image[:i]
	}
	return image
}

// familiar is a repository's full name: what has no host in front is at docker.io, and
// there under library if it has no path either.
func familiar(repository string) string {
	host, _, path := strings.Cut(repository, "/")
	switch {
	case !path:
		return "docker.io/library/" + repository
	case host == "index.docker.io":
		return "docker.io" + strings.TrimPrefix(repository, host)
	case host != "localhost" && !strings.ContainsAny(host, ".:") && strings.ToLower(host) == host:
		return "docker.io/" + repository
	}
	return repository
}

// otherImages tells which containers of the replacement run another image than the
// source's did, as far as both are known.
func otherImages(p, source *corev1.Pod) []string {
	var out []string
	before := slices.Concat(source.Status.ContainerStatuses, source.Status.InitContainerStatuses)
	for _, is := range slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses) {
		for _, was := range before {
			// An image's own ID and a digest in a registry cannot be compared.
			alike := strings.Contains(is.ImageID, "@") == strings.Contains(was.ImageID, "@")
			if is.Name == was.Name && is.ImageID != "" && was.ImageID != "" && alike && digestOf(is.ImageID) != digestOf(was.ImageID) {
				out = append(out, fmt.Sprintf("container %s runs image %s, was %s", is.Name, is.ImageID, was.ImageID))
			}
		}
	}
	return out
}

func digestOf(id string) string { return id[strings.LastIndex(id, "@")+1:] }
