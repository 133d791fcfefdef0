package controller

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Reasons of a replacement that the API server does not take.
const (
	ReasonQuotaExceeded        = "QuotaExceeded"
	ReasonLimitRange           = "LimitRange"
	ReasonPodSecurity          = "PodSecurity"
	ReasonNamespaceTerminating = "NamespaceTerminating"
)

// limitRange are the words in which the admission plugin LimitRanger refuses.
var limitRange = regexp.MustCompile(`(minimum|maximum) \S+ usage per (Container|Pod) is |max limit to request ratio per `)

// refused tells in a word why the API server does not take the replacement. The server's
// answer has causes for some of it only; for the rest there are its words.
func refused(err error) *Refusal {
	says := err.Error()
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return refuse(ReasonNamespaceTerminating, "the namespace is being deleted: %s", says)
	case strings.Contains(says, "exceeded quota: "):
		_, numbers, _ := strings.Cut(says, "exceeded quota: ")
		return refuse(ReasonQuotaExceeded, "a move needs the pod twice for its length, and that exceeds ResourceQuota %s", numbers)
	case strings.Contains(says, `violates PodSecurity "`):
		return refuse(ReasonPodSecurity, "the namespace's Pod Security does not allow the pod any more: %s", says)
	case limitRange.MatchString(says):
		return refuse(ReasonLimitRange, "the namespace's LimitRange does not allow the pod any more: %s", says)
	}
	return refuse(ReasonReplacementRefused, "the API server refuses the replacement: %s", says)
}
