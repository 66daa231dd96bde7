package cli

import (
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

// TestSignals interrupts lab while make runs a compiler that never ends: lab
// exits with the signal's code, and the compiler is gone.
func TestSignals(t *testing.T) {
	for signal, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		t.Run(signal.String(), func(t *testing.T) {
			home := t.TempDir()
			fifo := filepath.Join(home, "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			repo := filepath.Join(home, "linux")
			makefile := fmt.Sprintf("allnoconfig:\n\t@echo '# Automatically generated file' > .config\nbzImage:\n\t@echo $$$$ > %s; exec sleep 1000\n", fifo)
			for _, args := range [][]string{
				{"git", "init", "-q", repo},
				{"sh", "-c", "printf '%s' \"$1\" > \"$2\"/Makefile", "sh", makefile, repo},
				{"git", "-C", repo, "add", "."},
				{"git", "-C", repo, "-c", "user.name=Lab Test", "-c", "user.email=test@lab.invalid", "commit", "-q", "-m", "one"},
			} {
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", args, err, out)
				}
			}
			cmd := labCmd(home, "run", "--repo", repo, "--config", "tiny", "--symptom", "build")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid, err := os.ReadFile(fifo) // waits until the compiler runs
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != want {
				t.Errorf("lab ended with %v, want exit status %d\n%s", err, want, stderr.String())
			}
			if stdout.Len() > 0 || !strings.Contains(stderr.String(), "stopped: "+signal.String()) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
			if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
				t.Errorf("process %s outlived lab", pid)
			}
		})
	}
}
