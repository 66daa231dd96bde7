package lab

import (
	"context"
	"crypto/sha256"
	"debug/pe"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"lab/disk"
	"lab/kernel"
)

// A BootSpec is what an image that boots by itself takes besides a Spec, of
// which Kernel, Images, Test and Machine.Cmdline count.
type BootSpec struct {
	Loader string // systemd-boot's EFI program; empty finds the installed one
	Stay   bool   // leave the machine on when the test is over
}

// A Boot says what an image boots.
type Boot struct {
	Kernel    BootKernel    `json:"kernel"`
	Loader    disk.BootFile `json:"loader"`
	Initramfs string        `json:"initramfs"` // its digest
	Cmdline   string        `json:"cmdline"`
	Container string        `json:"container"` // the one that is run
	// Disks are the kinds of disk that the kernel has a driver for, NoDisks those
	// that it has none for; both are empty when its configuration is not known.
	Disks   []string `json:"disks,omitempty"`
	NoDisks []string `json:"no_disks,omitempty"`
}

// A BootKernel is a kernel by what names it.
type BootKernel struct {
	Release string `json:"release"`
	Digest  string `json:"digest"`
	Source  string `json:"source"`
}

// An UnfitKernel is the error for a kernel that UEFI firmware cannot start, or
// that cannot run the guest.
type UnfitKernel struct {
	File  string
	Lacks []string
}

func (e *UnfitKernel) Error() string {
	return fmt.Sprintf("the kernel in %s cannot be booted by UEFI firmware; it lacks: %s", e.File, some(e.Lacks, 8))
}

// A MissingLoader is the error where no boot loader is installed.
type MissingLoader struct{ Paths []string }

func (e *MissingLoader) Error() string {
	return "find a boot loader: there is no " + strings.Join(e.Paths, ", ")
}

// loaderPaths are where distributions put systemd-boot for x86-64.
var loaderPaths = []string{
	"/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
	"/lib/systemd/boot/efi/systemd-bootx64.efi",
	"/run/current-system/sw/lib/systemd/boot/efi/systemd-bootx64.efi",
}

// bootCmdline is what a kernel is told on a machine that is not lab's: to write
// to the screen and to the first serial line, at the rate that serial consoles
// of machines have; not to check a timer that emulators are late with (see
// qemu.BaseCmdline); and to stay where it panics, for somebody to read it.
const bootCmdline = "console=tty0 console=ttyS0,115200 no_timer_check oops=panic panic=0 lab.alone"

// BuildBootable is BuildDisk for an image that boots without lab, on whatever
// machine has UEFI firmware: it brings its kernel, mounts itself, runs the test
// on the console and powers off.
func (l *Lab) BuildBootable(ctx context.Context, s Spec, b BootSpec, path string) (Disk, Boot, error) {
	fail := func(err error) (Disk, Boot, error) { return Disk{}, Boot{}, err }
	if err := s.Validate(); err != nil {
		return fail(err)
	}
	loader, err := findLoader(b.Loader)
	if err != nil {
		return fail(err)
	}
	k, err := l.bootKernel(ctx, s)
	if err != nil {
		return fail(err)
	}
	boot := Boot{Kernel: BootKernel{k.Release, k.Digest, k.Source}, Loader: loader, Container: s.Test.Container}
	if boot.Disks, boot.NoDisks, err = k.Disks(); err != nil {
		return fail(err)
	}
	boot.Cmdline = bootCmdline
	if b.Stay {
		boot.Cmdline += " lab.stay"
	}
	if extra := strings.TrimSpace(s.Machine.Cmdline); extra != "" {
		boot.Cmdline += " " + extra
	}

	agent, err := l.Agent()
	if err != nil {
		return fail(err)
	}
	f, initramfs, err := (&guest{test: s.Test, agent: agent}).memoryInitramfs(k)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if boot.Initramfs, err = digestOf(initramfs); err != nil {
		return fail(err)
	}
	d, err := l.buildDisk(ctx, s, nil, &disk.Boot{
		Loader:    loader,
		Kernel:    disk.BootFile{Path: k.Image, Digest: k.Digest},
		Initramfs: disk.BootFile{Path: initramfs, Digest: boot.Initramfs},
		Cmdline:   boot.Cmdline,
		Title:     fmt.Sprintf("lab: %s on Linux %s", s.Test.Container, k.Release),
	}, path)
	return d, boot, err
}

// bootKernel gets the kernel, and sees to it that firmware can start it.
func (l *Lab) bootKernel(ctx context.Context, s Spec) (kernel.Kernel, error) {
	k, err := l.readyMade(ctx, s, "", kernel.DiskDrivers()...)
	if err != nil {
		return kernel.Kernel{}, err
	}
	lacks, err := k.LacksUEFI()
	if err == nil && len(lacks) > 0 {
		err = &UnfitKernel{s.Kernel.File, lacks}
	}
	return k, err
}

// findLoader names the boot loader and its digest.
func findLoader(path string) (disk.BootFile, error) {
	if path == "" {
		for _, p := range loaderPaths {
			if _, err := os.Stat(p); err == nil {
				path = p
				break
			}
		}
		if path == "" {
			return disk.BootFile{}, &MissingLoader{loaderPaths}
		}
	}
	digest, err := digestOf(path)
	if err != nil {
		return disk.BootFile{}, fmt.Errorf("read boot loader: %w", err)
	}
	program, err := pe.Open(path)
	if err != nil {
		return disk.BootFile{}, fmt.Errorf("read boot loader %s: not an EFI program: %w", path, err)
	}
	defer program.Close()
	if program.Machine != pe.IMAGE_FILE_MACHINE_AMD64 {
		return disk.BootFile{}, fmt.Errorf("read boot loader %s: it is for machine type %#x, the kernel for x86-64", path, program.Machine)
	}
	path, err = filepath.Abs(path)
	return disk.BootFile{Path: path, Digest: digest}, err
}

// digestOf is sha256:… of a file's bytes.
func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), nil
}

// digests are those of files.
func digests(paths []string) (list []string, err error) {
	for _, p := range paths {
		d, err := digestOf(p)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// hasCommand says whether a container's runtime config has something to run.
func hasCommand(config []byte) bool {
	var c struct {
		Process struct {
			Args []string `json:"args"`
		} `json:"process"`
	}
	return json.Unmarshal(config, &c) == nil && len(c.Process.Args) > 0
}
