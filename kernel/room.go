package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A room is a root file system of which programs are run: a toolchain's image,
// unpacked. They see it read-only, with no network, and nothing of the host but
// the folders that they may write to, at the paths that these have outside, so
// that what they write does not tell where they ran.
//
// There are two ways in, both with Linux's namespaces and neither with a daemon.
// First comes lab itself, started again as the first process inside (see Dispatch).
// Where the host does not let it, there is bubblewrap, which some hosts allow what
// they allow nobody else; it comes second because, told to end, it kills make
// without letting it clean up. As root, lab needs no user namespace. runc and crun
// would add a bundle and a state to clean up after a crash, for nothing that these
// do not give.
type room struct {
	root  string   // the unpacked image
	mount string   // an empty folder, for the way in of lab's own
	way   way      // how to get in, once that is known
	env   []string // that all programs in it get
	held  *os.File // keeps the cache from freeing it
}

// A way is how a program gets into a room.
type way string

const (
	byBubblewrap way = "bubblewrap"
	byUser       way = "a user namespace"
	byRoot       way = "a mount namespace, as root"
)

// ways are tried in this order.
func ways() []way {
	list := []way{byUser, byBubblewrap}
	if os.Geteuid() == 0 {
		list = append(list, byRoot)
	}
	return list
}

// NoEntryError is returned when this host lets nobody into a room.
type NoEntryError struct {
	Tried []string // each way with why it failed
}

func (e *NoEntryError) Error() string {
	return "run a program inside of an image: " + strings.Join(e.Tried, "; ")
}

// open finds the way in, by the toolchain's compiler.
func (r *room) open(ctx context.Context, t Toolchain) error {
	return r.find(func() error {
		_, err := t.ask(ctx, "/", "gcc", "--version")
		return err
	})
}

func (r *room) find(try func() error) error {
	candidates := ways()
	if r.way != "" {
		candidates = []way{r.way}
	}
	var none NoEntryError
	for _, w := range candidates {
		r.way = w
		if _, err := exec.LookPath("bwrap"); w == byBubblewrap && err != nil {
			none.Tried = append(none.Tried, string(w)+" is not installed")
			continue
		}
		err := try()
		if err == nil {
			return nil
		}
		if !refused(err) {
			return err
		}
		none.Tried = append(none.Tried, fmt.Sprintf("%s: %s", w, err))
	}
	r.way = ""
	return &none
}

// refused tells whether it may be the way that failed, and not lab: a program that
// ended badly, or a process that was not to be had (clone(2): EPERM, or ENOSPC and
// EUSERS where there are to be no more user namespaces).
func refused(err error) bool {
	var exit *exec.ExitError
	var start *fs.PathError
	return errors.As(err, &exit) || errors.Is(err, errNoNamespace) || errors.As(err, &start) && start.Op == "fork/exec"
}

// Entrance tells how programs get into images on this host.
func Entrance(ctx context.Context) (string, error) {
	mount, err := os.MkdirTemp("", "lab-room-")
	if err != nil {
		return "", fmt.Errorf("enter a room: %w", err)
	}
	defer os.Remove(mount)
	r := &room{root: "/", mount: mount}
	err = r.find(func() error { return child{dir: "/", env: baseEnv("/"), room: r}.run(ctx, "true") })
	return string(r.way), err
}

// A step makes one thing in a room that is empty at first.
type step struct {
	Kind stepKind
	From string `json:",omitempty"` // on the host; of a link its target
	To   string // in the room
}

type stepKind string

const (
	stepDir   stepKind = "dir"
	stepLink  stepKind = "link"
	stepRead  stepKind = "read"  // From is to be seen at To, and not to be written
	stepWrite stepKind = "write" // From is to be seen at To
	stepTmp   stepKind = "tmp"   // an empty folder, in memory
	stepDev   stepKind = "dev"   // /dev with null, zero, full, random, urandom and tty
	stepProc  stepKind = "proc"
)

// maxSteps bounds what a strange image can make of a room.
const maxSteps = 2000

