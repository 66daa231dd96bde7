package lab

import (
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
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"lab/disk"
	"lab/kernel"
	"lab/probe"
)

// A launcher has trials run on other machines, by a program that runs a command
// there and waits for it, such as srun of Slurm. The command is this very program,
// as lab trial DIR: in the folder it finds an errand, and leaves an answer there.
// What it reads and writes is below the cache, which all machines have under the
// same path.
//
// The answer is a Trial. Status 0 says that there is one; whatever else the
// launcher ends with, a node that died or a lab that could not do its work there,
// says nothing of the commit, and the errand is given out again.
type launcher struct {
	*Lab
	line string // for a shell
	self string // the path of this program
	dir  string // for the folders of errands
}

// How often an errand is given out, and after how long again: at first, and twice
// as long each time. Where lab itself ran and could not do its work, another
// node is not likely to do better.
const (
	maxLaunches   = 8
	maxOwnFailure = 3
	firstPause    = time.Second
	longestPause  = 16 * time.Second
	ownFailure    = 128 // the exit status of lab trial that made no answer
)

const (
	errandFormat = 1
	errandFile   = "errand.json"
	answerFile   = "answer.json"
	maxErrand    = 64 << 20 // bytes: what a guest says is bounded to a few MiB
)

// An errand is all that a trial needs but the files it names.
type errand struct {
	Format int
	Spec   Spec
	// Of a command: the commit, and the work tree to check it out in.
	Commit kernel.Commit
	Slot   int
	// Of a kernel: the trial as far as it is, and the guest.
	Trial *Trial
	Disk  string
	Agent string
	Test  probe.Spec
}

// An answer is what came of it.
type answer struct {
	Format  int
	Trial   Trial
	Console []byte
}

// newLauncher makes a launcher for the bisect whose errands are kept in a folder of
// that name. One bisect has it at a time; what an earlier one has left is removed.
func (l *Lab) newLauncher(line, name string) (*launcher, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find lab's own binary: %w", err)
	}
	dir, err := l.dir("errands", name)
	if err == nil {
		err = errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755))
	}
	if err != nil {
		return nil, fmt.Errorf("make a folder for errands: %w", err)
	}
	return &launcher{Lab: l, line: line, self: self, dir: dir}, nil
}

// Close removes what there is of errands.
func (l *launcher) Close() {
	if l != nil {
		os.RemoveAll(l.dir) // what stays, the same bisect removes the next time
	}
}

// runCommand runs the command on a commit, here or where the launcher says.
func (b *bisection) runCommand(ctx context.Context, c kernel.Commit, slot int) (Trial, error) {
	if b.launcher == nil {
		return b.commands.trialIn(ctx, c, slot)
	}
	s := b.spec
	s.Kernel.Repo = b.commands.tree.Repository()
	return b.launcher.trial(ctx, c.Hash, errand{Spec: s, Commit: c, Slot: slot})
}

// tryOn is try, here or where the launcher says.
func (b *bisection) tryOn(ctx context.Context, s Spec, g *guest, t *Trial) error {
	if b.launcher == nil {
		return b.try(ctx, s, g, t)
	}
	done, err := b.launcher.trial(ctx, t.Kernel.Commit, errand{Spec: s, Trial: t, Disk: g.disk.Path, Agent: g.agent, Test: g.test})
	if err != nil {
		return err
	}
	done.Kernel = t.Kernel // with the lock that keeps it in the cache
	*t = done
	b.sayKnown(t.Kernel.Commit, t.Kernel.Known)
	return nil
}

