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
			started, err := os.OpenFile(fifo, os.O_RDWR, 0) // as a writer too, it never waits
			if err != nil {
				t.Fatal(err)
			}
			defer started.Close()
			makefile := fmt.Sprintf("allnoconfig:\n\t@echo '# Automatically generated file' > $(KCONFIG_CONFIG)\nbzImage:\n\t@echo $$$$ > %s; exec sleep 1000\n", fifo)
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
			ended := make(chan error, 1)
			go func() {
				err := cmd.Wait()
				fmt.Fprintln(started, 0) // lets go of the reader below where the compiler never ran
				ended <- err
			}()
			pid, err := bufio.NewReader(started).ReadString('\n') // waits until the compiler runs
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatalf("lab ended by itself: %s", stderr.String())
			}
			var exit *exec.ExitError
			if err := <-ended; !errors.As(err, &exit) || exit.ExitCode() != want {
				t.Errorf("lab ended with %v, want exit status %d\n%s", err, want, stderr.String())
			}
			if stdout.Len() > 0 || !strings.Contains(stderr.String(), "stopped: "+signal.String()) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
			if _, err := os.Stat("/proc/" + strings.TrimSpace(pid)); err == nil {
				t.Errorf("process %s outlived lab", pid)
			}
		})
	}
}