// plan says how to make the room with the folders that can be written to. These
// take the place of what the image has there; the rest of the folders above them
// stays to be seen. The image's own /dev, /proc, /sys and /tmp do not.
func (r *room) plan(write []string) ([]step, error) {
	var steps []step
	for _, w := range write {
		if w != filepath.Clean(w) || !filepath.IsAbs(w) || strings.HasPrefix(w+"/", "/dev/") || strings.HasPrefix(w+"/", "/proc/") || w == "/" || w == "/tmp" {
			return nil, fmt.Errorf("run a program inside of an image: it cannot have %s to write to; keep lab's files elsewhere with --cache DIR", w)
		}
	}
	above := func(dir string) bool {
		return slices.ContainsFunc(write, func(w string) bool { return strings.HasPrefix(w, dir+"/") })
	}
	var walk func(dir string) error
	walk = func(dir string) error {
		entries, err := os.ReadDir(filepath.Join(r.root, dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			to := filepath.Join(dir, e.Name())
			from := filepath.Join(r.root, to)
			switch {
			case slices.Contains([]string{"/dev", "/proc", "/sys", "/tmp"}, to) || slices.Contains(write, to):
			case above(to) && e.IsDir():
				steps = append(steps, step{stepDir, "", to})
				if err := walk(to); err != nil {
					return err
				}
			case above(to):
			case e.Type()&os.ModeSymlink != 0:
				target, err := os.Readlink(from)
				if err != nil {
					return err
				}
				steps = append(steps, step{stepLink, target, to})
			case e.IsDir() || e.Type().IsRegular():
				steps = append(steps, step{stepRead, from, to})
			}
			if len(steps) > maxSteps {
				return fmt.Errorf("more than %d files at its top", maxSteps)
			}
		}
		return nil
	}
	if err := walk("/"); err != nil {
		return nil, fmt.Errorf("run a program inside of an image: %w", err)
	}
	steps = append(steps, step{stepDev, "", "/dev"}, step{stepProc, "", "/proc"}, step{stepTmp, "", "/tmp"})
	for _, w := range write {
		steps = append(steps, step{stepWrite, w, w})
	}
	return steps, nil
}

// command is the host's command that runs a program in the room, in the folder
// dir of it. The process is in its group, dies with lab, and ends with 128+N for
// a program that signal N killed.
func (r *room) command(ctx context.Context, c child, name string, args []string) (*exec.Cmd, error) {
	steps, err := r.plan(c.write)
	if err != nil {
		return nil, err
	}
	inside := append([]string{name}, args...)
	if r.way == byBubblewrap {
		cmd := exec.CommandContext(ctx, "bwrap", append(bubblewrap(steps, c), inside...)...)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{}, procAttr()
		return cmd, nil
	}
	cmd, err := r.enter(ctx, steps, c, inside)
	if err == nil {
		cmd.Dir, cmd.Env = "/", []string{}
	}
	return cmd, err
}

// bubblewrap are the arguments of bwrap(1) that stand before the program's own.
func bubblewrap(steps []step, c child) []string {
	args := []string{
		"--unshare-user-try", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--hostname", "lab",
		"--die-with-parent", "--cap-drop", "ALL",
	}
	for _, s := range steps {
		switch s.Kind {
		case stepDir:
			args = append(args, "--dir", s.To)
		case stepLink:
			args = append(args, "--symlink", s.From, s.To)
		case stepRead:
			args = append(args, "--ro-bind", s.From, s.To)
		case stepWrite:
			args = append(args, "--bind", s.From, s.To)
		case stepTmp:
			args = append(args, "--tmpfs", s.To)
		case stepDev:
			args = append(args, "--dev", s.To)
		case stepProc:
			args = append(args, "--proc", s.To)
		}
	}
	args = append(args, "--remount-ro", "/", "--chdir", c.dir)
	for _, v := range lastOfEach(c.env) {
		name, value, _ := strings.Cut(v, "=")
		args = append(args, "--setenv", name, value)
	}
	return append(args, "--")
}

// lastOfEach keeps the last setting of each variable.
func lastOfEach(env []string) []string {
	var list []string
	for i, v := range env {
		name, _, _ := strings.Cut(v, "=")
		again := slices.ContainsFunc(env[i+1:], func(later string) bool { return strings.HasPrefix(later, name+"=") })
		if !again {
			list = append(list, v)
		}
	}
	return list
}

// killedInside tells a program in a room that a signal killed, by the exit status
// that both ways give it, and names the signal.
func killedInside(exit int) (string, bool) {
	if exit <= 128 || exit > 128+64 {
		return "", false
	}
	return "signal " + strconv.Itoa(exit-128), true
}
