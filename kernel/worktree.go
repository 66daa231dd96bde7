package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"lab/kernel/kconfig"
)

// workTree is lab's work tree while its lock is held.
type workTree struct {
	*Tree
	lock    *os.File
	tools   Toolchain
	options BuildOptions
	env     []string // for make, beside what every build has
}

// buildState is state.json: what the objects in the work tree come from.
type buildState struct {
	Toolchain []string `json:"toolchain"`
	Full      int      `json:"full"` // objects compiled by the last build from nothing
	Last      int      `json:"last"` // and by the last build that had something to start from
}

func (w *workTree) src() string { return filepath.Join(w.base, "src") }
func (w *workTree) out() string { return filepath.Join(w.base, "out") }

// make checks out and builds a commit. What it leaves in out is to be published.
func (w *workTree) make(ctx context.Context, hash string, r request) (Kernel, *Failure, error) {
	var was *footing
	if w.options.Ahead {
		was = w.remember(ctx, hash)
	}
	var k Kernel
	var f *Failure
	err := w.prepare(ctx, hash)
	prepared := err == nil
	if prepared {
		k, f, err = w.twice(ctx, r)
	}
	// make, told to end, removes what it was making. Killed, it cannot.
	if errors.Is(err, ErrInterrupted) {
		return Kernel{}, nil, err
	}
	if err != nil && was != nil && !errors.Is(err, errRight) {
		undone, e := w.undo(context.WithoutCancel(ctx), was)
		if e != nil {
			return Kernel{}, nil, errors.Join(err, e)
		}
		prepared = prepared || undone
	}
	if !prepared {
		return Kernel{}, nil, err // the marker tells the next one
	}
	return k, f, errors.Join(err, removeIfThere(w.marker()))
}

// prepare checks a commit out, and leaves the marker that says that make runs.
func (w *workTree) prepare(ctx context.Context, hash string) error {
	return w.enter(ctx, hash, func() error {
		state := w.readState()
		if state.Toolchain == nil || slices.Equal(state.Toolchain, w.tools.Identity()) {
			return nil
		}
		// Older kernels' makefiles do not notice a new compiler.
		if w.options.Ahead {
			return errAhead
		}
		return w.wipe(ctx)
	})
}

// enter checks a commit out, and leaves the marker that says that something runs.
// ready is called before that, when what others have left is mended.
func (w *workTree) enter(ctx context.Context, hash string, ready func() error) error {
	if err := os.MkdirAll(w.src(), 0o755); err != nil {
		return err
	}
	if err := w.recover(); err != nil {
		return fmt.Errorf("recover the work tree: %w", err)
	}
	if err := ready(); err != nil {
		return err
	}
	if err := w.mark(checkingOut); err != nil {
		return err
	}
	if err := w.checkout(ctx, hash); err != nil {
		return err
	}
	return w.mark(compiling)
}

// What a marker says is going on.
const (
	checkingOut = "checkout"
	compiling   = "make"
)

func (w *workTree) marker() string { return filepath.Join(w.base, "building") }

// mark leaves word for recover.
func (w *workTree) mark(phase string) error {
	return renameio.WriteFile(w.marker(), []byte(phase+" "+bootID()), 0o644)
}

// twice attempts a build, and again from nothing when it fails in a way for
// which what is left of another commit's build may be to blame.
func (w *workTree) twice(ctx context.Context, r request) (Kernel, *Failure, error) {
	k, f, trusted, err := w.attempt(ctx, r)
	if err != nil || f == nil || trusted {
		return k, f, err
	}
	if w.options.Ahead {
		return Kernel{}, nil, errAhead
	}
	if err := w.wipe(ctx); err != nil {
		return Kernel{}, nil, err
	}
	k, f, _, err = w.attempt(ctx, r)
	return k, f, err
}

// attempt configures and compiles what is checked out. A failure is trusted
// when no stale object can have caused it.
func (w *workTree) attempt(ctx context.Context, r request) (k Kernel, f *Failure, trusted bool, err error) {
	log, file, err := w.begin()
	if err != nil {
		return Kernel{}, nil, false, err
	}
	defer file.Close()
	_, statErr := os.Stat(filepath.Join(w.src(), ".config"))
	fresh := statErr != nil
	state := w.readState()
	state.Toolchain = w.tools.Identity()
	if err := w.writeState(state); err != nil {
		return Kernel{}, nil, false, err
	}
	log.total = state.Last
	if fresh {
		log.total = state.Full
	}
	step := "config"
	err = w.configure(ctx, r, log)
	if err == nil {
		step = "compile"
		jobs := w.options.Jobs
		if jobs <= 0 {
			jobs = runtime.NumCPU()
		}
		err = w.runMake(ctx, log, nil, fmt.Sprintf("-j%d", jobs), "bzImage")
	}
	if err == nil {
		k, err = w.collect(r)
	}
	if f, source := log.failure(step, err); f != nil {
		return Kernel{}, f, source || fresh, nil
	}
	if err != nil {
		return Kernel{}, nil, false, err
	}
	k.Log = log.path
	if fresh {
		state.Full = log.objects
	} else {
		state.Last = log.objects
	}
	return k, nil, true, w.writeState(state)
}

