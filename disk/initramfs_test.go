package disk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func initramfsFiles(t testing.TB) []File {
	t.Helper()
	source := filepath.Join(t.TempDir(), "module.ko")
	if err := os.WriteFile(source, []byte("a module"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []File{
		{Path: "/init", Mode: 0o755, Data: []byte("#!/bin/sh\n")},
		{Path: "lib/modules/virtio.ko", Mode: 0o644, Source: source},
		{Path: "lib", Mode: fs.ModeDir | 0o700},
		{Path: "/bin/sh", Mode: fs.ModeSymlink, Target: "../init"},
		{Path: "/empty", Mode: fs.ModeSetuid | 0o711},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
}

func TestWriteInitramfs(t *testing.T) {
	files := initramfsFiles(t)
	var one, two bytes.Buffer
	if err := WriteInitramfs(&one, files); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	if err := WriteInitramfs(&two, files); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the order of files changes the archive")
	}
	if got, want := fmt.Sprintf("%x", sha256.Sum256(one.Bytes())), "9a2897f937f0f66bdfdc1fd457695b85343062085c7ac347517a14b67f3caefe"; got != want {
		t.Errorf("archive has digest %s, not %s", got, want)
	}

	// What cpio makes of it.
	cpio := func(args ...string) string {
		path, err := exec.LookPath("cpio")
		if err != nil {
			t.Fatal("cpio not installed: run lab doctor --install")
		}
		cmd := exec.Command(path, args...)
		cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
		cmd.Stdin = bytes.NewReader(one.Bytes())
		cmd.Dir = t.TempDir()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("cpio %q: %v", args, err)
		}
		return string(out)
	}
	var list strings.Builder
	for line := range strings.Lines(cpio("-itvn")) {
		f := strings.Fields(line)
		fmt.Fprintln(&list, f[0], f[1], f[2], f[3], strings.Join(f[4:], " "))
	}
	const want = `drwxr-xr-x 2 0 0 0 Jan 1 1970 bin
lrwxrwxrwx 1 0 0 7 Jan 1 1970 bin/sh -> ../init
drwxr-xr-x 2 0 0 0 Jan 1 1970 dev
crw------- 1 0 0 5, 1 Jan 1 1970 dev/console
-rws--x--x 1 0 0 0 Jan 1 1970 empty
-rwxr-xr-x 1 0 0 10 Jan 1 1970 init
drwx------ 2 0 0 0 Jan 1 1970 lib
drwxr-xr-x 2 0 0 0 Jan 1 1970 lib/modules
-rw-r--r-- 1 0 0 8 Jan 1 1970 lib/modules/virtio.ko
drwxrwxrwt 2 0 0 0 Jan 1 1970 tmp
`
	if list.String() != want {
		t.Errorf("cpio lists\n%snot\n%s", list.String(), want)
	}
	if got := cpio("-i", "--to-stdout", "lib/modules/virtio.ko"); got != "a module" {
		t.Errorf("virtio.ko holds %q", got)
	}
}

func TestWriteInitramfsErrors(t *testing.T) {
	for _, c := range []struct {
		files []File
		want  string
	}{
		{[]File{{Path: "a"}, {Path: "/a"}}, "/a is given twice"},
		{[]File{{Path: "../a"}}, `"../a" is not a path for a file`},
		{[]File{{Path: "/"}}, `"/" is not a path`},
		{[]File{{Path: "a\x00b"}}, "is not a path"},
		{[]File{{Path: "a"}, {Path: "a/b/c"}}, "/a/b/c is in /a, which is not a directory"},
		{[]File{{Path: "/dev/console"}}, "always made"},
		{[]File{{Path: "TRAILER!!!"}}, "end of a cpio archive"},
		{[]File{{Path: "a", Source: "/does/not/exist"}}, "entry /a: open /does/not/exist"},
		{[]File{{Path: "a", Source: "/"}}, "source / is not a regular file"},
		{[]File{{Path: "a", Mode: fs.ModeSymlink}}, "no target"},
		{[]File{{Path: "a", Mode: fs.ModeDevice}}, "is not supported"},
	} {
		var out bytes.Buffer
		if err := WriteInitramfs(&out, c.files); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error is %v, not %s", c.files, err, c.want)
		}
	}
	broken := errors.New("disk is full")
	if err := WriteInitramfs(errWriter{broken}, []File{{Path: "init"}}); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }
