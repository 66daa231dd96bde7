package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"lab/kernel"
	"lab/kernel/qemu"
)

// Purposes: what a tool is needed for, and so which commands lack it.
const (
	ForBoot    = "boot kernels (run, bisect, reproduce, demo)"
	ForBuild   = "build kernels (run --repo, bisect, demo)"
	ForDemo    = "lab demo"
	ForStories = "lab demo su and useradd"
	ForSpeed   = "build kernels sooner, when they were built before (not needed)"
	ForDebug   = "look into kernels with gdb (debug)"
	ForUEFI    = "make images that boot by themselves (image build --bootable)"
	ForTests   = "lab's own tests"
)

// A need is something that must be on the host: a program on PATH, or a file.
// Its packages are by package manager.
type need struct {
	name     string
	files    []string // any of these will do; empty: a program called name
	purpose  string
	packages map[string]string
}

// same says that a package is called the same everywhere.
func same(name string) map[string]string {
	return map[string]string{"apt-get": name, "dnf": name, "pacman": name, "zypper": name}
}

var needs = []need{
	{"qemu-system-x86_64", nil, ForBoot, map[string]string{"apt-get": "qemu-system-x86", "dnf": "qemu-system-x86-core", "pacman": "qemu-system-x86", "zypper": "qemu-x86"}},

	{"git", nil, ForBuild, same("git")},
	{"make", nil, ForBuild, same("make")},
	{"gcc", nil, ForBuild, same("gcc")},
	{"ld", nil, ForBuild, same("binutils")},
	{"flex", nil, ForBuild, same("flex")},
	{"bison", nil, ForBuild, same("bison")},
	{"bc", nil, ForBuild, same("bc")},
	{"perl", nil, ForBuild, same("perl")},
	{"lz4", nil, ForBuild, same("lz4")},
	{"C library headers", []string{"/usr/include/stdio.h"}, ForBuild, map[string]string{"apt-get": "libc6-dev", "dnf": "glibc-devel", "pacman": "glibc", "zypper": "glibc-devel"}},
	{"libelf headers", []string{"/usr/include/gelf.h"}, ForBuild, map[string]string{"apt-get": "libelf-dev", "dnf": "elfutils-libelf-devel", "pacman": "libelf", "zypper": "libelf-devel"}},
	{"OpenSSL headers", []string{"/usr/include/openssl/opensslv.h"}, ForBuild, map[string]string{"apt-get": "libssl-dev", "dnf": "openssl-devel", "pacman": "openssl", "zypper": "libopenssl-devel"}},

	{"ccache", nil, ForSpeed, same("ccache")},

	{"kernel source", []string{"/usr/src/linux-source-*.tar.*"}, ForDemo, map[string]string{"apt-get": "linux-source"}},
	{"xz", nil, ForDemo, map[string]string{"apt-get": "xz-utils", "dnf": "xz", "pacman": "xz", "zypper": "xz"}},

	{"gdb", nil, ForDebug, same("gdb")},

	{"systemd-boot", loaderPaths, ForUEFI, map[string]string{"apt-get": "systemd-boot-efi", "dnf": "systemd-boot-unsigned", "pacman": "systemd", "zypper": "systemd-boot"}},

	{"mmdebstrap", nil, ForStories, map[string]string{"apt-get": "mmdebstrap"}},
	{"audit headers", []string{"/usr/include/libaudit.h"}, ForStories, map[string]string{"apt-get": "libaudit-dev"}},
	{"secilc", nil, ForStories, same("secilc")},

	{"mke2fs", []string{"/sbin/mke2fs", "/usr/sbin/mke2fs"}, ForTests, same("e2fsprogs")},
	{"sfdisk", []string{"/sbin/sfdisk", "/usr/sbin/sfdisk"}, ForTests, map[string]string{"apt-get": "fdisk"}},
	{"sgdisk", []string{"/sbin/sgdisk", "/usr/sbin/sgdisk"}, ForTests, map[string]string{"apt-get": "gdisk"}},
	{"busybox", []string{"/bin/busybox", "/usr/bin/busybox"}, ForTests, map[string]string{"apt-get": "busybox-static"}},
	{"strace", nil, ForTests, same("strace")},
	{"python3", nil, ForTests, map[string]string{"apt-get": "python3", "dnf": "python3", "pacman": "python", "zypper": "python3"}},
	{"fsck.vfat", []string{"/sbin/fsck.vfat", "/usr/sbin/fsck.vfat"}, ForTests, same("dosfstools")},
	{"mcopy", nil, ForTests, same("mtools")},
	{"OVMF", []string{"/usr/share/OVMF/OVMF_CODE*.fd"}, ForTests, map[string]string{"apt-get": "ovmf"}},
	{"cpio", nil, ForTests, same("cpio")},
	{"dash", nil, ForTests, same("dash")},
	{"gzip", nil, ForTests, same("gzip")},
	{"rpmbuild", nil, ForTests, map[string]string{"apt-get": "rpm", "dnf": "rpm-build", "pacman": "rpm-tools", "zypper": "rpm-build"}},
	{"shellcheck", nil, ForTests, same("shellcheck")},
	{"umoci", nil, ForTests, same("umoci")},
	{"git send-email", []string{"/usr/lib/git-core/git-send-email", "/usr/libexec/git-core/git-send-email"}, ForTests, same("git-email")},
	{"Perl's Mail::Address", []string{"/usr/share/perl5/Mail/Address.pm", "/usr/share/perl5/vendor_perl/Mail/Address.pm"}, ForTests, map[string]string{"apt-get": "libmailtools-perl", "dnf": "perl-MailTools"}},
	{"chromium", nil, ForTests, same("chromium")},
	{"ssh-keygen", nil, ForTests, map[string]string{"apt-get": "openssh-client", "dnf": "openssh", "pacman": "openssh", "zypper": "openssh-common"}},
	{"bwrap", nil, ForTests, same("bubblewrap")},
	{"munged", []string{"/usr/sbin/munged"}, ForTests, same("munge")},
	{"slurmctld", []string{"/usr/sbin/slurmctld"}, ForTests, map[string]string{"apt-get": "slurmctld", "dnf": "slurm-slurmctld"}},
	{"slurmd", []string{"/usr/sbin/slurmd"}, ForTests, map[string]string{"apt-get": "slurmd", "dnf": "slurm-slurmd"}},
	{"srun", nil, ForTests, map[string]string{"apt-get": "slurm-client", "dnf": "slurm"}},
}

