package disk

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	diskext4 "github.com/diskfs/go-diskfs/filesystem/ext4"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write golden files anew")

// rootfs is a small root file system as a tar stream.
func rootfs(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name])), ModTime: time.Unix(1e9, 5), Format: tar.FormatPAX}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, files[name])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func container(name string, stream []byte) Container {
	return Container{
		Name:   name,
		Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(stream)),
		Config: []byte(`{"ociVersion":"1.0.2","name":"` + name + `"}`),
		Open:   func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(stream)), nil },
	}
}

func testSpec(t testing.TB) Spec {
	return Spec{
		Containers: []Container{
			container("web", rootfs(t, map[string]string{"etc/passwd": "root:x:0:0::/:/bin/sh\n", "bin/app": strings.Repeat("web", 10000)})),
			container("db-1", rootfs(t, map[string]string{"bin/app": "db"})),
		},
		Free:  32 << 20,
		Epoch: time.Unix(1_700_000_000, 0),
	}
}

// tool runs a program and returns what it prints.
func tool(t testing.TB, name string, args ...string) string {
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
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// fsck checks the file system in the image's partition.
func fsck(t testing.TB, image string) {
	t.Helper()
	tool(t, "e2fsck", "-f", "-n", fmt.Sprintf("%s?offset=%d", image, partitionStart))
}

func build(t testing.TB, s Spec) Image {
	t.Helper()
	image, err := Build(context.Background(), filepath.Join(t.TempDir(), "disk.img"), s)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestBuild builds an image twice, the second time from a spec turned round, in
// another time zone and with one processor, and compares both with what other
// hosts got at other times.
func TestBuild(t *testing.T) {
	one := build(t, testSpec(t))
	turned := testSpec(t)
	slices.Reverse(turned.Containers)
	local := time.Local
	time.Local = time.FixedZone("elsewhere", -11*3600)
	procs := runtime.GOMAXPROCS(1)
	two := build(t, turned)
	runtime.GOMAXPROCS(procs)
	time.Local = local
	a, err := os.ReadFile(one.Path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(two.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two builds of one spec differ")
	}
	digest, err := one.Digest(t.Context())
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(a)); err != nil || digest != want {
		t.Errorf("digest is %s, %v, not %s", digest, err, want)
	}
	if one.Size != int64(len(a)) {
		t.Errorf("size is %d, not %d", one.Size, len(a))
	}
	info, err := os.Stat(one.Path)
	if err != nil {
		t.Fatal(err)
	}
	if took := info.Sys().(*syscall.Stat_t).Blocks * 512; took > one.Size/8 {
		t.Errorf("image of %d bytes, mostly free, takes %d on the disk", one.Size, took)
	}

	if out := tool(t, "sfdisk", "-V", one.Path); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk: %s", out)
	}
	if out := tool(t, "sgdisk", "-v", one.Path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	if out := tool(t, "sfdisk", "-d", one.Path); !strings.Contains(out, `name="lab-root"`) {
		t.Errorf("sfdisk: %s", out)
	}
	fsck(t, one.Path)

	const golden = "testdata/image.sha256"
	if *update {
		if err := os.WriteFile(golden, []byte(digest+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if digest+"\n" != string(want) {
		t.Errorf("image has digest %s, not %sif that is meant, raise formatVersion and run with -update", digest, want)
	}
}

// TestReadBack reads an image with go-diskfs, whose code for ext4 is not ours.
func TestReadBack(t *testing.T) {
	s := testSpec(t)
	many := make(map[string]string)
	for i := range 600 {
		many[fmt.Sprintf("dir/%0200d", i)] = fmt.Sprint(i)
	}
	s.Containers = append(s.Containers, container("many", rootfs(t, many)))
	image := build(t, s)
	f, err := os.Open(image.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, sectorSize, sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Verify(f, uint64(image.Size)); err != nil {
		t.Errorf("verify partition table: %v", err)
	}
	p := table.Partitions[0]
	if p.Name != PartitionName || p.GetStart() != partitionStart {
		t.Errorf("partition %q begins at %d", p.Name, p.GetStart())
	}
	fsys, err := diskext4.Read(backend.Sub(file.New(f, true), p.GetStart(), p.GetSize()), p.GetSize(), 0, sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	if label := fsys.Label(); label != PartitionName {
		t.Errorf("label is %q", label)
	}
	for name, want := range map[string]string{
		"containers/web/rootfs/bin/app":                            strings.Repeat("web", 10000),
		"containers/web/rootfs/etc/passwd":                         "root:x:0:0::/:/bin/sh\n",
		"containers/db-1/rootfs/bin/app":                           "db",
		"containers/many/rootfs/dir/" + fmt.Sprintf("%0200d", 555): "555",
		"containers/db-1/config.json":                              `{"ociVersion":"1.0.2","name":"db-1"}`,
	} {
		if got, err := fsys.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %.100q, error %v", name, got, err)
		}
	}
	if names, err := fsys.ReadDir("containers/many/rootfs/dir"); err != nil || len(names) != len(many) {
		t.Errorf("a large directory has %d names, not %d, error %v", len(names), len(many), err)
	}
}

// empty checks that a failed build left nothing behind.
func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left in %s, error %v", left, dir, err)
	}
}

func TestBuildErrors(t *testing.T) {
	good := container("a", rootfs(t, map[string]string{"f": "x"}))
	with := func(change func(*Container)) Spec {
		c := good
		change(&c)
		return Spec{Containers: []Container{c}}
	}
	opens := func(r io.Reader, err error) func(context.Context) (io.ReadCloser, error) {
		return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(r), err }
	}
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{with(func(c *Container) { c.Name = "../a" }), `container name "../a" is not made of`},
		{with(func(c *Container) { c.Name = "" }), `container name "" is not made of`},
		{with(func(c *Container) { c.Name = ".hidden" }), `container name ".hidden" is not made of`},
		{with(func(c *Container) { c.Name = "a\n" }), `is not made of`},
		{with(func(c *Container) { c.Open = nil }), `container "a" has no root file system`},
		{with(func(c *Container) { c.Config = make([]byte, maxConfig+1) }), `config.json of container "a" has 16777217 bytes`},
		{with(func(c *Container) { c.Store = &Container{Name: "docker"} }), `container "a" has no store "docker"`},
		{with(func(c *Container) { c.Store = &Container{Name: "rootfs", Open: c.Open} }), `container "a" has no store "rootfs"`},
		{with(func(c *Container) { c.Store = &Container{Name: "../b", Open: c.Open} }), `container "a" has no store "../b"`},
		{Spec{Containers: []Container{good, good}}, `two containers are called "a"`},
		{Spec{Free: -1}, "free space of -1 bytes"},
		{Spec{Free: 1 << 50}, "free space of 1125899906842624 bytes"},
		{with(func(c *Container) { c.Open = opens(nil, errors.New("no such layer")) }), "container a: open root file system: no such layer"},
		{with(func(c *Container) { c.Open = opens(strings.NewReader(strings.Repeat("x", 5000)), nil) }), "container a: read tar stream"},
		{with(func(c *Container) {
			c.Open = opens(bytes.NewReader(rootfs(t, map[string]string{"../etc/passwd": "x"})), nil)
		}), `container a: add "../etc/passwd" to ext4: path leads out`},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "disk.img")
		_, err := Build(context.Background(), path, c.spec)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, not %s", err, c.want)
		}
		empty(t, dir)
	}
	path := filepath.Join(t.TempDir(), "missing", "disk.img")
	if _, err := Build(context.Background(), path, Spec{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("error is %v", err)
	}
}

// TestBuildKeepsOld: an image that cannot be replaced stays.
func TestBuildKeepsOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := container("a", []byte(strings.Repeat("x", 5000)))
	if _, err := Build(context.Background(), path, Spec{Containers: []Container{c}}); err == nil {
		t.Error("junk made an image")
	}
	if b, err := os.ReadFile(path); string(b) != "old" {
		t.Errorf("what was there became %q, %v", b, err)
	}
}