// begin empties out and begins the log of what is made in it.
func (w *workTree) begin() (*buildLog, io.Closer, error) {
	if err := os.RemoveAll(w.out()); err != nil {
		return nil, nil, err
	}
	if err := os.Mkdir(w.out(), 0o755); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(w.out(), "build.log")
	file, err := os.Create(path)
	return &buildLog{w: file, path: path, src: w.src(), tools: w.tools, progress: w.options.Progress}, file, err
}

// A refusal is the error about a configuration that [BuildOptions.Refuse] does not
// have compiled. The work tree's .config stays what it was.
type refusal struct{ *Failure }

func (r refusal) Error() string { return r.Line }

// configure makes .config, and leaves it alone when it would be the same, so
// that make has nothing to do about it.
func (w *workTree) configure(ctx context.Context, r request, log *buildLog) error {
	data, err := w.resolve(ctx, r, log)
	if err != nil {
		return err
	}
	if w.options.Refuse != nil {
		c, err := kconfig.Parse(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("read the resolved configuration: %w", err)
		}
		if f := w.options.Refuse(c); f != nil {
			return refusal{f}
		}
	}
	current := filepath.Join(w.src(), ".config")
	if old, err := os.ReadFile(current); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return renameio.WriteFile(current, data, 0o644)
}

// resolve has Kconfig make a whole configuration of a request, in out/config.
func (w *workTree) resolve(ctx context.Context, r request, log *buildLog) ([]byte, error) {
	asked := filepath.Join(w.out(), "asked.config")
	resolved := filepath.Join(w.out(), "config")
	if err := os.WriteFile(asked, r.text, 0o644); err != nil {
		return nil, err
	}
	env := []string{"KCONFIG_CONFIG=" + resolved}
	target := "allnoconfig"
	if r.full {
		target = "olddefconfig"
		// Before 3.7 it was called oldnoconfig.
		if rules, err := os.ReadFile(filepath.Join(w.src(), "scripts/kconfig/Makefile")); err == nil && !bytes.Contains(rules, []byte(target)) {
			target = "oldnoconfig"
		}
		if err := os.WriteFile(resolved, r.text, 0o644); err != nil {
			return nil, err
		}
	} else {
		env = append(env, "KCONFIG_ALLCONFIG="+asked)
	}
	if err := w.runMake(ctx, log, env, target); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(asked), removeIfThere(resolved+".old")); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(resolved)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noResult{errors.New("make " + target + " made no configuration")}
	}
	return data, err
}

