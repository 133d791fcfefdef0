package inspect

import "fmt"

// What to do about a refusal.
const (
	// tampered: only a hostile node writes such an image.
	tampered = "no dump of a container holds this: find out who is root on the node that the pod comes from, and start the pod anew"
	// differs: honest images can hold it where the two nodes or specifications differ.
	differs = "give the replacement what its source has, or start the pod anew"
)

// refuse says what was found in an image, what is allowed, and what to do.
func refuse(do, allowed, found string, args ...any) error {
	return fmt.Errorf("%s; allowed: %s; %s", fmt.Sprintf(found, args...), allowed, do)
}