// TestBuildCancel cancels while the stream hangs.
func TestBuildCancel(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(context.Background())
	r, w := io.Pipe()
	defer w.Close()
	why := errors.New("someone pressed ^C")
	c := container("a", nil)
	c.Open = func(context.Context) (io.ReadCloser, error) { return r, nil }
	go func() {
		w.Write(rootfs(t, map[string]string{"f": "x"})[:512])
		cancel(why)
	}()
	if _, err := Build(ctx, filepath.Join(dir, "disk.img"), Spec{Containers: []Container{c}}); !errors.Is(err, why) {
		t.Errorf("error is %v", err)
	}
	empty(t, dir)
}

// TestBuildFull runs out of space: on a small file system where the test may
// mount one, else against a limit of file size.
func TestBuildFull(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
	} else {
		signal.Ignore(unix.SIGXFSZ)
		defer signal.Reset(unix.SIGXFSZ)
		var old unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4 << 20, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		defer unix.Setrlimit(unix.RLIMIT_FSIZE, &old)
	}
	path := filepath.Join(dir, "disk.img")
	c := container("a", rootfs(t, map[string]string{"f": strings.Repeat("x", 10<<20)}))
	_, err := Build(context.Background(), path, Spec{Containers: []Container{c}})
	if !isFull(err) || !strings.Contains(err.Error(), "write disk image "+path+": more than ") || !strings.Contains(err.Error(), "MiB were free") {
		t.Errorf("error is %v", err)
	}
	empty(t, dir)
}
