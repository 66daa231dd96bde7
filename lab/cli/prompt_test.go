package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lab/lab"
)

// terminal gives both sides of a pseudoterminal: see pts(4).
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

var question = regexp.MustCompile(`change (\d+) is: good, bad, skip, retry, back or exit\? (?:\[(\w+)\] )?$`)

// converse runs lab on a terminal, answers each question, and gives what lab
// said, its result and its exit code.
func converse(t *testing.T, home string, reply func(change int, suggested string) string, args ...string) (said, stdout string, code int) {
	t.Helper()
	master, slave := terminal(t)
	cmd := labCmd(home, args...)
	cmd.Env = append(cmd.Env, "TERM=dumb")
	var out bytes.Buffer
	cmd.Stdin, cmd.Stderr, cmd.Stdout = slave, slave, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var all, asked strings.Builder
	buf, questions := make([]byte, 4096), 0
	for {
		n, err := master.Read(buf)
		all.Write(buf[:n])
		asked.Write(buf[:n])
		if m := question.FindStringSubmatch(asked.String()); m != nil {
			asked.Reset()
			change, _ := strconv.Atoi(m[1])
			text := reply(change, m[2])
			if questions++; questions > 50 {
				text = "exit"
			}
			if _, err := fmt.Fprintln(master, text); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil { // EIO, when lab has let go of the other side
			break
		}
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return all.String(), out.String(), cmd.ProcessState.ExitCode()
}

// TestPrompt has somebody judge kernels that lab only builds, and then say
// something else than the test.
func TestPrompt(t *testing.T) {
	home := t.TempDir()
	killedRepo(t, home, 17, 100) // all of them build
	args := []string{"bisect", "--repo", "linux", "--good", "good", "--bad", "main", "--config", "tiny", "--prompt", "--dir", "state"}
	const culprit = 6
	truth := func(change int) string {
		if change >= culprit {
			return "bad"
		}
		return "good"
	}
	var asked []int
	said, _, code := converse(t, home, func(change int, suggested string) string {
		asked = append(asked, change)
		if suggested != "" {
			t.Errorf("change %d: %s is suggested, and nothing was tested", change, suggested)
		}
		switch len(asked) {
		case 1:
			return "back" // there is nothing yet
		case 2:
			return "what?"
		case 4:
			return "r"
		case 6:
			return "good" // which is not so,
		case 7:
			return "back" // and taken back
		case 9:
			return "exit"
		}
		return truth(change)
	}, args...)
	if code != 130 || !strings.Contains(said, "the same command goes on") {
		t.Errorf("exit status %d after\n%s", code, said)
	}
	for _, want := range []string{"there is no verdict yet to take back", "skip: it cannot be said", "kernel: " + filepath.Join(home, ".cache")} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in\n%s", want, said)
		}
	}
	if fmt.Sprint(asked) != "[0 0 0 16 16 8 12 8 4]" {
		t.Errorf("asked of %v in\n%s", asked, said)
	}
	asked = nil
	said, stdout, code := converse(t, home, func(change int, _ string) string {
		asked = append(asked, change)
		return strings.Replace(truth(change), "good", "g", 1)
	}, args...)
	if code != 0 || !strings.Contains(stdout, fmt.Sprintf("change %d\n", culprit)) || !strings.Contains(stdout, "given by hand: ") {
		t.Errorf("exit status %d, %s\n%s", code, stdout, said)
	}
	if fmt.Sprint(asked) != "[4 6 5]" {
		t.Errorf("asked of %v in\n%s", asked, said)
	}

	// What the test says is suggested, and Enter takes it.
	said, stdout, code = converse(t, home, func(change int, suggested string) string {
		if suggested != "good" {
			t.Errorf("change %d: %s is suggested", change, suggested)
		}
		if change >= culprit {
			return "bad"
		}
		return ""
	}, append(args[:len(args)-1:len(args)-1], "other", "--symptom", "build")...)
	if code != 0 || !strings.Contains(stdout, fmt.Sprintf("change %d\n", culprit)) || !strings.Contains(stdout, "by hand, where the test says good: builds") {
		t.Errorf("exit status %d, %s\n%s", code, stdout, said)
	}

	// Without a terminal there is nobody to ask.
	if _, stderr := runLab(t, home, ExitUsage, args...); !strings.Contains(stderr, "standard input is none") {
		t.Errorf("without a terminal: %s", stderr)
	}
}

func TestUnderstand(t *testing.T) {
	for text, want := range map[string]lab.Reply{"g": "good", "good": "good", "ba": "", "bad": "bad", "b": "", "bac": lab.ReplyBack, "s": "skip", "e": lab.ReplyExit, "": "", "goods": ""} {
		got, why := understand(text)
		if got != want || (got == "") != (why != "") {
			t.Errorf("%q: %q (%s), want %q", text, got, why, want)
		}
	}
}
