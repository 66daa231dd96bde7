package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Programs of an image in which a "kernel" can be built: busybox, and scripts in
// the places of make, gcc, as and ld.
const (
	tinyMake = `#!/bin/sh
for target; do case $target in
allnoconfig) cat "$KCONFIG_ALLCONFIG" > "$KCONFIG_CONFIG" ;;
bzImage)
	echo "  CC      src/a.o"
	if test -f HOOK; then sh ./HOOK || exit 2; fi
	mkdir -p arch/x86/boot
	cat header.bin .config > arch/x86/boot/bzImage
	gcc --version >> arch/x86/boot/bzImage
	echo > System.map ;;
esac; done
`
	tinyGCC = `#!/bin/sh
case $1 in
-print-prog-name=cc1) echo /usr/lib/cc1 ;;
*) echo "gcc (Tiny) 4.9.4" ;;
esac
`
)

func busybox(t testing.TB) string {
	t.Helper()
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatal("busybox is not installed: run lab doctor --install")
	return ""
}

// tinyImage is the tar of an image with a toolchain, without the programs that
// are named.
func tinyImage(t *testing.T, without ...string) ToolchainImage {
	t.Helper()
	data, err := os.ReadFile(busybox(t))
	if err != nil {
		t.Fatal(err)
	}
	var list []tar.Header
	var contents []string
	add := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		list, contents = append(list, h), append(contents, content)
	}
	add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "usr/bin/busybox", Mode: 0o4755, Typeflag: tar.TypeReg}, string(data))
	add(tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"}, "")
	for _, name := range []string{"sh", "cat", "mkdir", "mkfifo", "test", "env", "sort", "readlink", "hostname", "grep", "id", "kill", "sleep", "touch", "chmod", "ls"} {
		add(tar.Header{Name: "usr/bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "/bin/busybox"}, "")
	}
	add(tar.Header{Name: "usr/lib/cc1", Mode: 0o755, Typeflag: tar.TypeReg}, "cc1")
	for name, text := range map[string]string{"make": tinyMake, "gcc": tinyGCC, "as": "#!/bin/sh\necho GNU assembler\n", "ld": "#!/bin/sh\necho GNU ld\n", "flex": "#!/bin/sh\n", "bison": "#!/bin/sh\n"} {
		if !slices.Contains(without, name) {
			add(tar.Header{Name: "opt/tiny/" + name, Mode: 0o755, Typeflag: tar.TypeReg}, text)
		}
	}
	add(tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, "")
	return ToolchainImage{
		Reference: "oci:tiny", Digest: "sha256:" + strings.Repeat("1", 64-len(without)) + strings.Repeat("2", len(without)),
		Env: []string{"PATH=/opt/tiny:/bin", "LD_LIBRARY_PATH=/opt/lib", "SECRET=1"},
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(makeTar(t, list, contents))), nil
		},
	}
}