// runMake runs make in the work tree. Its children hold the work tree's lock
// too, so that no other lab gets at it while one of them is alive.
func (w *workTree) runMake(ctx context.Context, log *buildLog, env []string, args ...string) error {
	c := child{
		dir: w.src(), stdout: log, stderr: log, extra: []*os.File{w.lock},
		room: w.tools.room, write: []string{w.base},
		env: append(append(w.tools.env(baseEnv(w.trees)),
			// What would differ from one build to the next
			// (Documentation/kbuild/reproducible-builds.rst).
			"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970", "KBUILD_BUILD_USER=lab",
			"KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_VERSION=1", "SOURCE_DATE_EPOCH=0",
			"KCONFIG_NOTIMESTAMP=1", // before 2.6.38
			// Set and empty: no "+" behind the release.
			"LOCALVERSION=",
			"GIT_CEILING_DIRECTORIES="+w.base), slices.Concat(w.env, env)...),
	}
	if !w.options.Recompile {
		cached, err := w.withCcache(w.tools)
		if err != nil {
			return err
		}
		c.env = append(c.env, cached...)
	}
	if w.options.Ahead {
		c.guess = &w.guess
	}
	err := c.run(ctx, "make", args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && log.host != nil {
		return log.host
	}
	return err
}

// noResult is the error about a make that made nothing and did not say so.
type noResult struct{ error }

// collect copies what was built into out.
func (w *workTree) collect(r request) (Kernel, error) {
	image := filepath.Join(w.out(), "bzImage")
	for from, to := range map[string]string{"arch/x86/boot/bzImage": "bzImage", "System.map": "System.map"} {
		err := copyFile(filepath.Join(w.src(), from), filepath.Join(w.out(), to))
		if errors.Is(err, fs.ErrNotExist) {
			return Kernel{}, noResult{fmt.Errorf("make bzImage made no %s", from)}
		}
		if err != nil {
			return Kernel{}, err
		}
	}
	k, err := FromFile(image)
	if err != nil {
		return Kernel{}, noResult{errors.New(strings.ReplaceAll(err.Error(), w.out()+"/", ""))}
	}
	k.Config, k.SystemMap = filepath.Join(w.out(), "config"), filepath.Join(w.out(), "System.map")
	k.Compiler, k.Toolchain = w.tools.Compiler(), &w.tools
	footprint, err := readFootprint(w.src())
	if err != nil {
		return Kernel{}, err
	}
	data, err := os.ReadFile(k.Config)
	if err != nil {
		return Kernel{}, err
	}
	resolved, err := kconfig.Parse(bytes.NewReader(data))
	if err != nil {
		return Kernel{}, fmt.Errorf("read the resolved configuration: %w", err)
	}
	if footprint != nil && wholeTree(resolved) == "" {
		k.Footprint = filepath.Join(w.out(), "footprint")
		if err := os.WriteFile(k.Footprint, footprint.format(), 0o644); err != nil {
			return Kernel{}, err
		}
	}
	for _, d := range w.lost(r, resolved) {
		k.Missing = append(k.Missing, d.String())
	}
	return k, nil
}

// checkout makes the tracked files those of the commit and removes what is
// neither tracked nor a build's. Files that are the same are not touched:
// make goes by their times.
func (w *workTree) checkout(ctx context.Context, hash string) error {
	var exit *exec.ExitError
	// Files whose times changed and whose content did not, in a cache that was
	// copied, are not to be written again. It fails when there are others too.
	err := w.git(ctx, "update-index", "-q", "--refresh")
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	err = w.git(ctx, "checkout", "--quiet", "--force", "--detach", hash)
	if errors.As(err, &exit) {
		// A damaged index, as a rule: without one, every file is written again.
		if err := removeIfThere(filepath.Join(w.base, "git/index")); err != nil {
			return err
		}
		err = w.git(ctx, "checkout", "--quiet", "--force", "--detach", hash)
	}
	if err != nil {
		return fmt.Errorf("%w (a partial clone needs its remote, and one with --reference the other clone)", err)
	}
	return w.git(ctx, "clean", "--quiet", "-d", "-ff")
}

// git changes the work tree. Should lab be killed, the lock stays with git until
// it is gone as well.
func (w *workTree) git(ctx context.Context, args ...string) error {
	return w.Tree.git(ctx, io.Discard, []*os.File{w.lock}, args...)
}

// wipe removes everything that builds have made.
func (w *workTree) wipe(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(w.base, "git/index")); err != nil {
		return errors.Join(os.RemoveAll(w.src()), os.Mkdir(w.src(), 0o755))
	}
	return w.git(ctx, "clean", "--quiet", "-d", "-ff", "-x")
}

// settled is how long before the last sign of life of a killed make a file
// must have been written to be believed whole.
const settled = 2 * time.Minute

// recover mends what a lab that was killed in the middle has left: git's own
// locks, files of a commit that was being checked out, which nobody knows of,
// and half-written objects. After a crash of the host anything may be missing
// on the disk, so nothing is believed.
func (w *workTree) recover() error {
	for _, name := range []string{"index.lock", "HEAD.lock", "config.lock"} {
		if err := removeIfThere(filepath.Join(w.base, "git", name)); err != nil {
			return err
		}
	}
	info, err := os.Stat(w.marker())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(w.marker())
	if err != nil {
		return err
	}
	switch string(text) {
	case checkingOut + " " + bootID():
		return removeWritten(w.src(), info.ModTime(), 0)
	case compiling + " " + bootID():
		return removeWritten(w.src(), info.ModTime(), settled)
	}
	return errors.Join(os.RemoveAll(w.src()), removeIfThere(filepath.Join(w.base, "git/index")), os.Mkdir(w.src(), 0o755))
}

// removeWritten removes the files that were written since that time; if last is
// not 0, only those that were written within last of the newest of them.
// Tracked files among them come back with the next checkout.
func removeWritten(dir string, since time.Time, last time.Duration) error {
	written, err := writtenSince(dir, since)
	if err != nil {
		return err
	}
	latest := since
	for _, when := range written {
		if when.After(latest) {
			latest = when
		}
	}
	for name, when := range written {
		if last == 0 || latest.Sub(when) < last {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writtenSince gives the files below dir that were written at that time or later,
// and when.
func writtenSince(dir string, since time.Time) (map[string]time.Time, error) {
	written := map[string]time.Time{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.ModTime().Before(since) {
			return err
		}
		name, err := filepath.Rel(dir, file)
		written[name] = info.ModTime()
		return err
	})
	return written, err
}

func (w *workTree) readState() buildState {
	var s buildState
	data, err := os.ReadFile(filepath.Join(w.base, "state.json"))
	if err != nil || json.Unmarshal(data, &s) != nil {
		return buildState{}
	}
	return s
}

func (w *workTree) writeState(s buildState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(w.base, "state.json"), data, 0o644)
}

// bootID differs from one boot of the host to the next.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(id)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return writeFile(to, in, maxImage)
}
