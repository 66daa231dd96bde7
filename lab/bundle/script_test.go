package bundle

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "renew the golden files")

// args are QEMU arguments as a script gets them.
func args(role string) []string {
	return []string{
		"-nodefaults", "-display", "none", "-accel", "tcg", "-m", "256",
		"-kernel", "kernels/" + role + "/bzImage", "-initrd", InitramfsPath,
		"-append", `console=ttyS0 it's="$(touch evil)"`,
		"-chardev", "stdio,id=console", "-serial", "chardev:console",
		"-drive", "if=none,id=disk0,snapshot=on,format=raw,file=" + DiskPath,
	}
}

func render(t *testing.T) []byte {
	t.Helper()
	m, _ := sample(t)
	script, err := Script{Good: args("good"), Bad: args("bad")}.Render(m)
	if err != nil {
		t.Fatal(err)
	}
	return script
}

func TestScript(t *testing.T) {
	got := render(t)
	golden := filepath.Join("testdata", "reproduce.sh")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the script has changed; if it should, renew %s with -update. Now:\n%s", golden, got)
	}
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: run lab doctor --install", name)
	}
	return path
}

func TestScriptIsClean(t *testing.T) {
	cmd := exec.Command(tool(t, "shellcheck"), "--shell=sh", "-")
	cmd.Stdin = strings.NewReader(string(render(t)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestScriptRefuses(t *testing.T) {
	m, _ := sample(t)
	other, _ := sample(t)
	other.Platform = "linux/vax"
	for want, c := range map[string]struct {
		s Script
		m Manifest
	}{
		`no emulator for "linux/vax"`:                  {Script{args("good"), args("bad")}, other},
		"bad kernel: QEMU's arguments have no -append": {Script{args("good"), []string{"-kernel", "x"}}, m},
		`the argument "a\nb" is not one line`:          {Script{[]string{"-append", "a\nb"}, args("bad")}, m},
		"there is no good kernel":                      {Script{args("good"), args("bad")}, Manifest{Platform: "linux/amd64"}},
	} {
		if _, err := c.s.Render(c.m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestScriptRuns extracts a bundle as its reader would and runs the script in it,
// with a QEMU that says what the test wants to hear.
func TestScriptRuns(t *testing.T) {
	shells := map[string][]string{"dash": {tool(t, "dash")}, "busybox": {tool(t, "busybox"), "sh"}}
	for _, c := range []struct {
		name   string
		qemu   string // the body of the emulator, with the kernel's path in $kernel
		spoil  string // a file to be damaged
		exit   int
		stdout []string
		stderr string
	}{
		{
			name: "same",
			qemu: `case $kernel in */good/*) s=0 ;; *) s=1 ;; esac
				printf '\033[2Jguest of %s\r\nlab: test exited with status %s\r\n' "$kernel" "$s"`,
			stdout: []string{
				"expanding the disk (1 MiB)", "guest of kernels/good/bzImage\n", "guest of kernels/bad/bzImage\n",
				"good kernel: exit status 0, as recorded\n", "bad kernel: exit status 1, as recorded\nsame\n",
			},
		},
		{
			name:   "different",
			qemu:   `echo 'lab: test exited with status 7'; echo 'lab: test exited with status 0'`,
			exit:   1,
			stdout: []string{"good kernel: exit status 0, as recorded\n", "bad kernel: exit status 0, recorded was 1\ndifferent\n"},
		},
		{
			name:   "no result",
			qemu:   `echo 'Kernel panic'`,
			exit:   1,
			stdout: []string{"good kernel: exit status none, recorded was 0\n", "different\n"},
		},
		{
			name:   "time is up",
			qemu:   `echo waiting; exit 124`,
			exit:   1,
			stdout: []string{"stopped after 151 seconds", "different\n"},
		},
		{name: "QEMU fails", qemu: `echo 'qemu: no such device' >&2; exit 1`, exit: 128, stdout: []string{"no such device"}, stderr: "qemu-system-x86_64 ended with status 1"},
		{name: "no QEMU", exit: 128, stderr: "qemu-system-x86_64 is not installed"},
		{name: "damaged", qemu: "exit 0", spoil: "kernels/good/bzImage", exit: 128, stderr: "the bundle is damaged"},
	} {
		for shell, argv := range shells {
			t.Run(c.name+" in "+shell, func(t *testing.T) {
				dir := t.TempDir()
				bundle := filepath.Join(dir, "a b;c", "bundle.tar") // a folder that has to be quoted
				if err := os.Mkdir(filepath.Dir(bundle), 0o755); err != nil {
					t.Fatal(err)
				}
				m, files := sample(t)
				files[0] = File{Name: "reproduce.sh", Executable: true, Data: render(t)}
				if err := os.WriteFile(bundle, write(t, m, files), 0o644); err != nil {
					t.Fatal(err)
				}
				if out, err := exec.Command(tool(t, "tar"), "-C", filepath.Dir(bundle), "-xf", bundle).CombinedOutput(); err != nil || len(out) > 0 {
					t.Fatalf("tar: %v\n%s", err, out)
				}
				if c.spoil != "" {
					if err := os.WriteFile(filepath.Join(filepath.Dir(bundle), c.spoil), []byte("other"), 0o644); err != nil {
						t.Fatal(err)
					}
				}

				bin := filepath.Join(dir, "bin")
				if err := os.Mkdir(bin, 0o755); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"gzip", "sed", "tr", "tee", "tail", "dirname", "rm", "mkdir", "sha256sum", "true", "timeout", "cmp"} {
					if err := os.Symlink(tool(t, name), filepath.Join(bin, name)); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(dir, "disk.img"), sampleDisk(), 0o644); err != nil {
					t.Fatal(err)
				}
				if c.qemu != "" {
					qemu := "#!" + tool(t, "dash") + `
for a; do
	case $a in
	kernels/*) kernel=$a ;;
	*file=*) cmp "${a##*file=}" "$expected" || exit 3 ;;
	'console=ttyS0 it'\''s="$(touch evil)" lab.echo') echoed=yes ;;
	esac
done
[ "$echoed" = yes ] || exit 4
` + c.qemu + "\n"
					if err := os.WriteFile(filepath.Join(bin, "qemu-system-x86_64"), []byte(qemu), 0o755); err != nil {
						t.Fatal(err)
					}
				}

				cmd := exec.CommandContext(context.Background(), argv[0], append(argv[1:], filepath.Join(filepath.Dir(bundle), "reproduce.sh"))...)
				cmd.Dir = "/"
				cmd.Env = []string{"PATH=" + bin, "expected=" + filepath.Join(dir, "disk.img")}
				var stdout, stderr strings.Builder
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				err := cmd.Run()
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				if got := cmd.ProcessState.ExitCode(); got != c.exit {
					t.Errorf("exit status %d, want %d", got, c.exit)
				}
				for _, want := range c.stdout {
					if !strings.Contains(stdout.String(), want) {
						t.Errorf("standard output lacks %q", want)
					}
				}
				if !strings.Contains(stderr.String(), c.stderr) {
					t.Errorf("standard error lacks %q", c.stderr)
				}
				if strings.Contains(stdout.String(), "\x1b") {
					t.Error("the guest steers the terminal")
				}
				for _, pattern := range []string{"reproduce.[0-9]*", "evil"} {
					if left, err := filepath.Glob(filepath.Join(filepath.Dir(bundle), pattern)); err != nil || len(left) > 0 {
						t.Errorf("left behind: %v %v", left, err)
					}
				}
				if t.Failed() {
					t.Logf("stdout:\n%sstderr:\n%s", stdout.String(), stderr.String())
				}
			})
		}
	}
}
