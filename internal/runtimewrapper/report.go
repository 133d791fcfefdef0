package runtimewrapper

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// report says why the call failed: on stderr, and in runc's log file, from where containerd
// takes the message that kubelet shows.
func (in invocation) report(stderr io.Writer, now time.Time, err error) {
	message := "drover-runc: " + err.Error()
	fmt.Fprintln(stderr, message)
	if in.log == "" {
		return
	}
	f, ferr := os.OpenFile(in.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if ferr != nil {
		fmt.Fprintf(stderr, "drover-runc: %v\n", ferr)
		return
	}
	defer f.Close()
	stamp := now.UTC().Format(time.RFC3339)
	if in.logFormat != "json" {
		fmt.Fprintf(f, "time=%q level=error msg=%q\n", stamp, message)
		return
	}
	line, _ := json.Marshal(map[string]string{"level": "error", "msg": message, "time": stamp})
	f.Write(append(line, '\n'))
}
