package corpus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"lab/lab/corpus/listing"
)

// ErrNoUmoci says that there is no umoci to ask.
var ErrNoUmoci = errors.New("umoci is not installed: run lab doctor --install")

// Unpack lets umoci unpack the case below dir, an empty folder, and lists what is
// there. It takes root. An error that is umoci's own is a *UmociError.
//
// The raw command does without the manifest of the result that a bundle has,
// which nobody here reads and for which umoci lists everything once more.
func (c Case) Unpack(ctx context.Context, dir string) ([]listing.File, error) {
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		return nil, ErrNoUmoci
	}
	image, rootfs := filepath.Join(dir, "layout"), filepath.Join(dir, "rootfs")
	if err := c.WriteLayout(image); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, umoci, "raw", "unpack", "--image", image+":1", rootfs)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &UmociError{said.String()}
	}
	// A root that no layer lists is what mkdir(1) makes of it.
	if _, err := os.Stat(rootfs); err != nil {
		return nil, fmt.Errorf("umoci left nothing: %w", err)
	}
	var files []listing.File
	err = listing.Walk(rootfs, func(f listing.File) error {
		files = append(files, f)
		return nil
	})
	return files, err
}

// UmociError is what umoci said when it gave up.
type UmociError struct{ Output string }

func (e *UmociError) Error() string {
	lines := bytes.Split(bytes.TrimSpace([]byte(e.Output)), []byte("\n"))
	return fmt.Sprintf("umoci: %s", bytes.TrimSpace(lines[len(lines)-1]))
}