// installers are the package managers that lab knows, and how they install
// without asking. The first that is there is used.
var installers = []struct {
	name    string
	refresh []string
	install []string
}{
	{"apt-get", []string{"apt-get", "update", "-q"}, []string{"apt-get", "install", "-y", "-q", "--no-install-recommends"}},
	{"dnf", nil, []string{"dnf", "install", "-y"}},
	{"pacman", []string{"pacman", "-Sy", "--noconfirm"}, []string{"pacman", "-S", "--needed", "--noconfirm"}},
	{"zypper", nil, []string{"zypper", "--non-interactive", "install"}},
}

// Health is what Examine found out about this host.
type Health struct {
	Arch  string       `json:"arch"`
	QEMU  string       `json:"qemu,omitempty"`  // version; empty where there is none
	Accel *qemu.Accel  `json:"accel,omitempty"` // nil where there is no QEMU
	Tools []ToolHealth `json:"tools"`
	// Compilers are the installed gcc's, of which a build takes the one that suits
	// the kernel's age; their digests are not looked at.
	Compilers []kernel.Tool `json:"compilers,omitempty"`
	Images    *ImageEntry   `json:"toolchain_images,omitempty"` // nil where nobody asked about builds
	Disk      DiskHealth    `json:"disk"`
	Install   []string      `json:"install,omitempty"` // the command that installs what is missing
	Unknown   []string      `json:"unknown,omitempty"` // missing, and no package is known here
	refresh   []string
}

// ImageEntry says whether programs of an image can run on this host, as those of
// --toolchain docker://… do.
type ImageEntry struct {
	By      string `json:"by,omitempty"`      // how: bubblewrap, or namespaces of lab's own
	Problem string `json:"problem,omitempty"` // why not
}

// ToolHealth says whether one thing is there, and for what it is needed.
type ToolHealth struct {
	Name    string `json:"name"`
	Purpose string `json:"purpose"`
	Path    string `json:"path,omitempty"` // empty: missing
	Package string `json:"package,omitempty"`
}

