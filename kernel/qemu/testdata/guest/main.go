// The guest of the end-to-end tests: PID 1 of an initramfs. It does what the
// kernel's command line says (lab.test=…), says so on the console, and powers
// off at once.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	fmt.Println("guest: hello")
	if err := run(); err != nil {
		fmt.Println("guest: error:", err)
	}
	fmt.Println("guest: bye")
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for _, m := range [][2]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(cmdline), "lab.test=")
	test, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	for what := range strings.SplitSeq(test, ",") {
		if err := do(what); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func do(what string) error {
	what, arg, _ := strings.Cut(what, ":")
	switch what {
	case "modules":
		return modules()
	case "time":
		fmt.Println("guest: year", time.Now().UTC().Year())
	case "write": // so many bytes to the port called "lab"
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		return write(n)
	case "echo": // a line from each channel back, with the channel's name
		return echo()
	case "disk":
		return disk()
	case "crash":
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "sleep":
		time.Sleep(time.Hour)
	}
	return nil
}

// modules loads /modules/*, named in the order of loading.
func modules() error {
	files, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		none := []byte{0}
		_, _, errno := syscall.Syscall(313 /* finit_module */, f.Fd(), uintptr(unsafe.Pointer(&none[0])), 0)
		f.Close()
		if errno != 0 {
			return fmt.Errorf("load %s: %w", file, errno)
		}
	}
	return nil
}

// port opens a virtio-serial port by name.
func port(name string) (*os.File, error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err == nil && strings.TrimSpace(string(b)) == name {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
			}
		}
	}
	return nil, fmt.Errorf("no port %q", name)
}

func write(n int) error {
	f, err := port("lab")
	if err != nil {
		return err
	}
	block := make([]byte, 16<<10)
	for x := uint32(1); n > 0; n -= len(block) {
		for i := range block {
			x = x*1664525 + 1013904223
			block[i] = byte(x >> 24)
		}
		if _, err := f.Write(block[:min(n, len(block))]); err != nil {
			return err
		}
	}
	return nil
}

func echo() error {
	p, err := port("lab")
	if err != nil {
		return err
	}
	s, err := os.OpenFile("/dev/ttyS1", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	var termios [64]byte // raw: no echo, no translation
	syscall.Syscall(syscall.SYS_IOCTL, s.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&termios)))
	t := (*syscall.Termios)(unsafe.Pointer(&termios))
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	syscall.Syscall(syscall.SYS_IOCTL, s.Fd(), syscall.TCSETS, uintptr(unsafe.Pointer(&termios)))
	for i, f := range []*os.File{p, s} {
		name := []string{"lab", "ttyS1"}[i]
		fmt.Fprintf(f, "%s ready\n", name)
		line, err := bufio.NewReader(f).ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(f, "%s got %s", name, line); err != nil {
			return err
		}
	}
	return nil
}

// disk says what is on /dev/vda, writes all over it, and reads it again.
func disk() error {
	var f *os.File
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if f, err = os.OpenFile("/dev/vda", os.O_RDWR, 0); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	fmt.Printf("guest: disk %d %x\n", len(before), sha256.Sum256(before))
	if _, err := f.WriteAt(bytes.Repeat([]byte("guest"), len(before)/5), 0); err != nil {
		return err
	}
	return f.Sync()
}
