package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

// whichBisect ends the help of the commands that act on a bisect's folder.
const whichBisect = `

Without --dir the bisect is the one below $XDG_STATE_HOME/lab/bisects that was touched
last; lab says which that is, and which others have no answer yet.`

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "act on the bisect whose state is in `DIR`", DefaultText: "the bisect that was touched last"}
}

// stateCommands act on a bisect, from any terminal, while it runs or not.
func stateCommands() []*cli.Command {
	return []*cli.Command{
		bisectStatusCommand(), bisectVisualizeCommand(), bisectLogCommand(),
		bisectMarkCommand(lab.Good), bisectMarkCommand(lab.Bad), bisectMarkCommand(lab.Skip), bisectUndoCommand(), bisectReplayCommand(),
	}
}

// bisectDir finds the folder of the bisect that a command is about.
func bisectDir(c *cli.Context) (string, error) {
	for _, ctx := range c.Lineage() {
		if ctx.Command != nil && ctx.String("dir") != "" {
			return ctx.String("dir"), nil
		}
	}
	l := theLab(c)
	list, err := l.Bisects()
	if err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "", fmt.Errorf("there is no bisect below %s: begin one with lab bisect, or name its folder with --dir", filepath.Join(l.State, "bisects"))
	}
	var others []string
	for _, d := range list[1:] {
		if d.Running || !d.Ended {
			others = append(others, "  "+bisectLine(d))
		}
	}
	if len(others) > 0 {
		l.Progress.Say("the bisect that was touched last, %s; others without an answer, for --dir:\n%s", bisectLine(list[0]), strings.Join(others, "\n"))
	}
	return list[0].Dir, nil
}

func bisectLine(d lab.BisectDir) string {
	s := d.Dir + ", touched " + d.Touched.Format("2006-01-02 15:04:05")
	if d.Running {
		s += ", running"
	}
	return s
}

// withSaved is the action of a command that looks at a bisect, and takes no arguments.
func withSaved(look func(*cli.Context, *lab.Saved) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.Args().Present() {
			return usagef("unexpected argument %q", c.Args().First())
		}
		dir, err := bisectDir(c)
		if err != nil {
			return err
		}
		s, err := lab.OpenSaved(dir)
		if err != nil {
			return err
		}
		defer s.Close()
		return look(c, s)
	}
}

// edited opens the bisect that a command adds to, and says which it is.
func edited(c *cli.Context) (*lab.Saved, error) {
	dir, err := bisectDir(c)
	if err != nil {
		return nil, err
	}
	s, err := lab.EditSaved(dir)
	if err == nil {
		theLab(c).Progress.Say("bisect: %s", dir)
	}
	return s, err
}

// called is how a candidate is spoken of: a commit by hash and title.
func called(hash, title string) string {
	if strings.HasPrefix(hash, "sha256:") {
		return title
	}
	return fmt.Sprintf("%.12s %s", hash, plainText(title))
}

// plainText keeps what others wrote from speaking to the terminal.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// shellWords quotes a command for a shell where that is needed.
func shellWords(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = a
		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%^~", r)
		}) {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// goOn says how a bisect goes on.
func goOn(b lab.Begun) string {
	if len(b.Command) == 0 {
		return "start it again as you did"
	}
	command := shellWords(b.Command)
	if here, err := os.Getwd(); err != nil || here != b.Folder {
		command = "cd " + shellWords([]string{b.Folder}) + " && " + command
	}
	return command
}

func ago(t time.Time) string {
	d := time.Since(t)
	if d < time.Minute {
		return fmt.Sprintf("%d s ago", max(0, int(d.Seconds())))
	}
	return ageText(d) + " ago"
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
