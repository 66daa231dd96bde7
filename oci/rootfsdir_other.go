//go:build !linux

package oci

import (
	"context"
	"errors"
	"io"
)

// tarDir needs what only Linux tells of a file.
func tarDir(context.Context, io.Writer, string, func(string)) error {
	return errors.New("a directory as a root file system needs a Linux host: make a tar of it")
}