// DiskHealth is the free space where the cache is.
type DiskHealth struct {
	Path   string `json:"path"`
	Free   int64  `json:"free"`   // bytes
	Enough bool   `json:"enough"` // for a kernel tree, its build and a few disks
}

// enoughDisk holds a checked out kernel tree (1.5 GB), its objects, a build
// and disk images.
const enoughDisk = 8 << 30

// Examine looks at the host for what the given purposes need. The accelerator
// is proven by booting something; refresh does that even where the answer is
// remembered.
func (l *Lab) Examine(ctx context.Context, purposes []string, refresh bool) (Health, error) {
	h := Health{Arch: runtime.GOARCH}
	manager := packageManager()
	var packages []string
	for _, n := range needs {
		if !slices.Contains(purposes, n.purpose) {
			continue
		}
		t := ToolHealth{Name: n.name, Purpose: n.purpose, Path: n.find(), Package: n.packages[manager]}
		h.Tools = append(h.Tools, t)
		switch {
		case t.Path != "" || t.Purpose == ForSpeed:
		case t.Package == "":
			h.Unknown = append(h.Unknown, t.Name)
		default:
			packages = append(packages, t.Package)
		}
	}
	for _, i := range installers {
		if i.name == manager && len(packages) > 0 {
			h.Install = asRoot(append(slices.Clone(i.install), slices.Compact(packages)...))
			h.refresh = asRoot(i.refresh)
		}
	}
	var err error
	if h.Disk, err = diskHealth(l); err != nil {
		return Health{}, err
	}
	if slices.Contains(purposes, ForBuild) {
		if h.Compilers, err = kernel.Compilers(ctx); err != nil {
			return Health{}, err
		}
		h.Images = &ImageEntry{}
		if h.Images.By, err = kernel.Entrance(ctx); err != nil {
			h.Images.Problem = oneLine(err.Error())
		}
	}
	binary, err := qemu.Find(runtime.GOARCH)
	if err != nil {
		return h, nil // it is among the missing tools
	}
	if h.QEMU, err = qemu.Version(ctx, binary); err != nil {
		return Health{}, err
	}
	a, err := l.Accelerator(ctx, binary, refresh)
	if err != nil {
		return Health{}, err
	}
	h.Accel = &a
	return h, nil
}

// Ready reports whether nothing is missing.
func (h Health) Ready() bool { return len(h.Install) == 0 && len(h.Unknown) == 0 }

// Missing names what is not there.
func (h Health) Missing() []string {
	var names []string
	for _, t := range h.Tools {
		if t.Path == "" && t.Purpose != ForSpeed {
			names = append(names, t.Name)
		}
	}
	return names
}

// InstallMissing runs the package manager on what is missing; its output goes
// to the progress lines.
func (l *Lab) InstallMissing(ctx context.Context, h Health) error {
	if len(h.Install) == 0 {
		return nil
	}
	for _, args := range [][]string{h.refresh, h.Install} {
		if len(args) == 0 {
			continue
		}
		l.Progress.Say("%s", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install packages: %s: %w\n%s", strings.Join(args, " "), err, lastPart(out, 2000))
		}
	}
	return nil
}

func lastPart(b []byte, most int) []byte { return b[max(0, len(b)-most):] }

func (n need) find() string {
	if len(n.files) == 0 {
		path, _ := exec.LookPath(n.name)
		return path
	}
	for _, f := range n.files {
		if found, _ := filepath.Glob(f); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	return ""
}

func packageManager() string {
	for _, i := range installers {
		if _, err := exec.LookPath(i.name); err == nil {
			return i.name
		}
	}
	return ""
}

// asRoot puts sudo before a command where one is not root.
func asRoot(args []string) []string {
	if len(args) == 0 || os.Geteuid() == 0 {
		return args
	}
	return append([]string{"sudo"}, args...)
}

// diskHealth measures where the cache is, or will be.
func diskHealth(l *Lab) (DiskHealth, error) {
	dir := l.Cache
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			free := int64(st.Bavail) * st.Bsize
			return DiskHealth{Path: dir, Free: free, Enough: free >= enoughDisk}, nil
		}
		if parent := filepath.Dir(dir); os.IsNotExist(err) && parent != dir {
			dir = parent
			continue
		}
		return DiskHealth{}, fmt.Errorf("measure free space of %s: %w", dir, err)
	}
}
