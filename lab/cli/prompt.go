package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"lab/lab"
)

// A prompter asks on a terminal for the verdicts of a bisect.
type prompter struct {
	l     *lab.Lab
	w     io.Writer
	lines chan string // what is typed; closed at its end
}

// replies are what may be typed: the word, or as much of it as is like no other.
var replies = []lab.Reply{
	lab.Reply(lab.Good), lab.Reply(lab.Bad), lab.Reply(lab.Skip), lab.ReplyRetry, lab.ReplyBack, lab.ReplyExit,
}

func newPrompter(l *lab.Lab, w io.Writer) (*prompter, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, usagef("--prompt asks on a terminal, and standard input is none")
	}
	p := &prompter{l: l, w: w, lines: make(chan string)}
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			p.lines <- in.Text()
		}
		close(p.lines)
	}()
	return p, nil
}

// ask is a lab.BisectOptions.Ask.
func (p *prompter) ask(ctx context.Context, q lab.Question) (lab.Reply, error) {
	p.l.Progress.Show("")
	suggested := lab.Reply(q.Said.Mark)
	if q.Trial.End == lab.EndBuilt && q.Said.Mark == lab.Skip {
		suggested = ""
		fmt.Fprintf(p.w, "  not booted; boot it, and say what you see:\n    kernel: %s\n", q.Trial.Kernel.Image)
		for _, m := range q.Trial.Kernel.Modules {
			fmt.Fprintf(p.w, "    module: %s\n", m)
		}
	} else {
		fmt.Fprintf(p.w, "  the test says %s: %s\n", q.Said.Mark, q.Said.Reason)
		if q.Dir != "" {
			fmt.Fprintf(p.w, "    what it saw: %s\n", q.Dir)
		}
	}
	for {
		question := fmt.Sprintf("  %s is: good, bad, skip, retry, back or exit? ", called(q.Commit.Hash, q.Commit.Title))
		if suggested != "" {
			question += fmt.Sprintf("[%s] ", suggested)
		}
		fmt.Fprint(p.w, question) // at once: programs read it too
		var text string
		select {
		case <-ctx.Done():
			fmt.Fprintln(p.w)
			return "", context.Cause(ctx)
		case line, more := <-p.lines:
			if !more {
				fmt.Fprintln(p.w)
				return lab.ReplyExit, nil
			}
			text = strings.ToLower(strings.TrimSpace(line))
		}
		if text == "" && suggested != "" {
			return suggested, nil
		}
		reply, why := understand(text)
		if reply == lab.ReplyBack && !q.CanBack {
			reply, why = "", "there is no verdict yet to take back"
		}
		if reply != "" {
			return reply, nil
		}
		fmt.Fprintf(p.w, "  %s\n", why)
	}
}

// understand finds the reply that a text begins.
func understand(text string) (reply lab.Reply, why string) {
	for _, r := range replies {
		switch {
		case text == "" || !strings.HasPrefix(string(r), text):
		case reply != "":
			return "", fmt.Sprintf("%s could be %s or %s", text, reply, r)
		default:
			reply = r
		}
	}
	if reply == "" {
		why = "good: the symptom is not there; bad: it is; skip: it cannot be said; retry: test again;\n" +
			"  back: take back the verdict before; exit: stop here, and go on another time"
	}
	return reply, why
}
