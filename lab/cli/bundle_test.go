package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"lab/lab"
	"lab/lab/bundle"
	"lab/oci"
	"lab/probe"
)

// tinyBundle writes a bundle that is sound but for booting, after edit has
// changed what is in it.
func tinyBundle(t testing.TB, edit func(m *bundle.Manifest, files map[string]string)) string {
	t.Helper()
	const nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	image := bundle.Image{Name: "test"}
	image.Pin = oci.Pin{Reference: "rootfs:app.tar", Digest: nothing, Platform: "linux/amd64"}
	disk := strings.Repeat("disk", 128)
	m := bundle.Manifest{
		Lab: "test", Platform: "linux/amd64",
		Test:    probe.Spec{Container: "test", Command: []string{"/test"}}.WithDefaults(),
		Machine: bundle.Machine{Accel: "tcg", QEMU: "7.2", Memory: 256, CPUs: 1, Clock: time.Unix(1.7e9, 0), BootTimeout: bundle.Duration(time.Minute)},
		Symptom: bundle.Symptom{Kind: "test"},
		Images:  []bundle.Image{image}, Layout: "inputs/images",
		Disk: bundle.Disk{Member: "inputs/disk.img.gz", Digest: digestOf(disk), Size: int64(len(disk))},
		Runs: []bundle.Run{
			{Role: "good", End: "test", Verdict: "good", Reason: "exit status 0", Dir: "runs/good-1"},
			{Role: "bad", End: "test", Verdict: "bad", Reason: "exit status 1", Exit: 1, Dir: "runs/bad-1"},
		},
		Culprit: &bundle.Culprit{Commit: strings.Repeat("b", 40), Title: "audit: listen in all network namespaces"},
	}
	initramfs := strings.Repeat("initramfs ", 20_000)
	files := map[string]string{
		"REPORT.txt": "It broke.\n", "result.json": `{"range": 3}` + "\n", "reproduce.sh": "#!/bin/sh\n",
		"inputs/images/index.json": "{}", "inputs/initramfs.gz": initramfs, "bisect/tested.jsonl": "{}\n",
	}
	for i, role := range []string{"good", "bad"} {
		dir := "kernels/" + role
		files[dir+"/bzImage"] = strings.Repeat("kernel "+role, 10_000)
		files[dir+"/config"] = "CONFIG_AUDIT=y\nCONFIG_NR_CPUS=8\n"
		m.Kernels = append(m.Kernels, bundle.Kernel{
			Role: role, Commit: strings.Repeat(role[:1], 40), Title: "one", Release: "6.1.0",
			Digest: digestOf(files[dir+"/bzImage"]), Image: dir + "/bzImage", Config: dir + "/config",
			Initramfs: bundle.Compressed{Member: "inputs/initramfs.gz", Digest: digestOf(initramfs), Size: int64(len(initramfs))},
		})
		m.Kernels[i].Commit = strings.Repeat([]string{"a", "b"}[i], 40)
		files["runs/"+role+"-1/console.log"] = "[    0.000000] Linux version 6.1.0\n[    0.512345] lab: hello\n"
		files["runs/"+role+"-1/stdout"] = "sum: " + role + "\n"
		files["runs/"+role+"-1/trial.json"] = `{"end": "test", "boot_ns": 512345678, "result": {"exit": ` + []string{"0", "1"}[i] + `, "duration": "12ms"}}` + "\n"
	}
	if edit != nil {
		edit(&m, files)
	}
	var list []bundle.File
	for name, content := range files {
		list = append(list, bundle.File{Name: name, Data: []byte(content), Executable: name == "reproduce.sh", Gzip: strings.HasSuffix(name, ".gz")})
	}
	list = append(list, bundle.File{Name: m.Disk.Member, Data: []byte(disk), Gzip: true})
	var b bytes.Buffer
	if err := bundle.Write(t.Context(), &b, m, list); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bundle.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func digestOf(content string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
}

// labTest runs lab with a cache of its own, which must have nothing in its
// quarantine afterwards.
func labTest(t testing.TB, cache string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = run(t.Context(), append([]string{"lab", "--cache", cache}, args...), &out, &errs)
	if left, _ := filepath.Glob(filepath.Join(cache, "quarantine", "bundle-*")); len(left) > 0 {
		t.Errorf("lab %s leaves %v", strings.Join(args, " "), left)
	}
	return code, out.String(), errs.String()
}

func TestBundlesComeFromURLs(t *testing.T) {
	file, cache := tinyBundle(t, nil), t.TempDir()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bundle.tar":
			http.ServeFile(w, r, file)
		case "/file":
			http.Redirect(w, r, "file://"+file, http.StatusFound)
		case "/long":
			w.Header().Set("Content-Length", "99999999999999")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{
		"/bundle.tar": "",
		"/file":       "only https and http are followed",
		"/long":       "at most",
		"/none":       "answers 404 Not Found",
	} {
		code, stdout, stderr := labTest(t, cache, "bundle", "verify", server.URL+path)
		if want == "" && (code != 0 || !strings.HasPrefix(stdout, "whole: ")) || want != "" && (code != ExitFailure || !strings.Contains(stderr, want)) {
			t.Errorf("%s: exit status %d\n%s%s", path, code, stdout, stderr)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(cache, "oci", "tmp")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A bundle that the wrong one signed, or nobody, gets as far as its signature.
func TestVerifiedBundles(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal("ssh-keygen is not installed: run lab doctor --install")
	}
	dir, cache := t.TempDir(), t.TempDir()
	key := filepath.Join(dir, "key")
	for _, name := range []string{key, key + "2"} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", name).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	allowed := filepath.Join(dir, "allowed")
	if err := os.WriteFile(allowed, append([]byte("maintainer@example.org "), public...), 0o644); err != nil {
		t.Fatal(err)
	}

	file := tinyBundle(t, nil)
	refused := func(want string) {
		t.Helper()
		for _, command := range [][]string{{"reproduce"}, {"bundle", "verify"}, {"bundle", "ls"}} {
			code, stdout, stderr := labTest(t, cache, append(command, "--verify", allowed, file)...)
			if code != ExitFailure || stdout != "" || !strings.HasPrefix(stderr, "lab: refuse bundle "+file) || !strings.Contains(stderr, want) {
				t.Errorf("%v: exit status %d\n%s%s", command, code, stdout, stderr)
			}
		}
	}
	sign := func(key string) {
		t.Helper()
		if code, stdout, stderr := labTest(t, cache, "bundle", "sign", "--key", key, file); code != 0 || !strings.HasPrefix(stdout, "signed by SHA256:") {
			t.Fatalf("exit status %d\n%s%s", code, stdout, stderr)
		}
	}
	refused("it is not signed")
	sign(key + "2")
	refused("which is not in " + allowed)
	if code, _, stderr := labTest(t, cache, "bundle", "verify", file); code != 0 || !strings.Contains(stderr, "(not checked: --verify FILE") {
		t.Errorf("exit status %d\n%s", code, stderr)
	}
	sign(key)
	code, stdout, stderr := labTest(t, cache, "bundle", "verify", "--json", "--verify", allowed, file)
	var got verifiedJSON
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 || got.Signature == nil || !got.Signature.Trusted || !strings.HasPrefix(stderr, file+" is signed by maintainer@example.org, SHA256:") {
		t.Errorf("exit status %d, %v\n%s%s", code, err, stdout, stderr)
	}
	for _, args := range [][]string{{"sign", file}, {"sign", "--key", key, "--signature", key, file}, {"verify"}, {"ls", file, file}} {
		if code, _, stderr := labTest(t, cache, append([]string{"bundle"}, args...)...); code != ExitUsage {
			t.Errorf("%v: exit status %d\n%s", args, code, stderr)
		}
	}
}

// Two bundles of the same disk and initramfs share them, in a registry and in a
// layout, and come back byte for byte.
func TestBundlesInRegistries(t *testing.T) {
	one := tinyBundle(t, nil)
	two := tinyBundle(t, func(m *bundle.Manifest, files map[string]string) {
		files["kernels/bad/bzImage"] = strings.Repeat("another kernel", 10_000)
		m.Kernels[1].Digest = digestOf(files["kernels/bad/bzImage"])
	})
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	for _, to := range []string{"docker://" + strings.TrimPrefix(server.URL, "http://") + "/bundles", "oci:" + filepath.Join(t.TempDir(), "layout")} {
		cache, dir := t.TempDir(), t.TempDir()
		var pushed [2]lab.Shared
		for i, file := range []string{one, two} {
			ref := fmt.Sprintf("%s:%d", to, i)
			code, stdout, stderr := labTest(t, cache, "bundle", "push", "--json", file, ref)
			if err := json.Unmarshal([]byte(stdout), &pushed[i]); err != nil || code != 0 {
				t.Fatalf("push to %s: exit status %d, %v\n%s", ref, code, err, stderr)
			}
			out := filepath.Join(dir, "pulled.tar")
			if code, _, stderr := labTest(t, cache, "bundle", "pull", "-o", out, ref); code != 0 {
				t.Fatalf("pull %s: exit status %d\n%s", ref, code, stderr)
			}
			was, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if is, err := os.ReadFile(out); err != nil || !bytes.Equal(was, is) {
				t.Errorf("%s comes back as another file: %v", ref, err)
			}
			if code, stdout, stderr := labTest(t, t.TempDir(), "bundle", "verify", strings.TrimSuffix(ref, fmt.Sprintf(":%d", i))+"@"+pushed[i].Digest); code != 0 || !strings.HasPrefix(stdout, "whole: ") {
				t.Errorf("by its digest: exit status %d\n%s%s", code, stdout, stderr)
			}
		}
		kernel := int64(len("another kernel") * 10_000)
		if a, b := pushed[0], pushed[1]; a.Sent < a.Bytes*9/10 || b.Sent < kernel || b.Sent > kernel+64<<10 || a.Parts != 3 {
			t.Errorf("%s: %+v, then %+v", to, a, b)
		}
	}
}

// What differs between two bundles is told by its field or line, and whether it
// was measured.
func TestBundleDiff(t *testing.T) {
	cache := t.TempDir()
	one := tinyBundle(t, nil)
	for name, c := range map[string]struct {
		edit    func(m *bundle.Manifest, files map[string]string)
		code    int
		outcome string
		lines   []string
	}{
		"nothing": {nil, ExitGood, lab.Same, nil},
		"measurements": {func(m *bundle.Manifest, files map[string]string) {
			m.Host = bundle.Host{Kernel: "6.1", CPU: "another"}
			files["runs/good-1/console.log"] = "[    0.000000] Linux version 6.1.0\n[    0.654321] lab: hello, later\n"
			files["runs/good-1/trial.json"] = `{"end": "test", "boot_ns": 1, "result": {"exit": 0, "duration": "13ms"}}` + "\n"
			files["runs/bad-1/stdout"] = "sum: bad\n"
			files["REPORT.txt"] = "It broke.\n"
		}, ExitGood, lab.OnlyMeasured, []string{
			"measured: manifest.json: cpu, kernel (2 values)",
			"measured: runs/good-1/console.log: line 2",
			"measured: runs/good-1/trial.json: boot_ns, duration (2 values)",
		}},
		"the machine": {func(m *bundle.Manifest, _ map[string]string) { m.Machine.QEMU, m.Machine.Memory = "8.0", 512 }, ExitBad, lab.Different, []string{
			"~ manifest.json: machine.memory: was 256, is 512", "~ manifest.json: machine.qemu: was 7.2, is 8.0",
		}},
		"a kernel": {func(m *bundle.Manifest, files map[string]string) {
			files["kernels/bad/bzImage"] = "\x00other"
			m.Kernels[1].Digest = digestOf("\x00other")
			files["kernels/bad/config"] = "CONFIG_AUDIT=y\n# CONFIG_AUDITSYSCALL is not set\nCONFIG_NR_CPUS=64\nCONFIG_NET=y\n"
		}, ExitBad, lab.Different, []string{
			"~ manifest.json: kernels[bad].digest: was sha256:", "~ kernels/bad/bzImage: was 100000 bytes, sha256:",
			"~ kernels/bad/config: NET: was nothing, is y", "~ kernels/bad/config: NR_CPUS: was 8, is 64",
		}},
		"a run": {func(m *bundle.Manifest, files map[string]string) {
			m.Runs[1].Reason, m.Runs[1].Exit = "exit status 2", 2
			files["runs/bad-1/stdout"] = "sum: worse\x1b[2J\n"
			files["runs/bad-1/trial.json"] = `{"end": "test", "boot_ns": 1, "result": {"exit": 2, "duration": "12ms"}}` + "\n"
		}, ExitBad, lab.Different, []string{
			"~ manifest.json: runs[runs/bad-1].exit: was 1, is 2", "~ manifest.json: runs[runs/bad-1].reason: was exit status 1, is exit status 2",
			"~ runs/bad-1/stdout: line 1: was sum: bad, is sum: worse [2J", "~ runs/bad-1/trial.json: result.exit: was 1, is 2",
			"measured: runs/bad-1/trial.json: boot_ns",
		}},
		"times in an output": {func(_ *bundle.Manifest, files map[string]string) {
			files["runs/good-1/stdout"] = "sum: good\n"
			files["runs/good-1/syslog"] = "x"
			files["bisect/tested.jsonl"] = "{}\n{\"left\": 3}\n"
			delete(files, "result.json")
		}, ExitBad, lab.Different, []string{
			"- result.json (13 bytes)", "~ bisect/tested.jsonl: lines: was 1, is 2", "+ runs/good-1/syslog (1 bytes)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			two := tinyBundle(t, c.edit)
			code, stdout, stderr := labTest(t, cache, "bundle", "diff", one, two)
			lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
			if code != c.code || lines[len(lines)-1] != c.outcome || len(lines) != len(c.lines)+1 {
				t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
			}
			for i, want := range c.lines {
				if i < len(lines) && !strings.HasPrefix(lines[i], want) {
					t.Errorf("line %d is %s\nwant %s", i+1, lines[i], want)
				}
			}
			var d lab.BundleDiff
			code, stdout, _ = labTest(t, cache, "bundle", "diff", "--json", two, one)
			if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != c.code || d.Outcome != c.outcome {
				t.Errorf("the other way: exit status %d, %v\n%s", code, err, stdout)
			}
		})
	}
}
