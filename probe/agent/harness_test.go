//go:build linux

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lab/lab/debiantest"
	"lab/probe"
)

// A guest is a machine that the tests boot: a Debian kernel, an initramfs made
// here by hand with the agent in it, and a disk made by mke2fs.
type guest struct {
	kernel  string // path of the image
	init    []byte // the agent
	modules []module
	disk    string
}

type module struct {
	name string
	data []byte
}

// The modules that Debian's cloud kernel needs for the disk and the port, in
// load order. The kernel notes those of other versions that are missing.
var guestModules = []string{
	"drivers/virtio/virtio_ring.ko", "drivers/virtio/virtio.ko",
	"drivers/virtio/virtio_pci_legacy_dev.ko", "drivers/virtio/virtio_pci_modern_dev.ko", "drivers/virtio/virtio_pci.ko",
	"drivers/block/virtio_blk.ko", "drivers/char/virtio_console.ko",
}

var (
	guestOnce sync.Once
	theGuest  *guest
	guestErr  error
)

// bootable returns the guest, or skips the test where no kernels are booted.
func bootable(t *testing.T) *guest {
	t.Helper()
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
	for _, tool := range []string{"qemu-system-x86_64", "mke2fs", "sfdisk", "busybox", "dpkg-deb", "apt-get"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s not installed: run lab doctor --install", tool)
		}
	}
	guestOnce.Do(func() { theGuest, guestErr = makeGuest(t) })
	if guestErr != nil {
		t.Fatal(guestErr)
	}
	return theGuest
}

var testDir string // of the whole package's run

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if testDir, err = os.MkdirTemp("", "agent-test-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(testDir)
		return m.Run()
	}())
}

func makeGuest(t *testing.T) (*guest, error) {
	g := &guest{disk: filepath.Join(testDir, "disk")}
	initPath := filepath.Join(testDir, "init")
	build := exec.Command("go", "build", "-o", initPath, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	var err error
	if g.init, err = os.ReadFile(initPath); err != nil {
		return nil, err
	}
	// Any other kernel that has what the guest needs built in.
	if g.kernel = os.Getenv("LAB_TEST_BZIMAGE"); g.kernel != "" {
		return g, makeDisk(g.disk)
	}
	tree, deb := filepath.Join(testDir, "kernel"), debiantest.Kernel(t)
	if out, err := exec.Command("dpkg-deb", "-x", deb, tree).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("unpack %s: %w\n%s", deb, err, out)
	}
	images, _ := filepath.Glob(tree + "/boot/vmlinuz-*")
	if len(images) != 1 {
		return nil, fmt.Errorf("find the kernel in %s: found %q", tree, images)
	}
	g.kernel = images[0]
	for _, m := range guestModules {
		paths, _ := filepath.Glob(tree + "/lib/modules/*/kernel/" + m)
		for _, p := range paths {
			data, err := os.ReadFile(p)
			if err != nil {
				return nil, err
			}
			g.modules = append(g.modules, module{filepath.Base(p), data})
		}
	}
	return g, makeDisk(g.disk)
}

