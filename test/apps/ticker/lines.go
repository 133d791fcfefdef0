package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
)

// echo gives back what is sent on each connection to the address: lines, numbered from 1 on. A line of
// another number than is due is answered by "due N", so that what was lost or doubled on the way is seen.
func echo(on string) error {
	if on == "" {
		return nil
	}
	l, err := net.Listen("tcp", on)
	if err != nil {
		return fmt.Errorf("echo lines: %w", err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				log.Fatalf("ticker: echo lines: %v", err)
			}
			go echoOn(c)
		}
	}()
	return nil
}

func echoOn(c net.Conn) {
	defer c.Close()
	for in, due := bufio.NewScanner(c), 1; in.Scan(); due++ {
		says := in.Text()
		if says != fmt.Sprint(due) {
			says = fmt.Sprintf("due %d", due)
		}
		if _, err := fmt.Fprintln(c, says); err != nil {
			return
		}
	}
}
