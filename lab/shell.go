package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"lab/kernel/console"
	"lab/kernel/qemu"
	"lab/probe"
)

// ShellOptions say how an interactive command is connected.
type ShellOptions struct {
	Env      []string // NAME=value, for the command, where the test says nothing else
	Guest    bool     // in the guest itself, not in the container
	Terminal probe.Terminal
	Talk     *probe.Talk
	Timeout  time.Duration // 0: it may run for ever
	Console  io.Writer     // what the kernel says goes there as well, where it is not nil
}

// forever is longer than anybody sits at a shell.
const forever = 10 * 365 * 24 * time.Hour

// Shell boots the kernel of a spec with its guest, as Run does, and connects the
// command of its test with the caller instead of judging it. Trial.End says whether
// the command ran to its end; then Result.Exit is its status.
func (l *Lab) Shell(ctx context.Context, s Spec, o ShellOptions) (Trial, error) {
	if s.Machine.Exact {
		return Trial{}, errors.New("an exact machine waits for nobody: a shell goes without --exact")
	}
	if err := interactive(&s.Test, o); err != nil {
		return Trial{}, err
	}
	if err := s.Validate(); err != nil {
		return Trial{}, err
	}
	s.Test.Timeout = o.timeout()
	k, err := l.source(ctx, s)
	if err != nil {
		return Trial{}, err
	}
	defer k.Close()
	g, err := l.prepare(ctx, s, nil)
	if err != nil {
		return Trial{}, err
	}
	t, err := k.trial(ctx)
	if err != nil || t.End != EndBuilt {
		return t, err
	}
	if ok, err := checkConfig(s, &t); !ok {
		return t, err
	}
	m, f, err := g.machine(s, t.Kernel)
	if err != nil {
		return t, err
	}
	defer f.Close()
	return t, l.talk(ctx, m, s.Machine.BootTimeout, s.Test.Timeout, o, &t)
}

// interactive makes of a test one whose command, or a shell, is connected.
func interactive(test *probe.Spec, o ShellOptions) error {
	test.Guest = o.Guest
	if test.Runtime != "" && !test.Guest {
		return fmt.Errorf("%s is not connected with the caller: a shell takes a container that lab's own agent makes", test.Runtime)
	}
	if len(test.Command) == 0 {
		test.Command = []string{"/bin/sh"}
	}
	test.Env = slices.Concat(o.Env, test.Env)
	test.Terminal = &o.Terminal
	return nil
}

// timeout is that of the command.
func (o ShellOptions) timeout() time.Duration {
	if o.Timeout == 0 {
		return forever
	}
	return o.Timeout
}

// talk boots the machine with the trial's kernel, and stays connected to its end.
func (l *Lab) talk(ctx context.Context, m qemu.Machine, bootTimeout, testTimeout time.Duration, o ShellOptions, t *Trial) error {
	log := console.NewLog(consoleLimit)
	if m.Console = log; o.Console != nil {
		m.Console = io.MultiWriter(log, o.Console)
	}
	l.Progress.Show("booting %s", t.Kernel.Release)
	defer l.Progress.Show("")
	start := time.Now()
	vm, err := m.Start(ctx)
	if err != nil {
		return err
	}
	return watch(ctx, m, vm, log, start, bootTimeout, testTimeout, o.Talk, t)
}
