package cli

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lab/kernel"
	"lab/lab"
	"lab/lab/debiantest"
)

// TestBisectPackages bisects packages of Debian's kernel, made anew with the
// few modules that matter. All have the same kernel; from one version on, the
// module dummy is another one. The bisect is killed after each verdict.
func TestBisectPackages(t *testing.T) {
	needE2E(t)
	t.Parallel()
	const n, culprit = 10, 7
	home, fs, dir := t.TempDir(), busyboxRoot(t), t.TempDir()
	k, err := kernel.FromPackage(t.Context(), t.TempDir(), debiantest.Kernel(t), kernel.Modules{Needed: []string{"dummy", "overlay"}})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"./boot/vmlinuz-" + k.Release: k.Image, "./boot/config-" + k.Release: k.Config}
	module := func(name string) string { return "./lib/modules/" + k.Release + "/kernel/" + name + ".ko" }
	for _, m := range k.Modules {
		files[module(strings.TrimSuffix(filepath.Base(m), ".ko"))] = m
	}
	good := dataTar(t, files)
	files[module("dummy")] = files[module("overlay")]
	bad := dataTar(t, files)
	for i := 1; i <= n; i++ { // 6.1-10 comes after 6.1-9
		data := good
		if i >= culprit {
			data = bad
		}
		writeDeb(t, filepath.Join(dir, fmt.Sprintf("linux_6.1-%d.deb", i)), fmt.Sprintf("Package: linux-image-test\nVersion: 6.1-%d\n", i), data)
	}

	args := []string{"bisect", "--kernels", dir + "/*.deb", "--image", "rootfs:" + fs, "--module", "dummy", "--json", "--", "sh", "-c", "cat /proc/modules; case $(cat /proc/modules) in *dummy*) ;; *) exit 1;; esac"}
	kills := 0
	var stdout string
	for killed := true; killed; kills++ {
		stdout, killed = runUntilVerdict(t, home, args)
	}
	var b lab.Bisection
	if err := json.Unmarshal([]byte(stdout), &b); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if p := b.FirstBad(); p == nil || p.Version != fmt.Sprintf("6.1-%d", culprit) || p.Release != k.Release || b.LastGood().Version != fmt.Sprintf("6.1-%d", culprit-1) {
		t.Fatalf("after %d kills, found %+v", kills, p)
	}
	boots, inferred := 0, 0
	for _, x := range b.Tested {
		if x.Boot > 0 {
			boots++
		}
		if x.Inferred != "" {
			inferred++
		}
	}
	// Both ends and the answer are booted, and again until that is sure; what has the
	// bytes of either end is not.
	if boots < 4 || boots > 10 || inferred != len(b.Tested)-boots || inferred < 3 || kills < 4 {
		t.Errorf("%d tests, %d boots, %d inferred, %d kills", len(b.Tested), boots, inferred, kills)
	}

	plain := append([]string{}, args[:len(args)-5]...)
	plain = append(plain, args[len(args)-4:]...)
	bundle := filepath.Join(t.TempDir(), "bundle.tar")
	answer, _ := runLab(t, home, ExitGood, append([]string{"bisect", "--slim", "--bundle", bundle}, plain[1:]...)...)
	if stdout, _ := runLab(t, home, ExitGood, "reproduce", bundle); !strings.Contains(stdout, k.Release+" of linux-image-test 6.1-7: bad") || !strings.HasSuffix(stdout, "\nsame\n") {
		t.Errorf("lab reproduce says %s", stdout)
	}
	// The modules that the bundle has are loaded, though the agent is another.
	if stdout, _ := runLab(t, home, ExitGood, "shell", bundle, "--good", "--", "cat", "/proc/modules"); !strings.Contains(stdout, "dummy ") {
		t.Errorf("lab shell has the modules %s", stdout)
	}
	if stdout, _ := runLab(t, home, ExitGood, "reproduce", "--kernel", filepath.Join(dir, "linux_6.1-2.deb"), bundle); !strings.HasSuffix(stdout, "\nfixed\n") {
		t.Errorf("lab reproduce --kernel says %s", stdout)
	}
	recorded := filepath.Join(t.TempDir(), "recorded.tar")
	runLab(t, home, ExitGood, append([]string{"bisect", "--slim", "--record", "--bundle", recorded}, plain[1:]...)...)
	if stdout, _ := runLab(t, t.TempDir(), ExitGood, "reproduce", "--replay", recorded); strings.Count(stdout, "; same\n") != 2 || !strings.HasSuffix(stdout, "\nsame\n") {
		t.Errorf("lab reproduce --replay says %s", stdout)
	}
	again := filepath.Join(t.TempDir(), "again.tar")
	runLab(t, home, ExitGood, append([]string{"bisect", "--slim", "--dir", filepath.Join(home, "again"), "--bundle", again}, plain[1:]...)...)
	if stdout, _ := runLab(t, home, ExitGood, "bundle", "diff", bundle, again); !strings.HasSuffix(stdout, "\nonly measurements differ\n") {
		t.Errorf("the same bisect, without kills, gives another bundle: %s", stdout)
	}
	for _, want := range []string{"linux-image-test 6.1-7 is the first bad kernel\n", "last good: linux-image-test 6.1-6", "both kernels are based on Linux v6.1:", fmt.Sprintf("%d boots, 9 kernels in the range", boots), "confidence 9"} {
		if !strings.Contains(answer, want) {
			t.Errorf("lab bisect says %s\nwithout %q", answer, want)
		}
	}
	if _, stderr := runLab(t, home, ExitFailure, "bisect", "--kernels", dir, "--good", "6.1-9", "--bad", "6.1-3", "--image", "rootfs:"+fs); !strings.Contains(stderr, "are the two swapped?") {
		t.Errorf("swapped ends: %s", stderr)
	}
}

func dataTar(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, path := range files {
		data, err := os.ReadFile(path)
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))})
		}
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// writeDeb writes a Debian package (man 5 deb).
func writeDeb(t *testing.T, path, control string, data []byte) {
	t.Helper()
	text := filepath.Join(t.TempDir(), "control")
	if err := os.WriteFile(text, []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	b := []byte("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", dataTar(t, map[string]string{"./control": text})}, {"data.tar", data}} {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		if b = append(b, m.data...); len(m.data)%2 == 1 {
			b = append(b, '\n')
		}
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
