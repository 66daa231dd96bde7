package ext4

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The options of every test's file system.
var testOptions = Options{
	UUID:     [16]byte{0x4c, 0x61, 0x62, 1, 2, 3, 0x44, 5, 0x86, 7, 8, 9, 10, 11, 12, 13},
	Label:    "lab-test",
	HashSeed: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	Epoch:    time.Unix(1_000_000_000, 0),
}

// newFS begins a file system in a file of its own; finish closes it and checks it
// with e2fsck.
func newFS(t testing.TB) (w *Writer, finish func(free int64) string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	w, err = NewWriter(f, 0, testOptions)
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
		fsck(t, f.Name())
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
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

func fsck(t testing.TB, path string) {
	t.Helper()
	if out, err := tool(t, "e2fsck", "-f", "-n", path); err != nil {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	} else if strings.Contains(out, "?") {
		t.Fatalf("e2fsck asks:\n%s", out)
	}
}

func add(t testing.TB, w *Writer, h tar.Header, data string) {
	t.Helper()
	h.Size = int64(len(data))
	if err := w.Add(&h, strings.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func TestEmpty(t *testing.T) {
	_, finish := newFS(t)
	finish(0)
}

func TestTarFile(t *testing.T) {
	name := os.Getenv("TARFILE")
	f, err := os.Open(name)
	if err != nil {
		t.Skip()
	}
	w, finish := newFS(t)
	start := time.Now()
	if err := w.AddTar("containers/x", f); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(start))
	path := finish(1 << 30)
	os.Rename(path, "/tmp/d/fs.img")
}

func TestLargeDirectory(t *testing.T) {
	w, finish := newFS(t)
	for i := range 100_000 {
		add(t, w, tar.Header{Name: strings.Repeat("n", i%200) + "-" + string(rune('a'+i%26)) + time.Duration(i).String(), Mode: 0o644}, "")
	}
	_ = bytes.MinRead
	finish(1 << 20)
}