// testConfig is the runtime config of the test's container, with Docker's
// masked and read-only paths.
func testConfig() specs.Spec {
	return specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{Args: []string{"/bin/sh", "-c", "echo image command; pwd"}, Env: []string{"PATH=/bin:/odd", "FROM=image"}, Cwd: "/work/deep"},
		Root:    &specs.Root{Path: "rootfs"},
		Linux: &specs.Linux{
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/scsi"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// makeDisk makes a GPT with one partition lab-root, and in it the container
// app: a busybox, and some commands that cannot run.
func makeDisk(path string) error {
	tree := filepath.Join(testDir, "tree")
	app := filepath.Join(tree, "containers", "app")
	calls := exec.Command("go", "build", "-o", filepath.Join(testDir, "calls"), "./testdata/calls")
	calls.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := calls.CombinedOutput(); err != nil {
		return fmt.Errorf("build calls: %w\n%s", err, out)
	}
	callsProgram, err := os.ReadFile(filepath.Join(testDir, "calls"))
	if err != nil {
		return err
	}
	bin := filepath.Join(app, "rootfs", "bin")
	for _, dir := range []string{bin, filepath.Join(app, "rootfs", "etc"), filepath.Join(app, "rootfs", "odd")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return err
	}
	for _, a := range strings.Fields(string(applets)) {
		if a == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(bin, a)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	foreign := bytes.Clone(program)
	foreign[18] = 183 // e_machine: EM_AARCH64
	config, err := json.Marshal(testConfig())
	if err != nil {
		return err
	}
	for name, f := range map[string]struct {
		data []byte
		mode os.FileMode
	}{
		"rootfs/bin/busybox": {program, 0o755},
		"rootfs/bin/calls":   {callsProgram, 0o755},
		"rootfs/bin/becomes": {program, os.ModeSetuid | 0o755},
		"rootfs/etc/passwd":  {[]byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/nonexistent:/bin/sh\n"), 0o644},
		"rootfs/etc/group":   {[]byte("root:x:0:\nnogroup:x:65533:\nextra:x:77:nobody\n"), 0o644},
		"rootfs/odd/illegal": {illegalProgram(), 0o755},
		"rootfs/odd/foreign": {foreign, 0o755},
		"rootfs/odd/plain":   {[]byte("#!/bin/sh\n"), 0o644},
		"rootfs/odd/orphan":  {[]byte("#!/bin/missing -x\n"), 0o755},
		"rootfs/odd/text":    {[]byte("hello\n"), 0o755},
		"config.json":        {config, 0o644},
	} {
		if err := os.WriteFile(filepath.Join(app, name), f.data, f.mode); err != nil {
			return err
		}
	}
	const size, offset = 64 << 20, 1 << 20
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	part := exec.Command("sfdisk", "--quiet", path)
	part.Stdin = strings.NewReader("label: gpt\nstart=2048, name=lab-root\n")
	if out, err := part.CombinedOutput(); err != nil {
		return fmt.Errorf("sfdisk: %w\n%s", err, out)
	}
	mkfs := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-L", "lab-root", "-d", tree,
		"-E", fmt.Sprintf("offset=%d,root_owner=0:0", offset), path, fmt.Sprintf("%dk", (size-2*offset)>>10))
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs: %w\n%s", err, out)
	}
	return nil
}

// illegalProgram is an ELF program (elf(5)) of one undefined instruction: a
// signal that a PID 1 does not survive.
func illegalProgram() []byte {
	b := make([]byte, 0x80)
	copy(b, "\x7fELF\x02\x01\x01")
	le := func(at int, size int, v uint64) {
		for i := range size {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	le(16, 2, 2)        // e_type: executable
	le(18, 2, 62)       // e_machine: x86-64
	le(20, 4, 1)        // e_version
	le(24, 8, 0x400078) // e_entry
	le(32, 8, 64)       // e_phoff
	le(52, 2, 64)       // e_ehsize
	le(54, 2, 56)       // e_phentsize
	le(56, 2, 1)        // e_phnum
	le(64, 4, 1)        // p_type: load
	le(68, 4, 5)        // p_flags: read, execute
	le(80, 8, 0x400000) // p_vaddr
	le(88, 8, 0x400000) // p_paddr
	le(96, 8, 0x80)     // p_filesz
	le(104, 8, 0x80)    // p_memsz
	le(112, 8, 0x1000)  // p_align
	copy(b[0x78:], "\x0f\x0b")
	return b
}

// cpio writes a newc archive (admin-guide/initramfs-buffer-format).
type cpio struct {
	bytes.Buffer
	ino int
}

func (c *cpio) add(name string, mode uint32, data []byte, major, minor int) {
	c.ino++
	fmt.Fprintf(c, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.WriteString(name + "\x00")
	c.align()
	c.Write(data)
	c.align()
}

func (c *cpio) align() { c.Write(make([]byte, -c.Len()&3)) }

func (g *guest) initramfs(spec []byte, modules []module) []byte {
	var c cpio
	for _, dir := range []string{"dev", "lab", "modules"} {
		c.add(dir, unix.S_IFDIR|0o755, nil, 0, 0)
	}
	c.add("dev/console", unix.S_IFCHR|0o600, nil, 5, 1)
	c.add("init", unix.S_IFREG|0o755, g.init, 0, 0)
	var list strings.Builder
	for _, m := range modules {
		c.add("modules/"+m.name, unix.S_IFREG|0o644, m.data, 0, 0)
		fmt.Fprintf(&list, "/modules/%s\n", m.name)
	}
	c.add(probe.ModulesPath[1:], unix.S_IFREG|0o644, []byte(list.String()), 0, 0)
	c.add(probe.SpecPath[1:], unix.S_IFREG|0o644, spec, 0, 0)
	c.add("TRAILER!!!", 0, nil, 0, 0)
	return c.Bytes()
}

// A boot is one run of the guest.
type machine struct {
	spec    probe.Spec
	rawSpec string // instead of spec
	cmdline string // added to the command line
	serial  bool   // no virtio-serial: ttyS1
	alone   bool   // nobody on the host: only the console
	noDisk  bool
}

// outcome is what a boot came to.
type outcome struct {
	probe.Result
	err     error
	console string
	hello   time.Duration // from QEMU's start
	whole   time.Duration // until QEMU has ended
}

// boot boots the guest and runs the test in it.
func (g *guest) boot(t *testing.T, b machine) outcome {
	t.Helper()
	spec := []byte(b.rawSpec)
	if b.rawSpec == "" {
		var err error
		if spec, err = json.Marshal(b.spec); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, g.initramfs(spec, g.modules), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Minute, errors.New("the guest did not end within 3 minutes"))
	defer cancel()
	args := []string{
		"-accel", "tcg", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", g.kernel, "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 sysrq_always_enabled " + b.cmdline,
		"-chardev", "file,id=console,path=/dev/stdout", "-serial", "chardev:console",
	}
	if !b.noDisk {
		args = append(args, "-drive", "file="+g.disk+",format=raw,if=none,id=disk,snapshot=on", "-device", "virtio-blk-pci,drive=disk")
	}
	var files []*os.File
	var port io.ReadWriteCloser
	if !b.alone {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours := os.NewFile(uintptr(pair[0]), "port")
		files = append(files, os.NewFile(uintptr(pair[1]), "port"))
		if port, err = net.FileConn(ours); err != nil {
			t.Fatal(err)
		}
		_ = ours.Close()
		defer port.Close()
		args = append(args, "-chardev", "socket,id=port,fd=3")
	} else {
		args = append(args, "-chardev", "null,id=port")
	}
	if b.serial {
		args = append(args, "-serial", "chardev:port")
	} else {
		args = append(args, "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=lab.0")
	}
	var console bytes.Buffer
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &console, &console, files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var o outcome
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		_ = f.Close()
	}
	if port != nil {
		var s *probe.Session
		if s, o.err = probe.Accept(ctx, []io.ReadWriteCloser{port}); o.err == nil {
			o.hello = time.Since(start)
			o.Result, o.err = s.Run(ctx)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("qemu: %v: %v", err, context.Cause(ctx))
	}
	o.whole = time.Since(start)
	o.console = console.String()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("error: %v %s\nexit: %d %s\nnotes: %q\nstdout: %.4000s\nstderr: %.4000s\nsyslog: %.1000s\nconsole: %s",
				o.err, o.Error, o.Exit, o.Signal, o.Notes, o.Stdout, o.Stderr, o.Syslog, o.console)
		}
	})
	return o
}
