package qemu

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("LAB_TEST_PARENT"); path != "" {
		parent(path)
	}
	code := m.Run()
	cleanup()
	os.Exit(code)
}

// needQEMU fails the test when there is no QEMU.
func needQEMU(t *testing.T) string {
	t.Helper()
	path, err := Find("amd64")
	if err != nil {
		t.Fatal("qemu-system-x86_64 not installed: run lab doctor --install")
	}
	return path
}

// tinyKernel writes the probe guest to a file, or one that halts for ever
// where that would begin its work.
func tinyKernel(t *testing.T, halt bool) string {
	t.Helper()
	data := bytes.Clone(tiny)
	if halt {
		copy(data[0x240:], "\xf4\xeb\xfd") // hlt; jmp .-1
	}
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func emptyDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a,b=c.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o444); err != nil {
		t.Fatal(err)
	}
	return path
}

// exits waits for a process that is not ours to reap.
func exits(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	awaitFD(t, fd, pid)
}

func awaitFD(t *testing.T, pidfd, pid int) {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		n, err := unix.Poll(p, 1000)
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		if n == 1 {
			return
		}
	}
	t.Fatalf("process %d is still there", pid)
}

func TestTiny(t *testing.T) {
	for _, tool := range []string{"as", "ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s not installed: run lab doctor --install", tool)
		}
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"as", "--64", "-o", dir + "/tiny.o", "tiny/tiny.S"},
		{"ld", "-m", "elf_x86_64", "-Ttext", "0", "--oformat", "binary", "-e", "0", "-o", dir + "/tiny.bin", dir + "/tiny.o"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	want, err := os.ReadFile(dir + "/tiny.bin")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("tiny/tiny.bin", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, tiny) {
		t.Error("tiny.bin is not what tiny.S assembles to: run go test -update")
	}
}

