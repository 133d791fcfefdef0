package controller

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fresh is for how long what the API server serves is taken to be as it was: each lease asks every
// 10 s, and the answer is large.
const fresh = 30 * time.Second

// remembered are Kinds that are asked anew only when their last answer is not fresh. An error is not
// remembered. Safe for concurrent use; who asks meanwhile waits for the same answer.
type remembered struct {
	kinds Kinds
	now   func() time.Time

	mu        sync.Mutex
	at        time.Time
	groups    *metav1.APIGroupList
	resources map[schema.GroupVersion]*metav1.APIResourceList
	stale     map[schema.GroupVersion]error
}

func (r *remembered) GroupsAndMaybeResources() (*metav1.APIGroupList, map[schema.GroupVersion]*metav1.APIResourceList, map[schema.GroupVersion]error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); r.at.IsZero() || now.Sub(r.at) >= fresh {
		groups, resources, stale, err := r.kinds.GroupsAndMaybeResources()
		if err != nil {
			return nil, nil, nil, err
		}
		r.at, r.groups, r.resources, r.stale = now, groups, resources, stale
	}
	return r.groups, r.resources, r.stale, nil
}