func makeTar(t testing.TB, list []tar.Header, contents []string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range list {
		if err := w.WriteHeader(&list[i]); err != nil {
			t.Fatal(err)
		}
		if i < len(contents) {
			if _, err := io.WriteString(w, contents[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// eachWay runs a test with every way into an image.
func eachWay(t *testing.T, image ToolchainImage, test func(t *testing.T, cache string, tools Toolchain)) {
	if _, err := exec.LookPath("bwrap"); err != nil {
		t.Fatal("bubblewrap is not installed: run lab doctor --install")
	}
	for _, w := range ways() {
		t.Run(strings.ReplaceAll(string(w), " ", "-"), func(t *testing.T) {
			cache := t.TempDir()
			tools, err := OpenToolchain(t.Context(), cache, image)
			if err != nil {
				t.Fatal(err)
			}
			tools.room.way = w
			test(t, cache, tools)
		})
	}
}

// TestBuildInAnImage has a build look at the room that it is in.
func TestBuildInAnImage(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := newRepo(t)
	r.change("looks around", "HOOK", `
exec 2>&1
die() { echo "src/a.c:1: error: $*"; exit 1; }
echo x > /bin/new && die "/bin can be written to"
echo x > /new && die "/ can be written to"
touch /opt/tiny/make && die "the image can be written to"
chmod 4755 /bin/busybox && die "the image's modes can be changed"
test ! -u /bin/busybox || die "there is a set-user-ID program"
echo x > /tmp/new || die "/tmp cannot be written to"
echo x > /dev/null || die "no /dev/null"
echo x > ../beside || die "no lock and no output can be written"
test -e /proc/self/status || die "no /proc"
test -e `+secret+` && die "a file of the host is there"
test -e /sys/class && die "the host's /sys is there"
test "$(grep -c : /proc/net/dev)" = 1 || die "there is a network: $(cat /proc/net/dev)"
test "$(hostname)" = lab || die "host $(hostname)"
grep -q 'CapEff:.*[1-9a-f]' /proc/self/status && die "capabilities"
grep -q 'NoNewPrivs:.*1' /proc/self/status || die "new privileges can be had"
test "$SECRET" = "" || die "a variable of the image's"
test "$LD_LIBRARY_PATH:$PATH:$TMPDIR" = /opt/lib:/opt/tiny:/bin:/tmp || die "$LD_LIBRARY_PATH:$PATH:$TMPDIR"
test "$(readlink /proc/self/fd/3)" = "$(cd .. && pwd)/lock" || die "the lock is not held: $(ls -l /proc/self/fd)"
`)
	digests := map[string]bool{}
	eachWay(t, tinyImage(t), func(t *testing.T, cache string, tools Toolchain) {
		o := fragments("CONFIG_A=y\n")
		o.Toolchain = tools
		tree := open(t, cache, r.dir)
		b := build(t, tree, "HEAD", o)
		if b.failure != nil {
			t.Fatalf("%+v", b.failure)
		}
		b.compiled(t, "src/a.o")
		digests[b.Digest] = true
		if b.Compiler != "gcc (Tiny) 4.9.4" || b.Toolchain.Image != "oci:tiny" || b.Toolchain.Digest != tools.Digest || b.Toolchain.tool("gcc").Path != "/opt/tiny/gcc" {
			t.Errorf("compiler %s, toolchain %+v", b.Compiler, b.Toolchain)
		}
		// The host's toolchain is another.
		if host, err := tryBuild(t, tree, "HEAD~1", fragments("CONFIG_A=y\n")); err != nil || host.Digest == b.Digest {
			t.Errorf("%+v, %v", host, err)
		}
		if again := build(t, open(t, cache, r.dir), "HEAD", o); !again.cached {
			t.Error("not found in the cache again")
		}
	})
	if len(digests) != 1 {
		t.Errorf("the ways give different kernels: %v", digests)
	}
}

// TestCancelInAnImage has a build wait for ever in a room; nothing is left of it.
func TestCancelInAnImage(t *testing.T) {
	r := newRepo(t)
	r.change("blocks", "HOOK", "mkfifo /tmp/ever\necho x > src/half.o\necho started\ncat /tmp/ever\n")
	eachWay(t, tinyImage(t), func(t *testing.T, cache string, tools Toolchain) {
		o := fragments("CONFIG_A=y\n")
		o.Toolchain = tools
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("the user had enough")
		o.Progress = func(line string, _, _ int) {
			if line == "started" {
				cancel(why)
			}
		}
		tree := open(t, cache, r.dir)
		if _, _, _, err := tree.Build(ctx, "HEAD", o); !errors.Is(err, why) {
			t.Errorf("error %v, want %v", err, why)
		}
		// The lock comes free when the last process is gone.
		awaitLock(t, tree)
		// bubblewrap gave make no time to clean up, which is known.
		_, err := os.Stat(filepath.Join(tree.base, "building"))
		if left := err == nil; left != (tools.room.way == byBubblewrap) {
			t.Errorf("marker left: %v", left)
		}
	})
}

// awaitLock waits until nobody holds the work tree.
func awaitLock(t *testing.T, tree *Tree) {
	t.Helper()
	f, err := os.Open(filepath.Join(tree.base, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// TestKilledLabInAnImage kills a lab that builds in a room. Everything in it ends.
func TestKilledLabInAnImage(t *testing.T) {
	r := newRepo(t)
	r.change("blocks", "HOOK", "mkfifo /tmp/ever\necho started > ../fifo\ncat /tmp/ever\n")
	eachWay(t, tinyImage(t), func(t *testing.T, cache string, tools Toolchain) {
		tree := open(t, cache, r.dir)
		started := filepath.Join(tree.base, "fifo")
		if err := unix.Mkfifo(started, 0o600); err != nil {
			t.Fatal(err)
		}
		lab := exec.Command(os.Args[0])
		lab.Env = append(os.Environ(), "KERNEL_TEST_BUILD="+cache, "KERNEL_TEST_REPO="+r.dir, "KERNEL_TEST_WAY="+string(tools.room.way), "KERNEL_TEST_IMAGE="+tools.Digest)
		lab.Stderr = os.Stderr
		if err := lab.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(started); err != nil {
			t.Fatal(err)
		}
		if !locked(t, tree) {
			t.Error("the lock is not held")
		}
		if err := lab.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := lab.Wait(); err == nil {
			t.Fatal("the killed lab ended well")
		}
		awaitLock(t, tree)
	})
}

func TestKilledMakeInAnImage(t *testing.T) {
	r := newRepo(t)
	r.change("killed", "HOOK", "kill -9 $PPID\nsleep 1000\n")
	eachWay(t, tinyImage(t), func(t *testing.T, cache string, tools Toolchain) {
		o := fragments("CONFIG_A=y\n")
		o.Toolchain = tools
		if _, err := tryBuild(t, open(t, cache, r.dir), "HEAD", o); !errors.Is(err, ErrInterrupted) {
			t.Errorf("error %v, want ErrInterrupted", err)
		}
	})
}

func TestImageLacks(t *testing.T) {
	for _, name := range []string{"make", "gcc", "ld"} {
		_, err := OpenToolchain(t.Context(), t.TempDir(), tinyImage(t, name))
		if err == nil || !strings.Contains(err.Error(), "the toolchain image oci:tiny has no "+name) {
			t.Errorf("without %s: error %v", name, err)
		}
	}
	// Whether flex is needed is a matter of the tree's age.
	r := newRepo(t)
	r.change("old", "Makefile", "VERSION = 3\nPATCHLEVEL = 14\n")
	r.change("recent", "Makefile", "VERSION = 6\nPATCHLEVEL = 1\n")
	r.change("wants more", "HOOK", "echo '/bin/sh: 1: bc: not found'\nexit 1\n")
	cache := t.TempDir()
	tree := open(t, cache, r.dir)
	o := fragments("CONFIG_A=y\n")
	var err error
	if o.Toolchain, err = OpenToolchain(t.Context(), cache, tinyImage(t, "flex")); err != nil {
		t.Fatal(err)
	}
	if b := build(t, tree, "HEAD~2", o); b.failure != nil {
		t.Errorf("%+v", b.failure)
	}
	if _, err := tryBuild(t, tree, "HEAD~1", o); err == nil || !strings.Contains(err.Error(), "the toolchain image oci:tiny has no flex") {
		t.Errorf("error %v", err)
	}
	if o.Toolchain, err = OpenToolchain(t.Context(), cache, tinyImage(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := tryBuild(t, tree, "HEAD", o); err == nil || !strings.Contains(err.Error(), "the toolchain image oci:tiny has no bc") {
		t.Errorf("error %v", err)
	}
}

func TestImageForAnotherMachine(t *testing.T) {
	data, err := os.ReadFile(busybox(t))
	if err != nil {
		t.Fatal(err)
	}
	data[18], data[19] = 183, 0 // e_machine: EM_AARCH64 (elf(5))
	list := []tar.Header{{Name: "bin/gcc", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(data))}}
	contents := []string{string(data)}
	for _, name := range []string{"make", "as", "ld"} {
		list, contents = append(list, tar.Header{Name: "bin/" + name, Mode: 0o755, Typeflag: tar.TypeReg, Size: 1}), append(contents, "x")
	}
	_, err = OpenToolchain(t.Context(), t.TempDir(), ToolchainImage{Reference: "oci:arm", Digest: "sha256:1", Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(makeTar(t, list, contents))), nil
	}})
	if err == nil || !strings.Contains(err.Error(), "another machine (EM_AARCH64)") {
		t.Errorf("error %v", err)
	}
}

func TestPlan(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "usr/lib/x", "home/user/deep", "tmp/theirs", "dev", "proc", "sys/x", "root"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"bin": "usr/bin", "var": "/home"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := &room{root: root}
	const always = "dev /dev, proc /proc, tmp /tmp"
	for write, want := range map[string]string{
		"":               "link /bin, read /home, read /root, read /usr, link /var, " + always,
		"/root":          "link /bin, read /home, read /usr, link /var, " + always + ", write /root",
		"/home/user/lab": "link /bin, dir /home, dir /home/user, read /home/user/deep, read /root, read /usr, link /var, " + always + ", write /home/user/lab",
		"/usr/lib/x":     "link /bin, read /home, read /root, dir /usr, read /usr/bin, dir /usr/lib, link /var, " + always + ", write /usr/lib/x",
		"/tmp/lab":       "link /bin, read /home, read /root, read /usr, link /var, " + always + ", write /tmp/lab",
		"/var/lab":       "link /bin, read /home, read /root, read /usr, " + always + ", write /var/lab",
		"/srv/lab":       "link /bin, read /home, read /root, read /usr, link /var, " + always + ", write /srv/lab",
	} {
		var folders []string
		if write != "" {
			folders = []string{write}
		}
		steps, err := r.plan(folders)
		if err != nil {
			t.Errorf("%s: %v", write, err)
			continue
		}
		var got []string
		for _, s := range steps {
			got = append(got, fmt.Sprint(s.Kind, " ", s.To))
		}
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("%s:\n%s, want\n%s", write, text, want)
		}
	}
	for _, write := range []string{"/", "/tmp", "/dev/shm", "/proc/1", "relative", "/a/../b"} {
		if steps, err := r.plan([]string{write}); err == nil {
			t.Errorf("%s: %v", write, steps)
		}
	}
}

// TestEntrance holds lab doctor's question.
func TestEntrance(t *testing.T) {
	if got, err := Entrance(t.Context()); err != nil || !slices.Contains(ways(), way(got)) {
		t.Errorf("%q, %v", got, err)
	}
	r := &room{root: "/", mount: t.TempDir()}
	refused := &exec.ExitError{}
	err := r.find(func() error { return fmt.Errorf("no: %w", refused) })
	var none *NoEntryError
	if !errors.As(err, &none) || len(none.Tried) != len(ways()) || r.way != "" {
		t.Errorf("error %v", err)
	}
	// No more user namespaces are to be had: not a full disk.
	err = r.find(func() error {
		return fmt.Errorf("run true: %w", &os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: syscall.ENOSPC})
	})
	if !errors.As(err, &none) || errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
	why := errors.New("the disk is full")
	if err := r.find(func() error { return why }); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

func TestToolchainsAreListedAndFreed(t *testing.T) {
	cache := t.TempDir()
	opened := 0
	image := tinyImage(t)
	open := image.Open
	image.Open = func(ctx context.Context) (io.ReadCloser, error) {
		opened++
		return open(ctx)
	}
	tools, err := OpenToolchain(t.Context(), cache, image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenToolchain(t.Context(), cache, image); err != nil || opened != 1 {
		t.Fatalf("unpacked %d times, %v", opened, err)
	}
	list, err := List(t.Context(), cache)
	if err != nil || len(list) != 1 || list[0].Toolchain != "oci:tiny" || list[0].Size < 100<<10 || list[0].Damaged {
		t.Fatalf("%+v, %v", list, err)
	}
	// One that is in use stays.
	freed, err := Free(t.Context(), cache, FreeOptions{Limit: true})
	if err != nil || len(freed.Kernels) != 0 || len(freed.InUse) != 1 {
		t.Fatalf("%+v, %v", freed, err)
	}
	if err := os.WriteFile(filepath.Join(list[0].Dir, "meta.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenToolchain(t.Context(), cache, image); err != nil || opened != 2 {
		t.Fatalf("a damaged one: unpacked %d times, %v", opened, err)
	}
	tools.room.held.Close()
	for _, name := range []string{filepath.Join(cache, "toolchains")} {
		entries, err := os.ReadDir(name)
		if err != nil || len(entries) != 2 { // and the lock
			t.Errorf("%s: %v, %v", name, entries, err)
		}
	}
}

func TestUnpackRoot(t *testing.T) {
	reg := func(name, content string) (tar.Header, string) {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o6777, Size: int64(len(content)), Uid: 12, ModTime: time.Unix(1e9, 0)}, content
	}
	link := func(kind byte, name, target string) tar.Header {
		return tar.Header{Name: name, Typeflag: kind, Linkname: target}
	}
	type entries struct {
		list     []tar.Header
		contents []string
	}
	of := func(headers ...tar.Header) entries {
		h, c := reg("fine", "x")
		return entries{append([]tar.Header{h}, headers...), []string{c}}
	}
	up, upText := reg("../up", "x")
	twice, twiceText := reg("fine", "y")
	through, throughText := reg("out/passwd", "x")
	for name, test := range map[string]struct {
		entries
		want string // of the error; empty: it unpacks
	}{
		"plain":              {of(link(tar.TypeSymlink, "a/b", "/etc/passwd"), link(tar.TypeLink, "c", "fine"), tar.Header{Name: "null", Typeflag: tar.TypeChar}, tar.Header{Name: "f", Typeflag: tar.TypeFifo}), ""},
		"up":                 {entries{[]tar.Header{up}, []string{upText}}, "leads out"},
		"twice":              {entries{append(of().list, twice), []string{"x", twiceText}}, "exists"},
		"through a link":     {entries{[]tar.Header{link(tar.TypeSymlink, "out", "/etc"), through}, []string{"", throughText}}, "escapes"},
		"through a relative": {entries{[]tar.Header{link(tar.TypeSymlink, "out", "../../.."), through}, []string{"", throughText}}, "escapes"},
		"hard link out":      {of(link(tar.TypeLink, "h", "../../etc/passwd")), "leads out"},
		"hard link through":  {of(link(tar.TypeSymlink, "out", "/etc"), link(tar.TypeLink, "h", "out/passwd")), "escapes"},
		"hard link to none":  {of(link(tar.TypeLink, "h", "none")), "no such file"},
		"folder on a file":   {of(tar.Header{Name: "fine/", Typeflag: tar.TypeDir}), "file exists"},
		"too many":           {of(make([]tar.Header, 10)...), "too many files"},
		"too large":          {of(tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 1 << 40}), "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			root := filepath.Join(dir, "a/b/root")
			if err := os.MkdirAll(root, 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range test.list {
				if test.list[i].Name == "" {
					test.list[i] = tar.Header{Name: fmt.Sprint("d", i), Typeflag: tar.TypeDir}
				}
			}
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for i := range test.list {
				if err := w.WriteHeader(&test.list[i]); err != nil {
					t.Fatal(err)
				}
				if i < len(test.contents) {
					if _, err := io.WriteString(w, test.contents[i]); err != nil {
						t.Fatal(err)
					}
				}
			}
			_ = w.Close() // one of them is cut short
			_, err := unpackRoot(t.Context(), root, &b, unpackLimits{1 << 20, 8})
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(root, "fine"))
			if err != nil || info.Mode() != 0o755 || !info.ModTime().Equal(time.Unix(1e9, 0)) {
				t.Errorf("%v, %v", info, err)
			}
			if target, err := os.Readlink(filepath.Join(root, "a/b")); err != nil || target != "/etc/passwd" {
				t.Errorf("%q, %v", target, err)
			}
			for _, gone := range []string{"null", "f"} {
				if _, err := os.Lstat(filepath.Join(root, gone)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: %v", gone, err)
				}
			}
		})
	}
}

// FuzzUnpackRoot unpacks anything, and nothing leaves the folder.
func FuzzUnpackRoot(f *testing.F) {
	f.Add(makeTar(f, []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "../x"}, {Name: "a/b", Typeflag: tar.TypeReg, Size: 1}}, []string{"", "x"}))
	f.Add(makeTar(f, []tar.Header{{Name: "d/", Typeflag: tar.TypeDir}, {Name: "d/f", Typeflag: tar.TypeReg}, {Name: "l", Typeflag: tar.TypeLink, Linkname: "d/f"}}, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		root := filepath.Join(dir, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		_, _ = unpackRoot(t.Context(), root, bytes.NewReader(data), unpackLimits{1 << 20, 100})
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("beside the root: %v, %v", entries, err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
}
