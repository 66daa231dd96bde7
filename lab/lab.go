// Package lab joins the stages: it turns a Spec into trials, trials into
// verdicts, verdicts into the change that broke the container, and all of it
// into a bundle that reruns.
//
// One rule holds everywhere: what a kernel did is data (a Trial); what lab
// itself failed to do is an error.
package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

const defaultMemory = 1024 // MiB; QEMU takes only what the guest touches

// A Lab is where jobs run: the cache, the binary that becomes the guest's
// /init, and somebody to tell about progress.
type Lab struct {
	// Cache is the root of everything that lab keeps and that is safe to
	// delete: oci/, disks/, kernels/, toolchains/, trees/, host/, snapshots/.
	Cache string
	// State is the root of what must not be lost: a bisect's journal.
	State string
	// Agent gives the path of a static build of this very program, which
	// becomes /init in the guest. It is asked when the first guest is made.
	Agent func() (string, error)
	// Version is lab's own version, for manifests.
	Version string
	// Progress is told what goes on; its zero value is silent.
	Progress Progress

	noticed sync.Map // what notice has said

	lost  string          // the symbols that the last kernel's config lost: said when they change
	onTop string          // what the last kernel had on top of its commit: said when it changes
	known map[string]bool // kinds of known breakages that were said

	saying sync.Mutex // of known and voices: trials may be under way at the same time
	voices voices
}

// Progress is how a job says what it does. Either function may be nil; both may
// be called from several goroutines at a time.
type Progress struct {
	Line func(string) // a line worth keeping
	Live func(string) // how far the present step is; replaces the last; "" clears it
}

// Say tells a line worth keeping.
func (p Progress) Say(format string, args ...any) {
	if p.Line != nil {
		p.Line(fmt.Sprintf(format, args...))
	}
}

// Show tells how far the present step is.
func (p Progress) Show(format string, args ...any) {
	if p.Live != nil {
		p.Live(fmt.Sprintf(format, args...))
	}
}

// dir makes and names a folder of the cache.
func (l *Lab) dir(elem ...string) (string, error) {
	d := filepath.Join(append([]string{l.Cache}, elem...)...)
	if err := os.MkdirAll(d, 0o755); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	return d, nil
}
