package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// serveGit has git's own daemon give away the repositories below a folder, whole
// or filtered, as the large hosts do. stop ends it.
func serveGit(t *testing.T, base string) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.Command("git", "-c", "safe.directory=*", "daemon", "--verbose", "--export-all", "--listen=127.0.0.1", fmt.Sprintf("--port=%d", port), "--base-path="+base, base)
	cmd.Env = append(os.Environ(), "HOME="+base)
	cmd.SysProcAttr = procAttr()
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			if strings.Contains(scanner.Text(), "Ready to rumble") {
				ready <- true
			}
		}
		close(ready)
	}()
	if !<-ready {
		t.Fatal("git daemon did not start")
	}
	stop = func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // git runs the daemon in a process of its own
		cmd.Wait()
	}
	t.Cleanup(stop)
	return fmt.Sprintf("git://127.0.0.1:%d", port), stop
}

// lacks counts the objects of a commit that a repository has not got.
func lacksObjects(t *testing.T, dir, commit string) int {
	t.Helper()
	cmd := exec.Command("git", "--git-dir="+dir, "rev-list", "--objects", "--missing=print", commit)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bytes.Count(out, []byte("\n?"))
}

func TestClone(t *testing.T) {
	r := newRepo(t)
	r.git("config", "uploadpack.allowFilter", "true")
	r.git("config", "uploadpack.allowAnySHA1InWant", "true")
	first := r.git("rev-parse", "HEAD")
	r.git("tag", "v1")
	server, stop := serveGit(t, filepath.Dir(r.dir))
	address := server + "/" + filepath.Base(r.dir)
	cache := t.TempDir()
	var notices, lines []string
	o := CloneOptions{
		Progress: func(line string) { lines = append(lines, line) },
		Notice:   func(text string) { notices = append(notices, text) },
	}
	clone := func() string {
		t.Helper()
		dir, err := Clone(t.Context(), cache, address, o)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}

	dir := clone()
	if n := lacksObjects(t, dir, first); n < 5 {
		t.Errorf("the clone lacks %d objects: it took the files' contents along", n)
	}
	if len(lines) == 0 {
		t.Error("no progress was told")
	}
	var trees []*Tree
	opened := func() *Tree {
		tree := open(t, cache, dir)
		trees = append(trees, tree)
		return tree
	}
	tree := opened()
	for _, rev := range []string{"HEAD", "main", "v1", first[:12]} {
		if c, err := tree.Resolve(t.Context(), rev); err != nil || c.Hash != first {
			t.Errorf("%s is %s, %v", rev, c.Hash, err)
		}
	}
	one := build(t, tree, first, fragments("CONFIG_A=y\n"))
	if one.failure != nil || len(one.objects) != 3 {
		t.Errorf("build: %+v", one)
	}
	if n := lacksObjects(t, dir, first); n < 5 {
		t.Errorf("the build wrote into the clone, which lacks %d objects now", n)
	}

	// What is new comes with the next call, and of it what has changed.
	second := r.change("second", "src/b.c", "int b(void) { return 2; }\n")
	if clone() != dir {
		t.Error("a second clone was made")
	}
	two := build(t, opened(), "HEAD", fragments("CONFIG_A=y\n"))
	if two.failure != nil || two.Commit != second || len(two.objects) != 1 {
		t.Errorf("build: %+v", two)
	}
	if patch, err := opened().Show(t.Context(), second); err != nil || !bytes.Contains(patch, []byte("return 2;")) {
		t.Errorf("patch %s, %v", patch, err)
	}

	// Freed, unless somebody has it open, it is got again.
	free := func(dry bool) Freed {
		t.Helper()
		freed, err := Free(t.Context(), cache, FreeOptions{Clones: true, DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		return freed
	}
	if freed := free(false); len(freed.Clones) != 0 || !slices.Equal(freed.InUse, []string{dir}) {
		t.Errorf("in use: %+v", freed)
	}
	for _, tree := range trees {
		if err := tree.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if freed := free(true); !slices.Equal(freed.Clones, []string{dir}) || freed.Size < 1024 {
		t.Errorf("dry run: %+v", freed)
	}
	if freed := free(false); !slices.Equal(freed.Clones, []string{dir}) {
		t.Errorf("freed: %+v", freed)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "trees", "*clone-*.git*")); err != nil || len(left) != 1 { // the lock
		t.Errorf("left: %v, %v", left, err)
	}
	if again := build(t, open(t, cache, clone()), "HEAD", fragments("CONFIG_A=y\n")); !again.cached || again.Commit != second {
		t.Errorf("after it was freed: %+v", again)
	}

	// Without its remote it serves all the same.
	stop()
	if clone(); len(notices) != 1 || !strings.Contains(notices[0], "using it as it was") {
		t.Errorf("notices are %q", notices)
	}
	if c, err := open(t, cache, dir).Resolve(t.Context(), "main"); err != nil || c.Hash != second {
		t.Errorf("main is %s, %v", c.Hash, err)
	}
}

// A user's own partial clone stays as it is: what it lacks comes into lab's
// repository.
func TestPartialClone(t *testing.T) {
	r := newRepo(t)
	r.git("config", "uploadpack.allowFilter", "true")
	r.git("config", "uploadpack.allowAnySHA1InWant", "true")
	first := r.git("rev-parse", "HEAD")
	mine := filepath.Join(t.TempDir(), "mine")
	run(t, "", "git", "clone", "-q", "--no-checkout", "--filter=blob:none", "file://"+r.dir, mine)
	before := lacksObjects(t, filepath.Join(mine, ".git"), first)
	if before == 0 {
		t.Fatal("the clone is not partial")
	}
	b := build(t, open(t, t.TempDir(), mine), first, fragments("CONFIG_A=y\n"))
	if b.failure != nil || len(b.objects) != 3 {
		t.Errorf("build: %+v", b)
	}
	if after := lacksObjects(t, filepath.Join(mine, ".git"), first); after != before {
		t.Errorf("the user's clone lacked %d objects and lacks %d now", before, after)
	}
	if err := os.Rename(r.dir, r.dir+".gone"); err != nil {
		t.Fatal(err)
	}
	_, err := tryBuild(t, open(t, t.TempDir(), mine), first, fragments("CONFIG_A=y\n"))
	if err == nil || !strings.Contains(err.Error(), "does not appear to be a git repository") || !strings.Contains(err.Error(), "partial clone") {
		t.Errorf("without the remote: error is %v", err)
	}
}

func TestCloneErrors(t *testing.T) {
	r := newRepo(t)
	server, _ := serveGit(t, filepath.Dir(r.dir))
	for address, want := range map[string]string{
		server + "/nothere":                  "access denied or repository not exported",
		"git://127.0.0.1:1/linux":            "Connection refused",
		"ext::sh -c 'touch owned'://x":       "its scheme is not one of https",
		"ftp://127.0.0.1/linux":              "its scheme is not one of https",
		"file:///nothere":                    "does not appear to be a git repository",
		"https://me:secret@127.0.0.1:1/x":    "clone https://me:xxxxx@127.0.0.1:1/x:",
		"https://me:sec%zzret@127.0.0.1:1/x": "is not a URL",
	} {
		cache := t.TempDir()
		_, err := Clone(t.Context(), cache, address, CloneOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, not %s", address, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "zzret")) {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	if _, err := os.Stat("owned"); !errors.Is(err, os.ErrNotExist) {
		t.Error("an address was run")
	}
}
