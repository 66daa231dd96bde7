// Package debiantest gives tests a real Debian: a kernel's package and a root
// file system. Only tests import it, those of every room.
package debiantest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Kernel is the path of a .deb with a kernel: what LAB_TEST_KERNEL names, or
// else the distribution's present cloud kernel, downloaded with apt-get.
func Kernel(t testing.TB) string {
	t.Helper()
	if deb := os.Getenv("LAB_TEST_KERNEL"); deb != "" {
		return deb
	}
	name := KernelPackage(t)
	return Package(t, name)
}

// KernelPackage is the name of the package that has the distribution's present
// cloud kernel; it goes with the version.
func KernelPackage(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("apt-cache", "depends", "--important", "linux-image-cloud-amd64").Output()
	if err != nil {
		t.Fatalf("find the cloud kernel's package: %v (run apt-get update)", err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			return name
		}
	}
	t.Fatalf("linux-image-cloud-amd64 depends on nothing:\n%s", out)
	return ""
}

// Package downloads a package and gives the path of its .deb.
func Package(t testing.TB, name string) string {
	t.Helper()
	cmd := exec.Command("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("download %s: %v\n%s", name, err, out)
	}
	debs, err := filepath.Glob(filepath.Join(cmd.Dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("download %s: got %v, %v", name, debs, err)
	}
	return debs[0]
}

// Rootfs is the path of a tar of a Debian root file system: what
// LAB_TEST_ROOTFS names, or else one that mmdebstrap makes of the
// distribution's own release.
func Rootfs(t testing.TB) string {
	t.Helper()
	if tar := os.Getenv("LAB_TEST_ROOTFS"); tar != "" {
		return tar
	}
	return mmdebstrap(t, "--variant=minbase")
}

// Programs is the path of a tar with packages of the distribution's own release and
// what they depend on, unpacked and not configured: programs that find their
// libraries, and no system. That takes seconds.
func Programs(t testing.TB, packages ...string) string {
	t.Helper()
	return mmdebstrap(t, "--variant=extract", "--include="+strings.Join(packages, ","))
}

// Bullseye is the path of a tar with useradd of Debian 11, the users that it wants, and
// SELinux said to be on.
func Bullseye(t testing.TB) string {
	t.Helper()
	return makeRoot(t, "bullseye", "--variant=extract", "--include=passwd", `--extract-hook=cd "$1"/etc && mkdir -p selinux &&
		echo root:x:0:0:root:/root:/bin/sh >passwd && echo root:x:0: >group &&
		printf 'SELINUX=enforcing\nSELINUXTYPE=default\n' >selinux/config`)
}

// mmdebstrap makes a root file system of the distribution's own release.
func mmdebstrap(t testing.TB, args ...string) string {
	t.Helper()
	suite, err := exec.Command("sh", "-c", `. /etc/os-release && echo "$VERSION_CODENAME"`).Output()
	if err != nil {
		t.Fatalf("find the distribution's release: %v", err)
	}
	return makeRoot(t, strings.TrimSpace(string(suite)), args...)
}

func makeRoot(t testing.TB, release string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Fatal("mmdebstrap is not installed: run lab doctor --install")
	}
	tar := filepath.Join(t.TempDir(), "debian.tar")
	// A mirror that lags behind is good enough for a test.
	args = append([]string{"--quiet", `--aptopt=Acquire::Check-Valid-Until "false"`}, args...)
	cmd := exec.Command("mmdebstrap", append(args, release, tar)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	return tar
}
