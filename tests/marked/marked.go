// Package marked finds the parts of documents that tests write: what is between two lines.
package marked

import (
	"fmt"
	"os"
	"strings"
)

// Part is a document, cut around what stands between two of its lines.
type Part struct {
	path                string
	before, Text, after string
}

// Open reads the part of the document at path between the lines begin and end, which are given with their line ends.
func Open(path, begin, end string) (*Part, error) {
	doc, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	before, rest, ok := strings.Cut(string(doc), begin)
	text, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return nil, fmt.Errorf("%s has no lines %q and %q", path, begin, end)
	}
	return &Part{path, before + begin, text, end + after}, nil
}

// Write puts text in its place.
func (p *Part) Write(text string) error {
	p.Text = text
	return os.WriteFile(p.path, []byte(p.before+text+p.after), 0o644)
}
