package lab

import (
	"context"
	"errors"
	"io"
	"time"

	"lab/kernel/console"
	"lab/probe"
)

// ShellOptions say how an interactive command is connected.
type ShellOptions struct {
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
	if len(s.Test.Command) == 0 {
		s.Test.Command = []string{"/bin/sh"}
	}
	s.Test.Terminal = &o.Terminal
	if err := s.Validate(); err != nil {
		return Trial{}, err
	}
	if s.Machine.Exact {
		return Trial{}, errors.New("an exact machine waits for nobody: a shell goes without --exact")
	}
	if s.Test.Runtime != "" {
		return Trial{}, errors.New("a real engine is not connected with the caller: a shell goes without --runtime")
	}
	if s.Test.Timeout = o.Timeout; o.Timeout == 0 {
		s.Test.Timeout = forever
	}
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
	return t, l.talk(ctx, s, g, o, &t)
}

// talk boots the trial's kernel with the guest, and stays connected to its end.
func (l *Lab) talk(ctx context.Context, s Spec, g *guest, o ShellOptions, t *Trial) error {
	if ok, err := checkConfig(s, t); !ok {
		return err
	}
	m, f, err := g.machine(s, t.Kernel)
	if err != nil {
		return err
	}
	defer f.Close()
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
	return watch(ctx, m, vm, log, start, s.Machine.BootTimeout, s.Test.Timeout, o.Talk, t)
}
