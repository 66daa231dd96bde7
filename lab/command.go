package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"lab/kernel"
)

// A Command is a test that needs no kernel: a program of the user's, run on the
// host for each commit of any git repository, by the convention of git bisect
// run (git-bisect(1)): status 0 is good; 125 cannot judge; any other up to 127 is
// bad; 128 and above, or death by a signal, end the bisect.
//
// It runs with the user's environment and LAB_COMMIT, the full hash of the
// commit; with nothing to read; in a process group of its own, which does not
// outlive it.
type Command struct {
	Shell string   `json:",omitempty"` // a line for /bin/sh, or
	Args  []string `json:",omitempty"` // a program and its arguments
	// NoCheckout has it run in Dir. Else it runs in lab's own work tree, in
	// which the commit is checked out; see kernel.Tree.Checkout.
	NoCheckout bool          `json:",omitempty"`
	Dir        string        `json:",omitempty"`
	Timeout    time.Duration `json:",omitempty"` // 0: it may take as long as it likes
}

// String is the command as a line for a shell.
func (c Command) String() string {
	if c.Shell != "" {
		return c.Shell
	}
	quoted := make([]string, len(c.Args))
	for i, a := range c.Args {
		quoted[i] = a
		if a == "" || strings.ContainsAny(a, " \t\n\"'\\$;&|<>()*?[]#~`!{}") {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// argv is what is run: in either case a shell, so that a program that is not
// there or not executable is told in one way, by the status 127 or 126.
func (c Command) argv() []string {
	if c.Shell != "" {
		return []string{"/bin/sh", "-c", c.Shell}
	}
	return append([]string{"/bin/sh", "-c", `exec "$0" "$@"`}, c.Args...)
}

// Validate names the first thing that cannot be.
func (c Command) Validate() error {
	switch {
	case (strings.TrimSpace(c.Shell) == "") == (len(c.Args) == 0 || c.Args[0] == ""):
		return errors.New("no command to run for each commit")
	case c.Timeout < 0 || c.Timeout > longest:
		return fmt.Errorf("a timeout is not between 0 and %s", longest)
	}
	return nil
}

// commands is the axis of the commits of any git repository, with a command of
// the user's for a test.
type commands struct {
	history
	command Command
}

// openCommands finds the repository of a spec with a Command.
func (l *Lab) openCommands(ctx context.Context, s Spec) (*commands, error) {
	l.Progress.Show("opening %s", s.Kernel.Repo)
	defer l.Progress.Show("")
	dir, err := l.repository(ctx, s.Kernel.Repo)
	if err != nil {
		return nil, err
	}
	tree, err := kernel.OpenCheckout(ctx, l.Cache, dir, 0)
	if err != nil {
		return nil, err
	}
	return &commands{history{Lab: l, tree: tree}, *s.Command}, nil
}

// checkCommand is an error where the command is not there: on an end that is
// tested first, or beside it, that is the user's slip, and no verdict.
func (b *bisection) checkCommand(t Trial, r Tested) error {
	if b.commands == nil || r.Role != RoleEnd || t.End != EndTest || t.Result.Exit != 126 && t.Result.Exit != 127 {
		return nil
	}
	first := slices.ContainsFunc(b.journal.records, func(r record) bool { return r.Tested != nil && b.isFirst(r.Tested.Commit) })
	if !first || b.isFirst(r.Commit) {
		return fmt.Errorf("the command cannot be run on %s, which is tested first: exit status %d%s", name(r.Commit), t.Result.Exit, quoted(t.Detail))
	}
	return nil
}

// sameTree finds an earlier test of the same files.
func (b *bisection) sameTree(r Tested) *Tested {
	if r.Tree == "" || own(r.Role) != "" {
		return nil
	}
	for _, e := range b.journal.records {
		if t := e.Tested; t != nil && t.Tree == r.Tree && own(t.Role) == "" && t.Inferred == "" {
			return t
		}
	}
	return nil
}

// isFirst tells whether a commit is one of the ends that are tested before all
// else, of which it shows whether the command can be run at all.
func (b *bisection) isFirst(c kernel.Commit) bool {
	if len(b.result.Good) == 0 {
		return c.Hash == b.result.Bad.Hash
	}
	return slices.ContainsFunc(b.result.Good, func(g kernel.Commit) bool { return g.Hash == c.Hash })
}

// trial runs the command on a commit.
func (a *commands) trial(ctx context.Context, c kernel.Commit) (Trial, error) {
	return a.trialIn(ctx, c, 0)
}

// trialIn runs the command on a commit, in the work tree of a slot.
func (a *commands) trialIn(ctx context.Context, c kernel.Commit, slot int) (t Trial, err error) {
	defer a.show(c.Hash, "")
	t.Kernel.Commit = c.Hash
	if a.command.NoCheckout {
		err = a.run(ctx, a.command.Dir, c, nil, &t)
		return t, err
	}
	a.show(c.Hash, "checking out %s", short(c.Hash))
	tree := a.tree
	if slot > 0 {
		if tree, err = kernel.OpenCheckout(ctx, a.Cache, tree.Repository(), slot); err != nil {
			return t, err
		}
		defer tree.Close()
	}
	waiting := func(holder string) {
		a.Progress.Say("  %s: waiting for the work tree, in use by %s", short(c.Hash), holder)
	}
	err = tree.Checkout(ctx, c.Hash, waiting, func(dir string, lock *os.File) error {
		err := a.run(ctx, dir, c, lock, &t)
		if err == nil && t.End == EndTimeout {
			err = errKilled
		}
		return err
	})
	if errors.Is(err, errKilled) {
		err = nil
	}
	return t, err
}

// errKilled tells that the command may have left half of a file.
var errKilled = errors.New("the command was killed")

// run runs the command once, in a folder, and puts what came of it into t.
func (a *commands) run(ctx context.Context, dir string, c kernel.Commit, lock *os.File, t *Trial) error {
	show := func(line string) { a.show(c.Hash, "running on %s: %s", short(c.Hash), line) }
	show(oneLine(a.command.String()))
	timed, cancel := ctx, context.CancelFunc(func() {})
	if a.command.Timeout > 0 {
		timed, cancel = context.WithTimeout(ctx, a.command.Timeout)
	}
	defer cancel()
	argv := a.command.argv()
	cmd := inGroup(timed, argv)
	stdout, stderr := &output{line: show}, &output{line: show}
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, stdout, stderr
	cmd.Env = commandEnv(os.Environ(), dir, c.Hash, a.command.NoCheckout)
	if lock != nil {
		cmd.ExtraFiles = []*os.File{lock}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", a.command, err)
	}
	err := cmd.Wait()
	// What it left running in its group: it would disturb the next commit's test.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	t.Test = time.Since(start)
	t.Result.Stdout, t.Result.Stderr = stdout.bytes(), stderr.bytes()
	t.Result.Truncated = stdout.left > 0 || stderr.left > 0
	t.Result.Started, t.Result.Complete = true, true
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if timed.Err() != nil && err != nil {
		t.End, t.Result.TimedOut, t.Result.Exit = EndTimeout, true, -1
		t.Detail = fmt.Sprintf("the command was still running after %s", a.command.Timeout)
		return nil
	}
	if cmd.ProcessState == nil {
		return fmt.Errorf("run %s: %w", a.command, err)
	}
	t.End, t.Detail = EndTest, lastLine(t.Result.Stderr, t.Result.Stdout)
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	t.Result.Exit = status.ExitStatus()
	what := fmt.Sprintf("exited with status %d", t.Result.Exit)
	if status.Signaled() {
		what = fmt.Sprintf("was ended by a signal (%s)", status.Signal())
	}
	if status.Signaled() || t.Result.Exit >= 128 {
		return fmt.Errorf("the command %s on %s, which is no verdict (as git bisect run has it) and ends the bisect; the same call goes on here; where that is bad, have the command say so: CMD || exit 1%s", what, name(c), quoted(t.Detail))
	}
	return nil
}

// inGroup is a command with a process group of its own, which is told to end with
// ctx and, as far as its first process goes, with us. The thread that starts it
// has to stay: the death signal comes when that one dies.
func inGroup(ctx context.Context, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func quoted(line string) string {
	if line == "" {
		return ""
	}
	return "\n  it said: " + line
}

// commandEnv is the environment of a command: the user's, without what would
// have a git that it calls look anywhere but into its folder (git rev-parse
// --local-env-vars).
func commandEnv(user []string, dir, hash string, keep bool) []string {
	env := slices.Clone(user)
	if !keep {
		env = slices.DeleteFunc(env, func(kv string) bool {
			key, _, _ := strings.Cut(kv, "=")
			return slices.Contains(localGit, key)
		})
	}
	if abs, err := filepath.Abs(dir); err == nil {
		env = append(env, "PWD="+abs)
	}
	return append(env, "LAB_COMMIT="+hash)
}

var localGit = []string{
	"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT", "GIT_OBJECT_DIRECTORY",
	"GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS",
	"GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR", "GIT_INTERNAL_SUPER_PREFIX",
}

// lastLine is the last line that says something, in the first text that has one.
func lastLine(texts ...[]byte) string {
	for _, text := range texts {
		lines := strings.Split(string(text[max(0, len(text)-4096):]), "\n")
		for _, line := range slices.Backward(lines) {
			if line = oneLine(line); line != "" {
				return line
			}
		}
	}
	return ""
}

// half of what is kept of each of a command's outputs: its beginning and its end.
const half = 1 << 20

// output keeps the beginning and the end of what is written to it.
type output struct {
	line func(string) // told of the last whole line of each write
	head []byte
	tail []byte // of what came behind the head, with up to half that is too much
	left int64  // bytes that are left out between the two
}

func (o *output) Write(b []byte) (int, error) {
	n := len(b)
	if whole := strings.LastIndexByte(string(b), '\n'); whole > 0 {
		if line := lastLine(b[:whole]); line != "" {
			o.line(line)
		}
	}
	room := min(half-len(o.head), len(b))
	o.head = append(o.head, b[:room]...)
	o.tail = append(o.tail, b[room:]...)
	if over := len(o.tail) - half; over > half {
		o.tail = append(o.tail[:0], o.tail[over:]...)
		o.left += int64(over)
	}
	return n, nil
}

func (o *output) bytes() []byte {
	tail := o.tail
	if over := len(tail) - half; over > 0 {
		tail = tail[over:]
		o.left += int64(over)
		o.tail = tail
	}
	if o.left == 0 {
		return slices.Concat(o.head, tail)
	}
	return slices.Concat(o.head, []byte(fmt.Sprintf("\n[lab: %d bytes are left out here]\n", o.left)), tail)
}
