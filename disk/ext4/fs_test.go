package ext4

import (
	"archive/tar"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write golden files anew")

// The options of every test's file system.
var testOptions = Options{
	UUID:     [16]byte{0x4c, 0x61, 0x62, 1, 2, 3, 0x44, 5, 0x86, 7, 8, 9, 10, 11, 12, 13},
	Label:    "lab-test",
	HashSeed: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	Epoch:    time.Unix(1_000_000_000, 0),
}

// newFS begins a file system in a file of its own; finish closes it, checks it
// with e2fsck and gives the file.
func newFS(t testing.TB) (w *Writer, finish func(free int64) string) {
	t.Helper()
	return newFSWith(t, testOptions)
}

func newFSWith(t testing.TB, o Options) (w *Writer, finish func(free int64) string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	w, err = NewWriter(f, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	return w, func(free int64) string {
		t.Helper()
		size, err := w.Close(free)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if out, err := tool(t, "e2fsck", "-f", "-n", f.Name()); err != nil {
			t.Fatalf("e2fsck: %v\n%s", err, out)
		}
		return f.Name()
	}
}

// tool runs a program and returns what it prints.
func tool(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		t.Fatalf("%s not installed: run lab doctor --install", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func debugfs(t testing.TB, image, request string) string {
	t.Helper()
	out, err := tool(t, "debugfs", "-R", request, image)
	if err != nil {
		t.Fatalf("debugfs %s: %v\n%s", request, err, out)
	}
	return out
}

func add(t testing.TB, w *Writer, h tar.Header, data string) {
	t.Helper()
	h.Size = int64(len(data))
	if err := w.Add(&h, strings.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func xattrRecords(pairs ...string) map[string]string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m["SCHILY.xattr."+pairs[i]] = pairs[i+1]
	}
	return m
}

type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// failing is a disk that is full after some bytes.
type failing struct{ left int }

var errNoSpace = errors.New("no space left")

func (f *failing) WriteAt(b []byte, _ int64) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errNoSpace
	}
	return len(b), nil
}
