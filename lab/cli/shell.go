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
	"lab/lab/bundle"
	"lab/probe"
	"lab/probe/wire"
)

func shellCommand() *cli.Command {
	return &cli.Command{
		Name:      "shell",
		Usage:     "boot one kernel and work in the container by hand",
		ArgsUsage: "[BUNDLE --good|--bad] [-- COMMAND [ARG...]]",
		Description: `Boots a kernel as lab run does, and connects /bin/sh, or COMMAND, in the container
with this terminal: its size is followed, Ctrl-C and job control work in the guest.
Where standard input is no terminal, there is none in the container: a script comes
in, and stdout and stderr stay apart. What is written is gone with the guest.

With --guest it is a shell in the guest itself: root with all capabilities, in no
namespace, control group or filter of its own, as if nobody had made a container.
Where there is a --base that is its root, with the container's files in
/containers/NAME/rootfs (test is the NAME of --image); else the container's files are,
with the guest's /dev, /proc and /sys. Engines of the base can be tried by hand.

With a BUNDLE it is that one's kernel, --good or --bad, with its disk, machine, boot
options and container. It is verified and confined as by lab reproduce: a FILE, an
http:// or https:// URL, or the REF of one in a registry or layout.

The line ~. ends the guest at once (~ counts at the beginning of a line only; ~~ is
one ~). There is no time limit unless --timeout says one. The kernel's own messages
are shown with --console, and their end where the kernel dies.

What the guest writes goes to this terminal as it is: an image or a bundle that is
not trusted can do what escape sequences can do. --exact has no shell, and --runtime
one with --guest only.

The exit status is the command's; 125 where the guest does not get to it or the kernel
dies, 130 after ~. .

EXAMPLES
   lab shell --kernel bzImage --image docker://127.0.0.1:5000/app:1
   lab shell --repo ~/linux --commit v6.1.150 --image rootfs:app.tar --privileged
   lab shell --kernel bzImage --image rootfs:app.tar -- su -c id
   lab shell --kernel bzImage --image rootfs:app.tar < script.sh
   lab shell bundle.tar --bad
   lab shell bundle.tar --good -- su -c id
   lab shell --guest --kernel bzImage --image rootfs:app.tar --base rootfs:debian.tar`,
		Flags: slices.Concat(oneKernelFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "guest", Usage: "in the guest itself, not in the container", Category: catTest},
			&cli.BoolFlag{Name: "console", Usage: "show what the kernel says, on stderr", Category: catOutput},
			&cli.BoolFlag{Name: bundle.RoleGood, Usage: "boot the bundle's good kernel", Category: catBundle},
			&cli.BoolFlag{Name: bundle.RoleBad, Usage: "boot the bundle's bad kernel", Category: catBundle},
			&cli.BoolFlag{Name: bundle.RoleCulprit, Usage: "boot the bundle's kernel of the first bad commit, where it is another one", Category: catBundle},
			&cli.BoolFlag{Name: bundle.RoleParent, Usage: "boot the bundle's kernel of that one's parent, where it is another one", Category: catBundle},
			verifyFlag(), allowKVMFlag(catBundle),
		}, kernelFlags(), testFlags()),
		Action: func(c *cli.Context) error {
			if places := beforeDashes(c); len(places) > 0 {
				return shellOfBundle(c, places)
			}
			for _, name := range ofBundles {
				if c.IsSet(name) {
					return usagef("--%s goes with a bundle: lab shell bundle.tar --bad", name)
				}
			}
			s, err := runSpec(c)
			if err != nil {
				return err
			}
			switch {
			case s.Machine.Exact:
				return usagef("--exact has no shell: such a guest waits for nobody")
			case s.Test.Runtime != "" && !c.Bool("guest"):
				return usagef("--runtime has no shell but in the guest itself, with --guest: there it can be run by hand")
			}
			for _, f := range containerFlags() {
				if name := f.Names()[0]; c.Bool("guest") && c.IsSet(name) && !slices.Contains(ofGuest, name) {
					return usagef("--%s is for the container, and --guest does not make it", name)
				}
			}
			return runShell(c, func(ctx context.Context, o lab.ShellOptions) (lab.Trial, error) {
				return theLab(c).Shell(ctx, s, o)
			})
		},
	}
}

// roles are the bundle's kernels that there are flags for.
var roles = []string{bundle.RoleGood, bundle.RoleBad, bundle.RoleCulprit, bundle.RoleParent}

// ofBundles are the flags that go with a bundle only.
var ofBundles = append([]string{"verify", "allow-kvm"}, roles...)

// ofGuest are those of containerFlags that go with --guest.
var ofGuest = []string{"env", "cgroup", "selinux-policy", "timeout"}

// withBundles are the other flags that may stand beside one. All else the bundle says.
var withBundles = []string{"guest", "console", "timeout", "qemu", "registry-mirror", "plain-http"}

// shellOfBundle is lab shell with the arguments that stand before "--".
func shellOfBundle(c *cli.Context, places []string) error {
	if len(places) > 1 {
		return usagef("unexpected argument %q: a command to run stands behind --", places[1])
	}
	if places[0] == "-" {
		return usagef("standard input is the shell's: keep the bundle in a file")
	}
	s := lab.BundleShell{Command: c.Args().Slice()[1:], QEMU: c.String("qemu"), AllowKVM: c.Bool("allow-kvm")}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if c.IsSet(name) && !slices.Contains(ofBundles, name) && !slices.Contains(withBundles, name) {
			return usagef("--%s does not go with a bundle, which has it recorded", name)
		}
	}
	var err error
	if s.Role, err = oneRole(c); err != nil {
		return err
	}
	from, err := bundleSource(c, places[0])
	if err != nil {
		return err
	}
	return runShell(c, func(ctx context.Context, o lab.ShellOptions) (lab.Trial, error) {
		return theLab(c).ShellBundle(ctx, from, s, o)
	})
}

// runShell connects what shell boots with the standard streams.
func runShell(c *cli.Context, shell func(context.Context, lab.ShellOptions) (lab.Trial, error)) error {
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	l := theLab(c)
	o := lab.ShellOptions{Talk: &probe.Talk{In: os.Stdin, Out: c.App.Writer, Err: c.App.ErrWriter, Ready: func(probe.Container) { l.Progress.Show("") }}}
	o.Guest = c.Bool("guest")
	if c.IsSet("timeout") {
		o.Timeout = c.Duration("timeout")
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
			o.Env = []string{"TERM=" + name}
		}
		o.Talk.Sizes = sizes
		o.Talk.In = &escape{in: os.Stdin, quit: func() { cancel(fmt.Errorf("the guest was ended by ~.: %w", lab.ErrStopped)) }}
		o.Talk.Ready = func(k probe.Container) {
			l.Progress.Show("")
			l.Progress.Say("%s; ~. at the beginning of a line ends it", whereabouts(k))
			if state, err := term.MakeRaw(in); err == nil {
				restore = sync.OnceFunc(func() { _ = term.Restore(in, state) })
				// At the first signal: a second one does not wait for us.
				context.AfterFunc(ctx, restore)
			}
		}
	}
	defer func() { restore() }()
	t, err := shell(ctx, o)
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

// whereabouts says where the shell is.
func whereabouts(k probe.Container) string {
	switch k.Guest {
	case "":
		return "in the container"
	case "/":
		return "in the guest itself, at the root of the container's files"
	}
	return "in the guest itself, in its base; the container's files are in " + plainText(k.Guest)
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
