package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRunSignals ends lab while a command of bisect --run is at work: asked to,
// it says so and takes the command with it; killed without a chance, the command
// goes all the same. The same call then finds the commit.
func TestRunSignals(t *testing.T) {
	home := t.TempDir()
	repo, fifo, hang := filepath.Join(home, "any"), filepath.Join(home, "fifo"), filepath.Join(home, "hang")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	script := `git init -q "$1" && cd "$1" && for i in 1 2 3 4 5 6 7 8 9; do echo $i > n && git add n &&
		git -c user.name=x -c user.email=x@lab.invalid commit -q -m "change $i" || exit 1; done`
	if out, err := exec.Command("sh", "-c", script, "sh", repo).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(hang, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// At change 5 it says its number and waits, as long as the file hang is there.
	command := fmt.Sprintf("if test $(cat n) = 5 && test -f %s; then echo $$ > %s; exec sleep 1000; fi; test $(cat n) -lt 6", hang, fifo)
	bisect := func() *exec.Cmd {
		return labCmd(home, "bisect", "--steady", "--repo", repo, "--good", "HEAD~8", "--run", command)
	}
	for signal, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGKILL: -1} {
		cmd := bisect()
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		started, err := os.OpenFile(fifo, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid, err := bufio.NewReader(started).ReadString('\n')
		started.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatalf("lab ended by itself: %s", stderr.String())
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != want {
			t.Errorf("%s: lab ended with %v\n%s", signal, err, stderr.String())
		}
		// A dead one may be there still, for its new parent to wait for.
		for alive := true; alive; {
			stat, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/stat")
			alive = err == nil && !bytes.Contains(stat, []byte(") Z ")) && !bytes.Contains(stat, []byte(") X "))
		}
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	cmd := bisect()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "\n  change 6\n") || !strings.Contains(stderr.String(), "2 tests done before") {
		t.Errorf("%v\n%s\n%s", err, out, stderr.String())
	}
}
