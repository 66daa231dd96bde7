package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lab/lab"
	"lab/lab/debiantest"
)

// TestUnfitKernel has a bzImage without an EFI stub: the user chose the wrong one.
func TestUnfitKernel(t *testing.T) {
	dir := t.TempDir()
	image := make([]byte, 4096) // the real-mode kernel header, and nothing else
	copy(image[0x1f1:], []byte{1})
	copy(image[0x1fe:], "\x55\xaaxxHdrS\x0f\x02")
	image[0x211] = 1
	kernel := filepath.Join(dir, "bzImage")
	if err := os.WriteFile(kernel, image, 0o644); err != nil {
		t.Fatal(err)
	}
	efi := make([]byte, 512) // as much of an EFI program as its machine type
	copy(efi, "MZ")
	efi[0x3c] = 0x80
	copy(efi[0x80:], "PE\x00\x00\x64\x86")
	loader := filepath.Join(dir, "loader.efi")
	if err := os.WriteFile(loader, efi, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(labDir, "lab"), "--cache", dir, "image", "build", "--bootable", "--kernel", kernel, "--loader", loader, "--load", "app=rootfs:"+dir, "-o", filepath.Join(dir, "disk.img"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != ExitUsage {
		t.Errorf("%v, want exit status %d", err, ExitUsage)
	}
	for _, want := range []string{kernel, "CONFIG_EFI_STUB"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q: %s", want, out)
		}
	}
	if h := hint(&lab.MissingLoader{}); !strings.Contains(h, "systemd-boot-efi") || !strings.Contains(h, "--loader") {
		t.Errorf("the hint for a missing loader is %q", h)
	}
}

// TestBootable boots an image under UEFI firmware, without lab, from disks of two
// kinds. Debian's cloud kernel has NVMe built in, virtio as modules, and no AHCI.
func TestBootable(t *testing.T) {
	needE2E(t)
	t.Parallel()
	home, fs := t.TempDir(), busyboxRoot(t)
	first := buildBootableImage(t, home, fs, "first.img")
	second := buildBootableImage(t, home, fs, "second.img")
	if first.Digest != second.Digest {
		t.Errorf("two builds differ: %s and %s", first.Digest, second.Digest)
	}
	for root, device := range map[string]string{"/dev/vda1": "virtio-blk-pci,drive=disk", "/dev/nvme0n1p1": "nvme,drive=disk,serial=1"} {
		t.Run(filepath.Base(root), func(t *testing.T) {
			log := bootUEFI(t, first.Path, device)
			rest := log
			for _, want := range []string{
				"BdsDxe: starting Boot",                          // the firmware
				"lab: app on Linux " + first.Boot.Kernel.Release, // the loader's menu
				"Linux version " + first.Boot.Kernel.Release,
				"lab.alone",
				"lab: the image's disk is " + root,
				"the container runs on " + first.Boot.Kernel.Release,
				"lab: test exited with status 3",
				"reboot: Power down",
			} {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("the console has no %q where it should:\n%s", want, log)
				}
				rest = after
			}
		})
	}
}

func buildBootableImage(t *testing.T, home, fs, name string) imageResult {
	t.Helper()
	cmd := exec.Command(filepath.Join(labDir, "lab"), "--cache", filepath.Join(home, "cache"), "image", "build", "--json", "--bootable",
		"--kernel", debiantest.Kernel(t), "--load", "app=rootfs:"+fs, "--env", "WHO=the container", "-o", filepath.Join(home, name),
		"--", "sh", "-c", `read -r _ _ release _ </proc/version; echo "$WHO runs on $release"; exit 3`)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var r imageResult
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if r.Boot == nil || !strings.Contains(stderr.String(), "finds its disk when it is virtio") {
		t.Fatalf("build says %s\n%s", out, &stderr)
	}
	return r
}

// bootUEFI boots the image in a machine that lab has nothing to do with, until
// it has powered off, and gives what came over the serial line.
func bootUEFI(t *testing.T, image, device string) string {
	t.Helper()
	var code, vars string
	for _, size := range []string{"_4M", ""} {
		code, vars = "/usr/share/OVMF/OVMF_CODE"+size+".fd", "/usr/share/OVMF/OVMF_VARS"+size+".fd"
		if _, err := os.Stat(code); err == nil {
			break
		}
	}
	data, err := os.ReadFile(vars)
	if err != nil {
		t.Fatalf("OVMF not installed: run lab doctor --install: %v", err)
	}
	ours := filepath.Join(t.TempDir(), "vars.fd")
	if err := os.WriteFile(ours, data, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("it did not power off within 5 minutes"))
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35", "-accel", "tcg", "-m", "512", "-display", "none", "-no-reboot",
		"-drive", "if=pflash,format=raw,readonly=on,file="+code, "-drive", "if=pflash,format=raw,file="+ours,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-drive", fmt.Sprintf("if=none,id=disk,format=raw,snapshot=on,file=%s", image), "-device", device)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Run(); err != nil {
		t.Fatalf("qemu: %v: %v\n%s", err, context.Cause(ctx), &console)
	}
	return console.String()
}
