package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"

	"lab/lab"
	"lab/lab/debiantest"
	"lab/lab/demo"
)

// needE2E is for tests that boot real kernels. Their tools are not optional:
// what is missing fails.
func needE2E(t testing.TB) {
	t.Helper()
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
}

// serve runs a registry on 127.0.0.1 and pushes an image to it.
func serve(t testing.TB, img v1.Image) (reference string) {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	reference = strings.TrimPrefix(s.URL, "http://") + "/audit:1"
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return "docker://" + reference
}

// probeImage is the demo's image: lab itself, as auditprobe.
func probeImage(t testing.TB) v1.Image {
	t.Helper()
	img, err := demo.Image(filepath.Join(labDir, "lab"))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// busyboxRoot is a root file system with a shell and a few programs.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	fs := t.TempDir()
	if err := os.MkdirAll(filepath.Join(fs, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v: run lab doctor --install", err)
	}
	if err := os.WriteFile(filepath.Join(fs, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "true", "false", "sleep", "id", "logger", "cat", "echo", "seq"} {
		if err := os.Symlink("busybox", filepath.Join(fs, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// layeredImage is busyboxRoot as an image with a second layer, which takes away and replaces
// what the first one has, and with a config that says more than a root file system.
func layeredImage(t testing.TB) v1.Image {
	t.Helper()
	fs := busyboxRoot(t)
	for name, content := range map[string]string{"etc/gone": "", "etc/stays": "first", "etc/replaced": "first", "data/old": ""} {
		if err := os.MkdirAll(filepath.Join(fs, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(fs, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first := filepath.Join(t.TempDir(), "first.tar")
	if out, err := exec.Command("tar", "--owner=0", "--group=0", "-C", fs, "-cf", first, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	below, err := tarball.LayerFromFile(first)
	if err != nil {
		t.Fatal(err)
	}
	above, err := crane.Layer(map[string][]byte{"etc/.wh.gone": nil, "etc/replaced": []byte("second"), "data/.wh..wh..opq": nil, "data/new": nil})
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, below, above)
	if err == nil {
		img, err = mutate.Config(img, v1.Config{
			Entrypoint: []string{"/bin/false"}, Env: []string{"OF=image"}, WorkingDir: "/made/here", Volumes: map[string]struct{}{"/data": {}},
			Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/bin/false"}},
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestRun boots Debian's kernel with containers, by scripts. $KERNEL is its
// package, $FS a root file system with busybox, $AUDIT an image in a registry,
// $LAYERS one of several layers, $BASE a root file system with crun, runc, podman and systemd.
func TestRun(t *testing.T) {
	needE2E(t)
	t.Parallel()
	kernel := debiantest.Kernel(t)
	fs := busyboxRoot(t)
	audit, layers := serve(t, probeImage(t)), serve(t, layeredImage(t))
	base := debiantest.Programs(t, "crun", "runc", "podman", "systemd", "dbus")
	bullseye := debiantest.Bullseye(t)
	cil, err := filepath.Abs("../demo/allow.cil")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir() // one cache for all scripts, as a user has it
	testscript.Run(t, testscript.Params{
		Dir: "testdata/e2e",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KERNEL", kernel)
			e.Setenv("FS", fs)
			e.Setenv("AUDIT", audit)
			e.Setenv("LAYERS", layers)
			e.Setenv("BULLSEYE", bullseye)
			e.Setenv("CIL", cil)
			e.Setenv("BASE", base)
			return setupScript(e, home)
		},
		Cmds: commands,
	})
}

// TestDemo runs the whole story on the distribution's kernel source, from an
// empty cache, and then what rests on the kernels that it built.
func TestDemo(t *testing.T) {
	needE2E(t)
	home := t.TempDir()
	wait := demoStart(t, home) // it takes longest: the others run meanwhile
	t.Parallel()
	cold := wait()
	if n := built(cold.Bisection); n == 0 {
		t.Error("the cold demo built no kernel")
	}
	for want, args := range map[string][]string{"24": {"--count"}, "1": {"--count", "--merges"}} {
		out, err := exec.Command("git", append(append([]string{"-C", demoRepo(home), "rev-list"}, args...), "good..bad")...).Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("git rev-list %q good..bad: %s, %v, want %s", args, got, err, want)
		}
	}
	t.Run("warm", func(t *testing.T) {
		warm := demoRun(t, home)
		if n := built(warm.Bisection); n != 0 {
			t.Errorf("the warm demo built %d kernels again", n)
		}
		if warm.Bisection.Log != cold.Bisection.Log {
			t.Errorf("bisect log differs:\n%s\n%s", cold.Bisection.Log, warm.Bisection.Log)
		}
	})
	// Beside each other: what takes the kernels that there are, and what builds more.
	t.Run("taken", func(t *testing.T) {
		t.Parallel()
		t.Run("bundle", func(t *testing.T) { testBundle(t, home, cold) })
		t.Run("kill", func(t *testing.T) { testKill(t, home, cold) })
	})
	t.Run("built", func(t *testing.T) {
		t.Parallel()
		t.Run("ends", func(t *testing.T) { testEnds(t, home, cold) })
		t.Run("config", func(t *testing.T) { testConfig(t, home, cold) })
		t.Run("git bisect run", func(t *testing.T) { testGitBisectRun(t, home, cold) })
		t.Run("su", func(t *testing.T) { testSu(t, home, cold) })
		t.Run("debug", func(t *testing.T) { testDebug(t, home, cold) })
	})
}

// testDebug has gdb stop the kernel of the bundle that testSu left where it refuses, and
// go back in a recording of it.
// What the kernel unpacks to is all of a vmlinux but the names, which System.map has.
func testDebug(t *testing.T, home string, d demoResult) {
	dir := t.TempDir()
	if out, err := exec.Command("tar", "xf", filepath.Join(home, "su.tar"), "-C", dir, "kernels").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	scripts, err := filepath.Glob(filepath.Join(home, ".cache/lab/trees/*/src/scripts/extract-vmlinux"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("the kernel's extract-vmlinux: %v, %v", scripts, err)
	}
	names, err := os.ReadFile(filepath.Join(dir, "kernels/bad/System.map"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(function string) string {
		m := regexp.MustCompile(`(?m)^([0-9a-f]{16}) t ` + function + `$`).FindSubmatch(names)
		if m == nil {
			t.Fatalf("System.map has no %s", function)
		}
		return "0x" + string(m[1])
	}
	stop := "*" + at("audit_receive_msg")
	vmlinux := func(role string) string {
		file := filepath.Join(dir, role)
		data, err := exec.Command("sh", scripts[0], filepath.Join(dir, "kernels", role, "bzImage")).Output()
		if err == nil {
			err = os.WriteFile(file, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	out, stderr := runLab(t, home, ExitGood, "debug", "su.tar", "--bad", "--vmlinux", vmlinux("bad"), "--break", stop, "--batch", "--ex", "continue", "--ex", "info registers rip")
	if !regexp.MustCompile(`(?m)^rip +` + at("audit_receive_msg")).MatchString(out) {
		t.Errorf("gdb did not stop at %s:\n%s\n%s", stop, out, stderr)
	}
	if _, stderr = runLab(t, home, ExitFailure, "debug", "su.tar", "--bad", "--vmlinux", vmlinux("good"), "--batch"); !strings.Contains(stderr, "it is not of the same code") {
		t.Errorf("symbols of another kernel: %s", stderr)
	}

	image, err := filepath.Glob(filepath.Join(home, ".cache/lab/demo/su-*.tar"))
	if err != nil || len(image) != 1 {
		t.Fatalf("root file systems: %v, %v", image, err)
	}
	runLab(t, home, ExitGood, append([]string{"bisect", "--repo", demoRepo(home), "--good", d.Bisection.Parents[0], "--bad", d.Planted, "--config", "tiny",
		"--image", "rootfs:" + image[0], "--cap-drop", "AUDIT_WRITE", "--record", "--slim", "--bundle", "recorded.tar", "--"}, demo.SuCommand...)...)
	out, stderr = runLab(t, home, ExitGood, "debug", "recorded.tar", "--bad", "--replay", "--vmlinux", vmlinux("bad"), "--break", stop, "--batch",
		"--ex", "continue", "--ex", "delete", "--ex", "hbreak *"+at("audit_receive"), "--ex", "reverse-continue", "--ex", "info registers rip")
	if !regexp.MustCompile(`(?s)rip +` + at("audit_receive")).MatchString(out) {
		t.Errorf("gdb did not get back to audit_receive:\n%s\n%s", out, stderr)
	}
}

// testSu bisects the story of su over the kernels that the demo built, but for what
// another way through the history takes.
func testSu(t *testing.T, home string, d demoResult) {
	stdout, said := runLab(t, home, ExitGood, "demo", "su", "--bundle", "su.tar", "--json")
	var r demoResult
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if r.Bisection.Culprit.Hash != d.Planted || r.Reproduction.Outcome != lab.Same {
		t.Errorf("found %s, planted %s, reproduction %s", r.Bisection.Culprit.Hash, d.Planted, r.Reproduction.Outcome)
	}
	report, _ := runLab(t, home, ExitGood, "report", "su.tar")
	for _, want := range []string{"OKAY", "su: System error", "PAM audit_log_acct_message() failed: Operation not permitted"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report has no %q:\n%s\n%s", want, report, said)
		}
	}

	// What the bundle's container may do it may by hand, too.
	if told, stderr := runLab(t, t.TempDir(), 7, "shell", filepath.Join(home, "su.tar"), "--bad", "--", "sh", "-c", "grep CapBnd /proc/self/status; echo $HOSTNAME; exit 7"); told != "CapBnd:\t00000000880425fb\ntest\n" {
		t.Errorf("lab shell says %s\n%s", told, stderr)
	}

	differs := func(want []string, runs ...string) {
		t.Helper()
		out, _ := runLab(t, home, ExitBad, append([]string{"diff"}, runs...)...)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("lab diff says nothing of %q:\n%s", w, out)
			}
		}
	}
	syslog := "+<82>TIME su: PAM audit_log_acct_message() failed: Operation not permitted"
	differs([]string{syslog}, "su.tar")

	// Both are traced again, and the kernel that refuses is followed to where it does. The
	// symbols are the bundle's.
	why, stderr := runLab(t, home, ExitGood, "why", "--runs", "1", "--out", "traced", "su.tar")
	if ok, err := regexp.MatchString(`(?s)is acknowledged with -EPERM, which was made by\n\n  audit_(netlink_ok|receive_msg)\+0x\S+\n(    called by audit_receive\S+\n)+    called by netlink_.*called by \S+sys_sendto\+.*; written by netlink_ack\n`, why); !ok {
		t.Errorf("lab why: %v\n%s\n%s", err, why, stderr)
	}
	differs([]string{
		syslog, "the first system call of su that is answered differently is sendto of AUDIT_USER_AUTH: ECONNREFUSED in A, 132 (acknowledged: -EPERM) in B.",
		"= -1 ECONNREFUSED (Connection refused)", "error=-EPERM (Operation not permitted)",
	}, "traced/a", "traced/b")

	// The same as docker has it, on the distribution's kernel: all that runs there is real.
	root, err := filepath.Glob(filepath.Join(home, ".cache/lab/demo/su-*.tar"))
	if err != nil || len(root) != 1 {
		t.Fatalf("root file systems: %v, %v", root, err)
	}
	out, stderr := runLab(t, home, ExitBad, append([]string{"run", "--trace", "--memory", "512", "--kernel", debiantest.Kernel(t), "--image", "rootfs:" + root[0],
		"--base", "rootfs:" + debiantest.Programs(t, "docker.io"), "--runtime", "docker", "--cap-drop", "AUDIT_WRITE", "--out", "docker", "--"}, demo.SuCommand...)...)
	trace, err := os.ReadFile(filepath.Join(home, "docker/trace"))
	if err != nil {
		t.Fatal(err)
	}
	got := out + stderr + string(trace)
	for _, want := range []string{
		"bad: exit status 1 ", "stderr: su: System error\n", "su: PAM audit_log_acct_message() failed: Operation not permitted\n",
		"container by Docker version ", " with runc version ", "; seccomp default ", "; storage overlay2; capabilities CHOWN, ", "MKNOD, SETFCAP\n",
		"1 execve(\"/usr/bin/su\", [\"su\", ", "error=-EPERM (Operation not permitted)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("docker: no %q:\n%s\n%s", want, out, stderr)
		}
	}
	if !strings.HasPrefix(string(trace), "1 execve(") || strings.Contains(string(trace), "SIGURG") {
		t.Errorf("the trace has more than the command:\n%.2000s", trace)
	}
}

// secret is in the environment of each lab that tests run: it gets nowhere.
const secret = "correct horse battery staple"

// labCmd is lab in a home of its own.
func labCmd(home string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(labDir, "lab"), args...)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "LAB_TEST_SECRET="+secret, "HOME="+home, "XDG_CACHE_HOME="+home+"/.cache", "XDG_STATE_HOME="+home+"/.local/state")
	return cmd
}

// runLab runs lab and wants an exit code of it.
func runLab(t testing.TB, home string, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := labCmd(home, args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
		t.Fatalf("lab %s: %v, want exit status %d\n%s\n%s", strings.Join(args, " "), err, want, o.String(), e.String())
	}
	return o.String(), e.String()
}

func demoRun(t *testing.T, home string) demoResult {
	t.Helper()
	return demoStart(t, home)()
}

// demoStart starts lab demo, and returns what waits for its end.
func demoStart(t *testing.T, home string) func() demoResult {
	t.Helper()
	cmd := labCmd(home, "demo", "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() demoResult {
		t.Helper()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("lab demo: %v\n%s\n%s", err, stdout.String(), stderr.String())
		}
		return demoTold(t, stdout.Bytes(), stderr.String())
	}
}

// demoTold is what a demo found, which has to be what it had planted.
func demoTold(t *testing.T, stdout []byte, stderr string) demoResult {
	t.Helper()
	var r demoResult
	if err := json.Unmarshal(stdout, &r); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if r.Bisection.Culprit.Hash != r.Planted || r.Reproduction.Outcome != lab.Same {
		t.Errorf("found %s, planted %s, reproduction %s", r.Bisection.Culprit.Hash, r.Planted, r.Reproduction.Outcome)
	}
	skips := 0
	for _, x := range r.Bisection.Tested {
		if x.Mark == lab.Skip {
			skips++
		}
	}
	t.Logf("%d tests, %d skipped, %d built, %s\n%s", len(r.Bisection.Tested), skips, built(r.Bisection), r.Elapsed, stderr)
	return r
}

func built(b lab.Bisection) int {
	n := 0
	for _, x := range b.Tested {
		if (!x.Cached || x.Prepared != "") && !x.Unbuilt {
			n++
		}
	}
	return n
}

// testBundle reruns the demo's bundle where nothing but the bundle is left, by
// lab and by its own script, and sees damage refused by name.
func testBundle(t *testing.T, home string, d demoResult) {
	bundle := filepath.Join(home, d.Bundle)
	empty := t.TempDir()
	stdout, _ := runLab(t, empty, ExitGood, "reproduce", bundle)
	if !strings.HasSuffix(stdout, "\nsame\n") {
		t.Errorf("reproduce says %s", stdout)
	}
	// Is it fixed in my tree? The configuration is the bundle's, so nothing is built.
	if stdout, _ = runLab(t, home, ExitGood, "reproduce", "--repo", demoRepo(home), "--commit", d.Bisection.Parents[0], bundle); !strings.HasSuffix(stdout, "\nfixed\n") {
		t.Errorf("reproduce --commit says %s", stdout)
	}

	dir := t.TempDir()
	if out, err := exec.Command("tar", "xf", bundle, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	sh := exec.Command("./reproduce.sh")
	sh.Dir = dir
	sh.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	out, err := sh.CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m)^.*\bsame\b`).Match(out) {
		t.Errorf("reproduce.sh: %v\n%s", err, out)
	}
	report, err := os.ReadFile(filepath.Join(dir, "REPORT.txt"))
	if err != nil || len(report) > 100_000 || !bytes.Contains(report, []byte("#regzbot introduced: "+d.Planted)) {
		t.Errorf("REPORT.txt: %v, %d bytes\n%s", err, len(report), report)
	}
	for name, form := range map[string]string{"REPORT.txt": "text", "report.html": "html"} {
		member, err := os.ReadFile(filepath.Join(dir, name))
		if got, _ := runLab(t, empty, ExitGood, "report", bundle, "--format", form); err != nil || got != string(member) {
			t.Errorf("%s: %v; lab report prints %d bytes, the member has %d", name, err, len(got), len(member))
		}
	}
	if ktap, _ := runLab(t, empty, ExitGood, "report", bundle, "--format", "ktap"); !strings.Contains(ktap, "\nnot ok 2 "+d.Bisection.Bad.Hash[:12]+" ") {
		t.Errorf("KTAP:\n%s", ktap)
	}
	gz, err := filepath.Glob(filepath.Join(dir, "inputs/*.gz"))
	if err != nil || len(gz) != 2 {
		t.Fatalf("%q, %v", gz, err)
	}
	if out, err := exec.Command("gzip", append([]string{"-dk"}, gz...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, source, _, _ := runtime.Caller(0)
	for _, secret := range []string{home, labDir, filepath.Dir(source), secret} {
		if out, err := exec.Command("grep", "-rlF", "--", secret, dir).Output(); err == nil {
			t.Errorf("the bundle names %s in %s", secret, out)
		}
	}

	whole, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	for what, damaged := range map[string][]byte{
		"flipped":   flip(whole, len(whole)/2),
		"truncated": whole[:len(whole)*2/3],
		"longer":    append(bytes.Clone(whole), make([]byte, 1024)...),
	} {
		file := filepath.Join(dir, what+".tar")
		if err := os.WriteFile(file, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, stderr := runLab(t, empty, ExitFailure, "reproduce", file); !strings.Contains(stderr, file) {
			t.Errorf("%s: %s", what, stderr)
		}
	}
	left, err := filepath.Glob(filepath.Join(empty, ".cache/lab/quarantine/bundle-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in quarantine: %v, %v", left, err)
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// demoBisect is the demo's bisect as a user would type it.
func demoBisect(home string, d demoResult, ref, dir string) []string {
	return []string{"bisect", "--repo", demoRepo(home), "--good", d.Bisection.Good[0].Hash, "--bad", d.Bisection.Bad.Hash,
		"--config", "tiny", "--image", ref, "--cap-drop", "AUDIT_WRITE", "--memory", "512", "--dir", dir, "--json"}
}

func demoRepo(home string) string {
	found, _ := filepath.Glob(filepath.Join(home, ".cache/lab/demo/*.git"))
	return strings.Join(found, " ")
}

// testKill kills a bisect with SIGKILL again and again, after each verdict,
// and wants the same answer as without, no commit tested twice, and no QEMU
// left behind.
func testKill(t *testing.T, home string, d demoResult) {
	dir := filepath.Join(t.TempDir(), "state")
	args := demoBisect(home, d, serve(t, probeImage(t)), dir)
	kills := 0
	for {
		stdout, killed := runUntilVerdict(t, home, args)
		if killed {
			kills++
			continue
		}
		var b lab.Bisection
		if err := json.Unmarshal([]byte(stdout), &b); err != nil {
			t.Fatalf("%v in %s", err, stdout)
		}
		if b.Culprit == nil || b.Culprit.Hash != d.Planted || b.Log != d.Bisection.Log {
			t.Errorf("after %d kills: %s\nwant %s\n%s", kills, b.Log, d.Planted, d.Bisection.Log)
		}
		seen := make(map[string]bool)
		for _, x := range b.Tested {
			if x.Role == lab.RoleAgain {
				continue // on purpose, until the answer is sure
			}
			key := x.Commit.Hash + fmt.Sprint(x.Role == lab.RoleConfirm)
			if seen[key] {
				t.Errorf("%s was tested twice", x.Commit.Hash)
			}
			seen[key] = true
		}
		if kills < 3 {
			t.Errorf("only %d kills: the bisect was too short to show anything", kills)
		}
		t.Logf("%d kills, %d tests", kills, len(b.Tested))
		return
	}
}

// runUntilVerdict runs lab and kills it when it has told a verdict that is not
// one of an earlier run.
func runUntilVerdict(t *testing.T, home string, args []string) (stdout string, killed bool) {
	t.Helper()
	cmd := labCmd(home, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	verdict := regexp.MustCompile(`^  (good|bad|skip): `)
	lines := bufio.NewScanner(stderr)
	var said strings.Builder
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if verdict.MatchString(lines.Text()) {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			killed = true
		}
	}
	if err := cmd.Wait(); err != nil && !killed {
		t.Fatalf("lab: %v\n%s", err, said.String())
	}
	return out.String(), killed
}

// testEnds gives ends that do not show what they should.
func testEnds(t *testing.T, home string, d demoResult) {
	ref := serve(t, probeImage(t))
	g, b := d.Bisection.Good[0].Hash, d.Bisection.Culprit.Hash
	common := []string{"bisect", "--repo", demoRepo(home), "--config", "tiny", "--cap-drop", "AUDIT_WRITE", "--memory", "512", "--image", ref}
	bothBad := append(slices.Clone(common), "--good", b, "--bad", d.Bisection.Bad.Hash)
	if stdout, _ := runLab(t, home, ExitSkip, bothBad...); !strings.Contains(stdout, "the good end "+b[:12]) || !strings.Contains(stdout, "not good but bad") {
		t.Errorf("both ends bad: %s", stdout)
	}
	swapped := append(slices.Clone(common), "--good", d.Bisection.Bad.Hash, "--bad", g)
	if _, stderr := runLab(t, home, ExitFailure, swapped...); !strings.Contains(stderr, "swapped") {
		t.Errorf("swapped: %s", stderr)
	}
}

// testGitBisectRun lets git itself search, with lab run as the judge.
func testGitBisectRun(t *testing.T, home string, d demoResult) {
	ref := serve(t, probeImage(t))
	clone := filepath.Join(t.TempDir(), "linux")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(context.Background(), "git", args...)
		cmd.Dir = filepath.Dir(clone)
		if args[0] != "clone" {
			cmd.Dir = clone
		}
		cmd.Env = labCmd(home).Env
		cmd.Env = append(cmd.Env, "PATH="+labDir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	git("clone", "-q", "--shared", "--no-checkout", demoRepo(home), clone)
	git("bisect", "start", "--no-checkout", d.Bisection.Bad.Hash, d.Bisection.Good[0].Hash)
	// On the tree that the demo has built in: one of the clone's own would begin with nothing.
	out := git("bisect", "run", "sh", "-c", `exec lab run --repo "$1" --commit "$(git rev-parse BISECT_HEAD)" --config tiny --image "$2" --cap-drop AUDIT_WRITE --memory 512`,
		"sh", demoRepo(home), ref)
	if !strings.Contains(out, d.Planted+" is the first bad commit") {
		t.Errorf("git bisect run: %s", out)
	}
	git("bisect", "reset", d.Bisection.Bad.Hash)
	log := filepath.Join(t.TempDir(), "bisect.log")
	if err := os.WriteFile(log, []byte(d.Bisection.Log), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := git("bisect", "replay", log); !strings.Contains(out, d.Planted) {
		t.Errorf("git bisect replay: %s\nof %s", out, d.Bisection.Log)
	}
}
