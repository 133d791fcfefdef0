package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"

	"github.com/drover-project/drover/test/witness"
)

// journal is a file that every tick is written to, open for as long as the ticker lives.
type journal struct{ file *os.File }

func openJournal(path string) (journal, error) {
	if path == "" {
		return journal{}, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	return journal{f}, err
}

func (j journal) write(seq uint64) error {
	if j.file == nil {
		return nil
	}
	_, err := fmt.Fprintln(j.file, seq)
	return err
}

// said reads the file that has the journal's name: it holds every tick once, from the first.
func (j journal) said() witness.Talk {
	if j.file == nil {
		return witness.Talk{Odd: "there is no journal"}
	}
	f, err := os.Open(j.file.Name())
	if err != nil {
		return witness.Talk{Odd: err.Error()}
	}
	defer f.Close()
	var t witness.Talk
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if n, err := strconv.ParseUint(lines.Text(), 10, 64); err != nil || n != t.Last+1 {
			t.Odd = fmt.Sprintf("after %d comes %q", t.Last, lines.Text())
			return t
		}
		t.Last++
	}
	if err := lines.Err(); err != nil {
		t.Odd = err.Error()
	}
	return t
}
