// Command load has many clients of a server that notice whatever is lost when it moves: each has
// one connection, which it keeps, and does one thing after the other. It goes on until its standard
// input ends, and then tells as JSON what the clients saw (test/clients). A line of the input begins a phase of
// that name, for which latencies are told.
//
//	load redis ADDRESS    numbered values are written; in the end all that were acknowledged must be there
//	load lines ADDRESS    numbered lines are sent, and have to come back
//	load http ADDRESS PATH    a page is asked for over a kept-alive connection
package main

import (
	"encoding/json"
	"flag"
	"log"
	"os"
	"time"

	"github.com/drover-project/drover/test/clients"
)

func main() {
	n := flag.Int("clients", 50, "how many clients")
	every := flag.Duration("every", 20*time.Millisecond, "time between two requests of a client")
	patience := flag.Duration("patience", 10*time.Second, "how long a client waits for an answer, before it counts as a failure")
	flag.Parse()
	c := clients.Config{Clients: *n, Every: *every, Patience: *patience}
	var service clients.Service
	switch args := flag.Args(); {
	case len(args) == 2 && args[0] == "redis":
		service = &clients.Redis{Address: args[1]}
	case len(args) == 2 && args[0] == "lines":
		service = &clients.Lines{Address: args[1]}
	case len(args) == 3 && args[0] == "http":
		service = &clients.HTTP{Address: args[1], Path: args[2]}
	default:
		log.Fatalf("load: %q: want redis ADDRESS, lines ADDRESS, or http ADDRESS PATH", args)
	}
	r, err := clients.Run(c, service, os.Stdin)
	if err != nil {
		log.Fatalf("load: %v", err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		log.Fatalf("load: %v", err)
	}
}