// trial gives an errand out until there is an answer.
func (l *launcher) trial(ctx context.Context, hash string, o errand) (Trial, error) {
	defer l.show(hash, "")
	own, pause := 0, firstPause
	for n := 1; ; n++ {
		t, said, err := l.launch(ctx, hash, o)
		switch {
		case err == nil:
			return t, nil
		case ctx.Err() != nil:
			return Trial{}, context.Cause(ctx)
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == ownFailure {
			own++
		}
		err = fmt.Errorf("launch a trial of %s by %s: %w%s", short(hash), l.line, err, quoted(said))
		if n == maxLaunches || own == maxOwnFailure {
			return Trial{}, fmt.Errorf("%w\n  it was tried %d times; the same call goes on here", err, n)
		}
		l.Progress.Say("  %s: no verdict from where it ran; it is given out again in %s: %v", short(hash), pause, err)
		select {
		case <-ctx.Done():
			return Trial{}, context.Cause(ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// launch gives an errand out once. said is the last that came of it.
func (l *launcher) launch(ctx context.Context, hash string, o errand) (t Trial, said string, err error) {
	dir, err := os.MkdirTemp(l.dir, short(hash)+"-")
	if err != nil {
		return t, "", err
	}
	defer os.RemoveAll(dir)
	o.Format = errandFormat
	if err := writeJSON(filepath.Join(dir, errandFile), o); err != nil {
		return t, "", err
	}
	cmd := inGroup(ctx, []string{"/bin/sh", "-c", "exec " + l.line + ` "$@"`, "lab", l.self, "--cache", l.Cache, "--quiet", "trial", dir})
	out := &output{line: func(line string) { l.show(hash, "%s, elsewhere: %s", short(hash), line) }}
	cmd.Stdout, cmd.Stderr = out, out
	// srun tells its tasks, and has a helper in its group that must live to see to it.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	l.show(hash, "%s: by %s", short(hash), l.line)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return t, "", err
	}
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // a launcher that is a script
	if err != nil {
		return t, lastLines(out.bytes(), 5), err
	}
	var a answer
	err = readJSON(filepath.Join(dir, answerFile), &a)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it ended with status 0, and there is no answer") // as srun does when a node fails
	}
	if err != nil {
		return t, lastLines(out.bytes(), 5), err
	}
	if a.Format != errandFormat {
		return t, "", fmt.Errorf("the answer is of format %d, not %d: another lab wrote it", a.Format, errandFormat)
	}
	a.Trial.Console = a.Console
	return a.Trial, "", nil
}

// Answer carries out the errand in a folder, on whichever machine this is, and
// leaves the answer there. It does what a trial does where no launcher is involved.
func (l *Lab) Answer(ctx context.Context, dir string) error {
	var o errand
	if err := readJSON(filepath.Join(dir, errandFile), &o); err != nil {
		return fmt.Errorf("read errand: %w", err)
	}
	if o.Format != errandFormat {
		return fmt.Errorf("read errand: it is of format %d, not %d: another lab wrote it", o.Format, errandFormat)
	}
	t, err := l.carryOut(ctx, o)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, answerFile), answer{errandFormat, t, t.Console})
}

func (l *Lab) carryOut(ctx context.Context, o errand) (t Trial, err error) {
	switch {
	case o.Spec.Command != nil:
		tree, err := kernel.OpenCheckout(ctx, l.Cache, o.Spec.Kernel.Repo, o.Slot)
		if err != nil {
			return t, err
		}
		defer tree.Close()
		return (&commands{history{Lab: l, tree: tree}, *o.Spec.Command}).trial(ctx, o.Commit)
	case o.Trial != nil:
		t = *o.Trial
		e, err := l.emulator(ctx, o.Spec.Machine)
		if err != nil {
			return t, err
		}
		g := &guest{emulator: e, disk: disk.Image{Path: o.Disk}, test: o.Test, agent: o.Agent}
		return t, l.try(ctx, o.Spec, g, &t)
	}
	return t, errors.New("read errand: there is neither a command nor a kernel in it")
}

// lastLines are the last lines of a text that say something, n at most.
func lastLines(text []byte, n int) string {
	var list []string
	for line := range strings.Lines(string(text)) {
		if line = oneLine(line); line != "" {
			list = append(list, line)
		}
	}
	return strings.Join(list[max(0, len(list)-n):], "\n  ")
}

func writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(name), err)
	}
	return renameio.WriteFile(name, data, 0o644)
}

func readJSON(name string, v any) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxErrand+1))
	if err != nil {
		return err
	}
	if len(data) > maxErrand {
		return fmt.Errorf("%s is larger than %d MiB", name, maxErrand>>20)
	}
	return json.Unmarshal(data, v)
}
