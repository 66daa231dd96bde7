package kernel

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Build ahead of time (BuildOptions.Ahead) is a guess, and is cut short when it
// turns out to be wrong. What it has done to the work tree is then undone, because
// make goes by the times of files: of a header that was changed and changed back,
// everything that includes it would be compiled again, for nothing.

// footing is what a build ahead of time found in the work tree, as far as it goes
// about to change it.
type footing struct {
	commit string
	since  time.Time            // everything written since is its work
	files  map[string]wasBefore // the paths that the two commits do not have in common
}

type wasBefore struct {
	time   time.Time
	digest string // of the content; empty where there was no file
}

// maxUndone is how many files a checkout may change to be undone. One of more
// has most of a kernel compiled anew in any case.
const maxUndone = 5000

// errAhead is why a build ahead of time is given up: it would cost more than it
// may. The build in earnest is not bound by that.
var errAhead = errors.New("not ahead of time")

// remember looks at what the checkout of a commit will change. It is nil where
// that cannot be told, and what a build does then stays.
func (w *workTree) remember(ctx context.Context, hash string) *footing {
	if _, err := os.Stat(w.marker()); err == nil {
		return nil // there is something to recover first
	}
	var head strings.Builder
	if err := w.Tree.git(ctx, &head, nil, "rev-parse", "--verify", "HEAD"); err != nil {
		return nil
	}
	b := &footing{commit: strings.TrimSpace(head.String()), files: map[string]wasBefore{}}
	changes, err := w.Diff(ctx, b.commit, hash)
	if err != nil || len(changes) > maxUndone {
		return nil
	}
	// The clock of the file system, by which everything is compared.
	if err := w.mark(checkingOut); err != nil {
		return nil
	}
	info, err := os.Stat(w.marker())
	if err != nil || os.Remove(w.marker()) != nil {
		return nil
	}
	b.since = info.ModTime()
	for _, c := range changes {
		was := wasBefore{}
		file := filepath.Join(w.src(), c.Path)
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() {
			if was.digest, err = digestFile(file); err != nil {
				return nil
			}
			was.time = info.ModTime()
		}
		b.files[c.Path] = was
	}
	return b
}

// undo makes the work tree what it was, less what was compiled over: that is
// removed, for make to compile it again. Where the build has gone as far as to
// write something on which much else depends, it is false, everything stays as
// it is, and make finds out.
//
// The order matters should lab be killed in between: a source file gets its old
// time back only when nothing is left that was made of another content.
func (w *workTree) undo(ctx context.Context, b *footing) (undone bool, err error) {
	written, err := writtenSince(w.src(), b.since)
	if err != nil {
		return false, err
	}
	var outputs []string
	for name := range written {
		if _, source := b.files[name]; source {
			continue
		}
		if !remade(name) {
			return false, nil
		}
		outputs = append(outputs, name)
	}
	for _, name := range outputs {
		if err := removeIfThere(filepath.Join(w.src(), name)); err != nil {
			return false, err
		}
	}
	if err := w.checkout(ctx, b.commit); err != nil {
		return false, err
	}
	for name, was := range b.files {
		file := filepath.Join(w.src(), name)
		if was.digest == "" {
			continue
		}
		if digest, err := digestFile(file); err != nil || digest != was.digest {
			continue
		}
		if err := os.Chtimes(file, was.time, was.time); err != nil {
			return false, err
		}
	}
	return true, nil
}

// remade tells the files that a build makes again when they are gone, and with
// them nothing but what is linked of them. Programs that the build runs, the
// headers it generates and the configuration are not among them.
func remade(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	switch top {
	case "include", "scripts", "tools", "certs":
		return false
	}
	base := path.Base(name)
	switch {
	case strings.Contains(name, "/include/"):
		return false
	case strings.HasPrefix(base, ".") && (strings.HasSuffix(base, ".cmd") || strings.HasSuffix(base, ".d")), strings.HasPrefix(base, ".tmp_"):
		return true
	case top == name:
		return strings.HasPrefix(base, "vmlinux") || base == "System.map" || base == "modules.builtin" || base == "modules.builtin.modinfo" || base == ".version" || isObject(base)
	case strings.HasPrefix(name, "arch/x86/boot/"):
		return true
	}
	return isObject(base)
}

func isObject(base string) bool {
	switch path.Ext(base) {
	case ".o", ".a", ".s", ".order", ".mod":
		return true
	}
	return false
}

// guess is the build ahead of time that is under way in a Tree, of which there is
// one at most.
type guess struct {
	mu       sync.Mutex
	dir      string // where the cache will have it; empty when there is none
	cancel   context.CancelCauseFunc
	progress func(line string, objects, total int) // of whoever waits for it
	wanted   bool                                  // somebody does
	group    int                                   // of the make that is running
}

var (
	errWrong = errors.New("another kernel is wanted")
	errRight = errors.New("this kernel is wanted, at full speed")
)

// begin registers a build ahead of time. end is to be called with it.
func (g *guess) begin(ctx context.Context, dir string, o BuildOptions) (context.Context, BuildOptions) {
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dir, g.cancel, g.progress, g.wanted = dir, cancel, o.Progress, false
	o.Progress = func(line string, objects, total int) {
		g.mu.Lock()
		told := g.progress
		g.mu.Unlock()
		if told != nil {
			told(line, objects, total)
		}
	}
	return ctx, o
}

func (g *guess) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cancel(nil)
	g.dir = ""
}

// settle makes way for a build in earnest. The one ahead of time that is under
// way goes on where it is the same one, with the priority that it then deserves,
// and ends where it is not. It reports whether there is one.
func (g *guess) settle(dir string, o BuildOptions) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.dir == "":
		return false
	case g.dir != dir:
		g.cancel(errWrong)
	default:
		g.progress, g.wanted = o.Progress, true
		if g.group != 0 && !hurry(g.group) {
			// Only root may take such a wish back. make goes on where it was.
			g.cancel(errRight)
		}
	}
	return true
}

// started and ended are told of each make of the build.
func (g *guess) started(group int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.group = group; !g.wanted {
		giveWay(group)
	}
}

func (g *guess) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.group = 0
}
