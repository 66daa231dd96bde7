package qemu

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lab/kernel/console"
	"lab/lab/debiantest"
)

// linux is what the end-to-end tests boot: a distribution's kernel, and an
// initramfs with the program in testdata/guest and the kernel's modules.
type linux struct{ kernel, initrd string }

var (
	linuxOnce sync.Once
	theLinux  linux
	linuxErr  error
)

// e2e skips the test unless end-to-end tests are on, and prepares the guest.
func e2e(t *testing.T) linux {
	t.Helper()
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
	needQEMU(t)
	linuxOnce.Do(func() {
		dir, err := os.MkdirTemp("", "lab-qemu-e2e-")
		if err != nil {
			linuxErr = err
			return
		}
		cleanup = func() { os.RemoveAll(dir) }
		theLinux, linuxErr = makeLinux(dir, debiantest.Kernel(t))
	})
	if linuxErr != nil {
		t.Fatal(linuxErr)
	}
	return theLinux
}

// cleanup removes what the tests share.
var cleanup = func() {}

func makeLinux(dir, deb string) (linux, error) {
	root := filepath.Join(dir, "root")
	if _, err := command(".", "dpkg-deb", "-x", deb, root); err != nil {
		return linux{}, err
	}
	kernels, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if len(kernels) != 1 {
		return linux{}, fmt.Errorf("%s has the kernels %q", deb, kernels)
	}
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return linux{}, fmt.Errorf("build the guest: %w\n%s", err, out)
	}

	var c cpio
	c.add("dev", 0o40755, 0, 0, nil)
	c.add("dev/console", 0o20600, 5, 1, nil)
	data, err := os.ReadFile(init)
	if err != nil {
		return linux{}, err
	}
	c.add("init", 0o100755, 0, 0, data)
	c.add("modules", 0o40755, 0, 0, nil)
	for i, name := range []string{"virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci_modern_dev",
		"virtio/virtio_pci", "block/virtio_blk", "char/virtio_console"} {
		files, _ := filepath.Glob(filepath.Join(root, "lib/modules/*/kernel/drivers", name+".ko"))
		for _, file := range files {
			if data, err = os.ReadFile(file); err != nil {
				return linux{}, err
			}
			c.add(fmt.Sprintf("modules/%d", i), 0o100644, 0, 0, data)
		}
	}
	c.add("TRAILER!!!", 0, 0, 0, nil)
	initrd := filepath.Join(dir, "initramfs")
	return linux{kernels[0], initrd}, os.WriteFile(initrd, c.Bytes(), 0o644)
}

func command(dir string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	return string(out), nil
}

// cpio is an archive in the newc format
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct{ bytes.Buffer }

