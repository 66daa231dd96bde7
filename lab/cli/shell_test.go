package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"lab/lab/bundle"
	"lab/lab/debiantest"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]struct {
		out  string
		quit bool
	}{
		"echo a~.b\r":    {"echo a~.b\r", false},
		"~.never":        {"", true},
		"one\r~.never":   {"one\r", true},
		"one\n~.":        {"one\n", true},
		"~~.\r":          {"~.\r", false},
		"~/bin/x\r~~~.":  {"~/bin/x\r~~.", false},
		"a\r~\r~":        {"a\r~\r", false},
		"x\r~b~.\r":      {"x\r~b~.\r", false},
		"cd ~\r~x\r~.no": {"cd ~\r~x\r", true},
	} {
		for how, r := range map[string]io.Reader{"whole": strings.NewReader(in), "bytewise": iotest.OneByteReader(strings.NewReader(in))} {
			quit := false
			out, err := io.ReadAll(&escape{in: r, quit: func() { quit = true }})
			if err != nil || string(out) != want.out || quit != want.quit {
				t.Errorf("%q %s: %q, quit %v, %v; want %q, %v", in, how, out, quit, err, want.out, want.quit)
			}
		}
	}
}

func TestShellOfABundle(t *testing.T) {
	file, cache := tinyBundle(t, nil), t.TempDir()
	engine := tinyBundle(t, func(m *bundle.Manifest, _ map[string]string) {
		m.Test.Runtime = "crun"
		m.Images = append(m.Images, m.Images[0])
		m.Images[1].Name = ""
	})
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{file + " --parent", ExitFailure, "has no parent kernel, it has good, bad"},
		{file, ExitUsage, "which of the bundle's kernels?"},
		{file + " --good --bad", ExitUsage, "--good and --bad exclude each other"},
		{file + " --bad -m 64", ExitUsage, "--memory does not go with a bundle"},
		{"--bad " + file + " more -- sh", ExitUsage, `unexpected argument "more"`},
		{"- --bad", ExitUsage, "keep the bundle in a file"},
		{"--bad", ExitUsage, "--bad goes with a bundle"},
		{"--kernel bzImage --allow-kvm -- sh", ExitUsage, "--allow-kvm goes with a bundle"},
		{engine + " --bad", ExitFailure, "crun is not connected"},
	} {
		code, _, stderr := labTest(t, cache, append([]string{"shell"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(stderr, c.says) {
			t.Errorf("lab shell %s: exit status %d, want %d with %q\n%s", c.args, code, c.code, c.says, stderr)
		}
	}
}

// pseudoTerminal makes a terminal of that size (pts(4)).
func pseudoTerminal(t *testing.T, rows, cols uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	resize(t, master, rows, cols)
	return master, slave
}

func resize(t *testing.T, master *os.File, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

// A talk is somebody at a terminal.
type talk struct {
	t      *testing.T
	master *os.File
	seen   bytes.Buffer
	at     int
}

// await reads until the text comes, behind what was awaited before.
func (d *talk) await(text string) {
	d.t.Helper()
	buf := make([]byte, 4096)
	for {
		if i := strings.Index(d.seen.String()[d.at:], text); i >= 0 {
			d.at += i + len(text)
			return
		}
		n, err := d.master.Read(buf)
		if err != nil {
			d.t.Fatalf("%q does not come: %v\n%s", text, err, d.seen.String())
		}
		d.seen.Write(buf[:n])
	}
}

func (d *talk) say(text string) {
	d.t.Helper()
	if _, err := io.WriteString(d.master, text); err != nil {
		d.t.Fatal(err)
	}
}

// TestShell works in a container by hand: with a terminal, and with a script.
func TestShell(t *testing.T) {
	needE2E(t)
	t.Parallel()
	home, image := t.TempDir(), "rootfs:"+busyboxRoot(t)
	args := []string{"shell", "--kernel", debiantest.Kernel(t), "--image", image}
	t.Run("terminal", func(t *testing.T) { shellOnTerminal(t, home, args, "in the container; ", "[ -e /proc/1/exe ]") })
	t.Run("script", func(t *testing.T) {
		cmd := labCmd(home, args...)
		var exit *exec.ExitError
		var stdout, stderr bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("echo out; echo err >&2; cat <<E\nhere\nE\nexit 9\n"), &stdout, &stderr
		if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
			t.Errorf("lab ended with %v, want exit status 9\n%s", err, stderr.String())
		}
		if stdout.String() != "out\nhere\n" || !strings.Contains(stderr.String(), "err\n") {
			t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
		}
	})
	// In the guest itself the agent is process 1, and the container's root a folder.
	t.Run("guest", func(t *testing.T) {
		shellOnTerminal(t, home, append(args, "--guest", "--base", image), "the container's files are in /containers/test/rootfs; ",
			"[ $$ != 1 ] && /bin/busybox pidof init && [ -x /containers/test/rootfs/bin/sh ] && /bin/busybox grep CapEff:.*1ffffffffff /proc/self/status")
	})
}

// shellOnTerminal works at a terminal that lab shell has; there the shell command holds.
func shellOnTerminal(t *testing.T, home string, args []string, greeting, holds string) {
	master, slave := pseudoTerminal(t, 31, 97)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := labCmd(home, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &talk{t: t, master: master}
	d.await(greeting + "~. at the beginning of a line ends it")
	d.say(holds + " && echo so=$((2+3))\r")
	d.await("so=5")
	d.say("/bin/busybox stty size; /bin/busybox tty\r")
	d.await("31 97")
	d.await("/dev/pts/0")
	// The size changes on the host, and so it does in the guest.
	resize(t, master, 40, 120)
	d.say("until /bin/busybox stty size | /bin/busybox grep ^40; do :; done\r")
	d.await("40 120")
	// Ctrl-C ends what is in the foreground, not the shell.
	d.say("echo be$((1+1)); sleep 1000; echo after=$?\r")
	d.await("be2")
	d.say("\x03")
	d.await("# ")
	d.say("echo alive=$((40+2)); exit 7\r")
	d.await("alive=42")
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("lab ended with %v, want exit status 7", err)
	}
	if after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS); err != nil || *after != *before {
		t.Errorf("the terminal is left as %+v, was %+v: %v", after, before, err)
	}
}
