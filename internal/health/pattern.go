package health

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// Bounds of a pattern. Go's expressions (RE2's syntax) take time linear in the text, at worst so
// much per byte as the compiled program has instructions: with 200 of them about 3 µs a byte,
// while "timeout|deadline exceeded" has 27 and takes 30 ns.
const (
	maxPattern      = 256 // bytes
	maxInstructions = 200
)

// Compile reads a pattern for lines of a log. The error is for who wrote it.
func Compile(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, fmt.Errorf("the pattern is empty: it would match every line")
	}
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("the pattern has %d bytes: at most %d", len(pattern), maxPattern)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("the pattern is no regular expression of Go's (RE2): %w", err)
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, fmt.Errorf("the pattern %q: %w", pattern, err)
	}
	if n := len(program.Inst); n > maxInstructions {
		return nil, fmt.Errorf("the pattern needs %d steps for every byte of the log, at most %d: repeat less ({n,m}), or use fewer alternatives", n, maxInstructions)
	}
	return regexp.Compile(pattern)
}