func (c *cpio) add(name string, mode, major, minor int, data []byte) {
	fmt.Fprintf(c, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.Len(), mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	c.pad()
	c.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.Len()%4 != 0 {
		c.WriteByte(0)
	}
}

// machine is a guest that does what test says.
func (l linux) machine(test string, console io.Writer) Machine {
	return Machine{
		Kernel: l.kernel, Initrd: l.initrd, Memory: 256, Console: console,
		Cmdline: BaseCmdline + " lab.test=" + test,
	}
}

// deadline ends a boot that takes for ever, saying what the console had.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestLinuxPowerOff(t *testing.T) {
	l := e2e(t)
	var out, stderr bytes.Buffer
	m := l.machine("time", &out)
	m.Clock, m.Stderr = time.Date(2014, 3, 30, 12, 0, 0, 0, time.UTC), &stderr
	vm, err := m.Start(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	text := out.String()
	if !strings.HasPrefix(text, "[    0.000000] Linux version ") {
		t.Errorf("the console begins %.80q", text)
	}
	for _, want := range []string{"guest: hello\r\n", "guest: year 2014\r\n", "guest: bye\r\n", "reboot: Power down"} {
		if !strings.Contains(text, want) {
			t.Errorf("the console has no %q", want)
		}
	}
	if stderr.Len() != 0 {
		t.Errorf("QEMU said %q", stderr.String())
	}
}

// TestLinuxPort: 5 MB and an end without warning, by power-off and by panic;
// every byte arrives.
func TestLinuxPort(t *testing.T) {
	l := e2e(t)
	const size = 5_000_000
	want := sha256.New()
	for x, i := uint32(1), 0; i < size; i++ {
		x = x*1664525 + 1013904223
		want.Write([]byte{byte(x >> 24)})
	}
	for _, end := range []string{"off", "crash"} {
		t.Run(end, func(t *testing.T) {
			var out bytes.Buffer
			m := l.machine(fmt.Sprintf("modules,write:%d,%s", size, end), &out)
			m.Ports = []string{"other", "lab"}
			m.Cmdline += " panic=-1"
			vm, err := m.Start(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := vm.Wait(); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			got := sha256.New()
			n, err := io.Copy(got, vm.Ports()[1])
			if err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Errorf("%d bytes %x, %v; want %d bytes %x", n, got.Sum(nil), err, size, want.Sum(nil))
			}
			if crashed := strings.Contains(out.String(), "Kernel panic - not syncing: sysrq triggered crash"); crashed != (end == "crash") {
				t.Errorf("the console says:\n%s", out.String())
			}
		})
	}
}

// TestLinuxPanic: a panic is recognised while the guest still runs.
func TestLinuxPanic(t *testing.T) {
	l := e2e(t)
	for _, c := range []struct{ test, more, title string }{
		{"crash", "", "kernel panic: sysrq triggered crash"},
		{"time", " rdinit=/nope", "kernel panic: VFS: Unable to mount root fs on unknown-block(NUM,NUM)"},
	} {
		log := console.NewLog(1 << 20)
		var whole bytes.Buffer
		m := l.machine(c.test, io.MultiWriter(log, &whole))
		m.Cmdline += c.more
		vm, err := m.Start(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-log.Dead():
		case <-vm.Done():
			t.Errorf("%s: QEMU ended: %v", c.title, vm.Wait())
		}
		vm.Kill()
		if err := vm.Wait(); err != nil {
			t.Error(err)
		}
		log.Close()
		got, ok := console.Cause(log.Reports())
		if !ok || got.Title != c.title || !got.Fatal || !strings.Contains(got.Text, "---[ end Kernel panic - not syncing: ") {
			t.Errorf("got %+v, want %s", got, c.title)
		}
		if !bytes.Equal(log.Bytes(), whole.Bytes()) || !bytes.HasPrefix(whole.Bytes(), []byte("[    0.000000] Linux version ")) {
			t.Errorf("%s: the log is not the console:\n%s", c.title, log.Bytes())
		}
	}
}

// TestLinuxBothWays: a word to the guest and one back, on each channel.
func TestLinuxBothWays(t *testing.T) {
	l := e2e(t)
	var out bytes.Buffer
	m := l.machine("modules,echo", &out)
	m.Ports = []string{"lab"}
	vm, err := m.Start(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i, name := range []string{"lab", "ttyS1"} {
		wait.Go(func() {
			r := bufio.NewReader(vm.Ports()[i])
			for _, want := range []string{name + " ready\n", name + " got hello " + name + "\n"} {
				if line, err := r.ReadString('\n'); err != nil || line != want {
					t.Errorf("%s: %q, %v; want %q", name, line, err, want)
				}
				fmt.Fprintf(vm.Ports()[i], "hello %s\n", name)
			}
		})
	}
	wait.Wait()
	if err := vm.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestLinuxDisk: the guest sees the disk and may write; the file stays as it is.
func TestLinuxDisk(t *testing.T) {
	l := e2e(t)
	data := bytes.Repeat([]byte("a disk's content"), 1<<16)
	path := filepath.Join(t.TempDir(), "disk,1.img")
	if err := os.WriteFile(path, data, 0o444); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	var out bytes.Buffer
	m := l.machine("modules,disk", &out)
	m.Disks, m.TempDir = []Disk{{Path: path}}, tmp
	vm, err := m.Start(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("guest: disk %d %x", len(data), sha256.Sum256(data)); !strings.Contains(out.String(), want) || strings.Contains(out.String(), "guest: error") {
		t.Errorf("want %s; the console says:\n%s", want, out.String())
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, data) {
		t.Errorf("the guest changed the file, %v", err)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("%v left behind", left)
	}
}

// TestLinuxCancel: a running Linux ends with its context, having said all.
func TestLinuxCancel(t *testing.T) {
	l := e2e(t)
	ctx, cancel := context.WithCancel(deadline(t))
	seen := &watch{marker: []byte("guest: hello"), found: make(chan struct{})}
	vm, err := l.machine("sleep", seen).Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	<-seen.found
	cancel()
	if err := vm.Wait(); err == nil || !errors.Is(context.Cause(ctx), context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
	exits(t, vm.pid)
}

// TestLinuxAccelerator proves the proof: with tcg in the part of kvm, and with
// whatever this host has.
func TestLinuxAccelerator(t *testing.T) {
	l := e2e(t)
	binary, _ := fakeKVM(t, kvmWorks)
	o := ProbeOptions{Binary: binary, Kernel: l.kernel, Initrd: l.initrd, Deadline: time.Minute, kvm: os.DevNull}
	a, err := Accelerator(t.Context(), t.TempDir(), o)
	if err != nil || a.Proof != ProofLinux || a.Name != "kvm" {
		t.Errorf("%+v, %v", a, err)
	}
	o = ProbeOptions{Kernel: l.kernel, Initrd: l.initrd}
	a, err = Accelerator(t.Context(), t.TempDir(), o)
	if err != nil || a.Name != "kvm" && a.Name != "tcg" {
		t.Errorf("%+v, %v", a, err)
	}
	t.Logf("%+v", a)
}
