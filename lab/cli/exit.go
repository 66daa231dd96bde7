package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"lab/lab"
)

// Exit codes. git bisect run reads 0 as good, 125 as skip, 1 to 127 as bad,
// and stops at 128 and above: see EXIT STATUS in git-bisect(1).
const (
	ExitGood    = 0   // good, reproduced, done
	ExitBad     = 1   // bad, different
	ExitSkip    = 125 // cannot judge
	ExitFailure = 128 // lab could not do its work, or refused its input
	ExitUsage   = 129 // the command line is wrong
)

// exitStatus is the paragraph that every command's help ends with.
const exitStatus = `EXIT STATUS
   0    good, reproduced, done
   1    bad, different
   125  cannot judge (does not build, does not boot, only skipped commits left)
   128  lab could not do its work, or refused its input
   129  the command line is wrong
   130, 143  interrupted, terminated`

// An outcome is a result that is no error but has an exit code of its own.
type outcome int

func (o outcome) Error() string { return fmt.Sprintf("exit status %d", int(o)) }

// result gives nil for 0 and an outcome else, for an Action to return.
func result(code int) error {
	if code == ExitGood {
		return nil
	}
	return outcome(code)
}

// A usageError is the user's slip on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// An interrupt is why a context was cancelled by a signal.
type interrupt struct{ signal os.Signal }

func (i *interrupt) Error() string { return i.signal.String() }

// code maps every way a command can end to its exit code, and says what is to
// be said. It is the only place that does.
func code(ctx context.Context, err error) (int, string) {
	var stop *interrupt
	var o outcome
	var u *usageError
	switch {
	case err == nil:
		return ExitGood, ""
	case errors.As(err, &o):
		return int(o), ""
	case errors.As(err, &u):
		return ExitUsage, u.text
	case errors.Is(err, lab.ErrStopped):
		return 128 + int(syscall.SIGINT), err.Error()
	case strings.HasPrefix(err.Error(), "No help topic for"): // urfave's, which has no type of its own
		return ExitUsage, err.Error()
	case errors.As(err, &stop), errors.As(context.Cause(ctx), &stop):
		if s, ok := stop.signal.(syscall.Signal); ok {
			return 128 + int(s), "stopped: " + s.String()
		}
	}
	text := err.Error()
	if h := hint(err); h != "" {
		text += "\n  " + h
	}
	return ExitFailure, text
}
