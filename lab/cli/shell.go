package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"lab/lab"
	"lab/probe"
	"lab/probe/wire"
)

func shellCommand() *cli.Command {
	return &cli.Command{
		Name:      "shell",
		Usage:     "boot one kernel and work in the container by hand",
		ArgsUsage: "[-- COMMAND [ARG...]]",
		Description: `Boots a kernel as lab run does, and connects /bin/sh, or COMMAND, in the container
with this terminal: its size is followed, Ctrl-C and job control work in the guest.
Where standard input is no terminal, there is none in the container: a script comes
in, and stdout and stderr stay apart. What is written is gone with the guest.

The line ~. ends the guest at once (~ counts at the beginning of a line only; ~~ is
one ~). There is no time limit unless --timeout says one. The kernel's own messages
are shown with --console, and their end where the kernel dies.

What the guest writes goes to this terminal as it is: an image that is not trusted
can do what escape sequences can do. --runtime and --exact have no shell.

The exit status is the command's; 125 where the guest does not get to it or the kernel
dies, 130 after ~. .

EXAMPLES
   lab shell --kernel bzImage --image docker://127.0.0.1:5000/app:1
   lab shell --repo ~/linux --commit v6.1.150 --image rootfs:app.tar --privileged
   lab shell --kernel bzImage --image rootfs:app.tar -- su -c id
   lab shell --kernel bzImage --image rootfs:app.tar < script.sh`,
		Flags: slices.Concat(oneKernelFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "console", Usage: "show what the kernel says, on stderr", Category: catOutput},
		}, kernelFlags(), testFlags()),
		Action: func(c *cli.Context) error {
			s, err := runSpec(c)
			if err != nil {
				return err
			}
			switch {
			case s.Machine.Exact:
				return usagef("--exact has no shell: such a guest waits for nobody")
			case s.Test.Runtime != "":
				return usagef("--runtime has no shell: lab's own agent runs it")
			}
			return runShell(c, s)
		},
	}
}

func runShell(c *cli.Context, s lab.Spec) error {
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	l := theLab(c)
	o := lab.ShellOptions{Talk: &probe.Talk{In: os.Stdin, Out: c.App.Writer, Err: c.App.ErrWriter, Ready: func() { l.Progress.Show("") }}}
	if c.IsSet("timeout") {
		o.Timeout = s.Test.Timeout
	}
	if c.Bool("console") {
		o.Console = c.App.ErrWriter
	}
	in := int(os.Stdin.Fd())
	restore := func() {}
	if term.IsTerminal(in) {
		sizes, stop := windowSizes(in)
		defer stop()
		o.Terminal.TTY = true
		select {
		case o.Terminal.Window = <-sizes:
		default: // it has none
		}
		if name := os.Getenv("TERM"); name != "" {
			s.Test.Env = append([]string{"TERM=" + name}, s.Test.Env...)
		}
		o.Talk.Sizes = sizes
		o.Talk.In = &escape{in: os.Stdin, quit: func() { cancel(fmt.Errorf("the guest was ended by ~.: %w", lab.ErrStopped)) }}
		o.Talk.Ready = func() {
			l.Progress.Show("")
			l.Progress.Say("in the guest; ~. at the beginning of a line ends it")
			if state, err := term.MakeRaw(in); err == nil {
				restore = sync.OnceFunc(func() { _ = term.Restore(in, state) })
				// At the first signal: a second one does not wait for us.
				context.AfterFunc(ctx, restore)
			}
		}
	}
	defer func() { restore() }()
	t, err := l.Shell(ctx, s, o)
	restore()
	if err != nil {
		return err
	}
	if t.End == lab.EndTest {
		return result(t.Result.Exit)
	}
	l.Progress.Say("%s: %s", t.End, t.Detail)
	showOutput(l, t, lab.Verdict{Mark: lab.Skip})
	return result(ExitSkip)
}

// windowSizes gives the size of a terminal, now and whenever it changes. What is not
// taken is replaced by what comes later.
func windowSizes(fd int) (sizes chan wire.Window, stop func()) {
	sizes = make(chan wire.Window, 1)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGWINCH)
	send := func() {
		cols, rows, err := term.GetSize(fd)
		if err != nil {
			return
		}
		select {
		case <-sizes:
		default:
		}
		sizes <- wire.Window{Rows: uint16(min(max(rows, 0), 1<<16-1)), Cols: uint16(min(max(cols, 0), 1<<16-1))}
	}
	send()
	go func() {
		for range signals {
			send()
		}
		close(sizes)
	}()
	return sizes, func() { signal.Stop(signals); close(signals) }
}

// escape passes on what is typed but for the escapes of ssh(1): ~. at the beginning of
// a line calls quit and ends the input, ~~ is one ~.
type escape struct {
	in    io.Reader
	quit  func()
	begun bool // the line has characters
	tilde bool // and it began with a ~ that is held back
	ended bool
}

func (e *escape) Read(p []byte) (int, error) {
	if e.ended {
		return 0, io.EOF
	}
	buf := make([]byte, max(1, len(p)/2)) // a held ~ may come out with what follows
	n, err := e.in.Read(buf)
	var out bytes.Buffer
	for _, b := range buf[:n] {
		if e.tilde {
			e.tilde = false
			if b == '.' {
				e.ended = true
				e.quit()
				return copy(p, out.Bytes()), io.EOF
			}
			out.WriteByte('~')
			if b == '~' {
				continue
			}
		} else if b == '~' && !e.begun {
			e.tilde, e.begun = true, true
			continue
		}
		e.begun = b != '\r' && b != '\n'
		out.WriteByte(b)
	}
	return copy(p, out.Bytes()), err
}