func TestRun(t *testing.T) {
	needQEMU(t)
	var console, stderr bytes.Buffer
	tmp := t.TempDir()
	m := Machine{
		Kernel: tinyKernel(t, false), Memory: 128, Disks: []Disk{{Path: emptyDisk(t)}, {Path: emptyDisk(t)}}, Ports: []string{"lab", "x,y"},
		Clock: time.Unix(1e9, 0), TempDir: tmp, Console: &console, Stderr: &stderr,
	}
	vm, err := m.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := console.String(); got != tinyMarker+"\n" {
		t.Errorf("console %q", got)
	}
	if stderr.Len() != 0 {
		t.Errorf("QEMU said %q", stderr.String())
	}
	if n := len(vm.Ports()); n != 3 {
		t.Fatalf("%d ports, want 2 and the serial port", n)
	}
	for i, p := range vm.Ports() {
		if out, err := io.ReadAll(p); len(out) != 0 || err != nil {
			t.Errorf("port %d: %q, %v", i, out, err)
		}
		if _, err := p.Write([]byte("x")); err == nil {
			t.Errorf("port %d: Write after the end worked", i)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	vm.Kill() // too late, and harmless
	if err := vm.Wait(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("%v left behind", left)
	}
}

func TestStartErrors(t *testing.T) {
	needQEMU(t)
	kernel := tinyKernel(t, false)
	for name, c := range map[string]struct {
		m    Machine
		want string
	}{
		"no such CPU":    {Machine{Kernel: kernel, CPU: "i4004"}, "qemu exited: status 1: qemu-system-x86_64: unable to find CPU model 'i4004'"},
		"no such kernel": {Machine{Kernel: "/nope"}, "qemu exited: status 1: qemu: could not open kernel file '/nope': No such file or directory"},
		"no such disk":   {Machine{Kernel: kernel, Disks: []Disk{{Path: "/nope"}}}, "Could not open '/nope': No such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			vm, err := c.m.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := vm.Wait(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	_, err := Machine{Kernel: kernel, Binary: "qemu-system-pdp11"}.Start(t.Context())
	if e := (*ErrMissing)(nil); !errors.As(err, &e) || e.Binary != "qemu-system-pdp11" {
		t.Errorf("got %v, want ErrMissing", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("second thoughts")
	cancel(why)
	if _, err := (Machine{Kernel: kernel}).Start(ctx); !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
	t.Setenv("PATH", t.TempDir())
	_, err = Machine{Kernel: kernel}.Start(t.Context())
	if e := (*ErrMissing)(nil); !errors.As(err, &e) || e.Error() != "qemu-system-x86_64 is not installed" {
		t.Errorf("got %v, want ErrMissing", err)
	}
}

func TestVersion(t *testing.T) {
	v, err := Version(t.Context(), needQEMU(t))
	if err != nil || v == "" {
		t.Errorf("%q, %v", v, err)
	}
	if _, err := Version(t.Context(), "/bin/echo"); err == nil {
		t.Error("echo has a QEMU version")
	}
	if _, err := Version(t.Context(), "/nope/qemu"); !errors.As(err, new(*ErrMissing)) {
		t.Errorf("got %v, want ErrMissing", err)
	}
}

// TestEnds: a guest that does nothing ends by its context, by Kill, and when
// QEMU does not obey SIGTERM.
func TestEnds(t *testing.T) {
	needQEMU(t)
	m := Machine{Kernel: tinyKernel(t, true), Memory: 128, Ports: []string{"lab"}}
	why := errors.New("enough")

	ctx, cancel := context.WithCancelCause(t.Context())
	vm, err := m.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel(why)
	if err := vm.Wait(); !errors.Is(err, why) {
		t.Errorf("after cancel: %v", err)
	}
	exits(t, vm.pid)

	if vm, err = m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	vm.Kill()
	if err := vm.Wait(); err != nil {
		t.Errorf("after Kill: %v", err)
	}

	// A process that was never born a QEMU: it ignores SIGTERM, and says so.
	deaf := filepath.Join(t.TempDir(), "deaf")
	if err := os.WriteFile(deaf, []byte("#!/bin/sh\ntrap '' TERM\necho deaf >&3\nwhile :; do read x <&4; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Binary = deaf
	said := &watch{marker: []byte("deaf\n"), found: make(chan struct{})}
	m.Console = said
	if vm, err = m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-said.found
	vm.Kill()
	if err := vm.Wait(); err != nil {
		t.Errorf("after Kill: %v", err)
	}

	if vm, err = m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(vm.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(); err == nil || err.Error() != "qemu exited: signal killed" {
		t.Errorf("after a stranger's SIGKILL: %v", err)
	}
}

// TestParentKilled: QEMU does not outlive a lab that dies by SIGKILL, and
// leaves no file.
func TestParentKilled(t *testing.T) {
	needQEMU(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "LAB_TEST_PARENT="+tinyKernel(t, true), "LAB_TEST_DISK="+emptyDisk(t), "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if pgid, err := unix.Getpgid(pid); err != nil || pgid != pid {
		t.Errorf("QEMU %d is in process group %d, %v", pid, pgid, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitFD(t, fd, pid)
	cmd.Wait()
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("%v left behind", left)
	}
}

// parent is the other half of TestParentKilled: it says QEMU's pid once the
// guest runs (a monitor-less QEMU shows that by having unlinked its overlay)
// and waits to be killed.
func parent(kernel string) {
	vm, err := Machine{Kernel: kernel, Memory: 128, Disks: []Disk{{Path: os.Getenv("LAB_TEST_DISK")}}, Ports: []string{"lab"}}.Start(context.Background())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for deadline := time.Now().Add(30 * time.Second); !overlayUnlinked(vm.pid); {
		if time.Now().After(deadline) {
			fmt.Println("no overlay")
			os.Exit(1)
		}
	}
	fmt.Println(vm.pid)
	fmt.Println(vm.Wait())
	os.Exit(1)
}

func overlayUnlinked(pid int) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "/vl.") && strings.HasSuffix(to, " (deleted)") {
			return true
		}
	}
	return false
}

// TestPort: what arrives is kept for a late reader, up to a limit.
func TestPort(t *testing.T) {
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	p := newPort(ours)
	pumped := make(chan struct{})
	go func() { p.pump(exited); close(pumped) }()
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	const blocks = 40                                        // more than maxUnread
	sent := make(chan error)
	go func() {
		for range blocks {
			if _, err := theirs.Write(block); err != nil {
				sent <- err
				return
			}
		}
		sent <- theirs.Close()
	}()
	h := 0
	buf := make([]byte, 1<<20)
	for range blocks {
		if _, err := io.ReadFull(p, buf); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, block) {
			t.Fatalf("block %d differs", h)
		}
		h++
	}
	if n, err := p.Read(buf); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	<-pumped
	if p.unread != 0 {
		t.Errorf("%d bytes unread", p.unread)
	}
}

// TestPortUnread: nobody reads; the pump stops at the limit, and ends with
// QEMU or with Close.
func TestPortUnread(t *testing.T) {
	for _, end := range []string{"exit", "close"} {
		ours, theirs, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		exited := make(chan struct{})
		p := newPort(ours)
		pumped := make(chan struct{})
		go func() { p.pump(exited); close(pumped) }()
		if err := unix.SetNonblock(int(theirs.Fd()), true); err != nil {
			t.Fatal(err)
		}
		block := make([]byte, 64<<10)
		total := 0
		for {
			n, err := unix.Write(int(theirs.Fd()), block)
			total += max(n, 0)
			p.mu.Lock()
			full := p.unread >= maxUnread
			p.mu.Unlock()
			if err == unix.EAGAIN && full {
				break
			}
		}
		if p.unread > maxUnread+64<<10 {
			t.Errorf("%d bytes kept", p.unread)
		}
		switch end {
		case "exit":
			theirs.Close()
			close(exited)
			<-pumped
			if n, err := io.Copy(io.Discard, p); int(n) != total || err != nil {
				t.Errorf("read %d of %d bytes, %v", n, total, err)
			}
		case "close":
			p.Close()
			if _, err := p.Read(block); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Read after Close: %v", err)
			}
			theirs.Close()
			<-pumped
		}
	}
}
