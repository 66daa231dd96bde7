//go:build !linux || !amd64

package trace

import (
	"errors"
	"io"
)

// A Summary is what is to be said of a trace besides its lines.
type Summary struct {
	Truncated bool
	Notes     []string
}

// Follow is of Linux on x86-64 only.
func Follow(int, io.Writer, int64, *Mark, func() error) (Summary, error) {
	return Summary{}, errors.New("trace: only Linux on x86-64 is traced")
}
