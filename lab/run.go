package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"lab/kernel"
	"lab/kernel/qemu"
	"lab/probe"
)

// Run does one trial and judges it.
func (l *Lab) Run(ctx context.Context, s Spec) (Trial, Verdict, error) {
	if err := s.Validate(); err != nil {
		return Trial{}, Verdict{}, err
	}
	t, err := l.run(ctx, s)
	if err != nil {
		return Trial{}, Verdict{}, err
	}
	return t, Judge(t, s.Symptom), nil
}

func (l *Lab) run(ctx context.Context, s Spec) (Trial, error) {
	var t Trial
	if s.Kernel.File != "" {
		k, err := l.readyMade(ctx, s.Kernel.File)
		if err != nil {
			return Trial{}, err
		}
		t = Trial{Kernel: k, End: EndBuilt}
	} else {
		tree, err := l.openTree(ctx, s.Kernel.Repo)
		if err != nil {
			return Trial{}, err
		}
		defer tree.Close()
		c, err := tree.Resolve(ctx, s.Kernel.Commit)
		if err != nil {
			return Trial{}, err
		}
		if t, err = l.build(ctx, tree, c, s); err != nil {
			return Trial{}, err
		}
	}
	if t.End == EndBuild || !s.needsGuest() {
		return t, nil
	}
	g, err := l.prepare(ctx, s, nil)
	if err != nil {
		return Trial{}, err
	}
	return t, l.try(ctx, s, g, &t)
}

// readyMade opens a kernel that somebody else built.
func (l *Lab) readyMade(ctx context.Context, path string) (kernel.Kernel, error) {
	if !isPackage(path) {
		return kernel.FromFile(path)
	}
	l.Progress.live("unpacking %s", filepath.Base(path))
	defer l.Progress.live("")
	return kernel.FromPackage(ctx, l.Cache, path)
}

// isPackage tells a Debian package from a kernel by its first bytes (ar's
// magic, see deb(5)); a file that can't be read is left for others to explain.
func isPackage(path string) bool {
	const magic = "!<arch>\n"
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, len(magic))
	n, _ := f.Read(b)
	return string(b[:n]) == magic
}

func (l *Lab) openTree(ctx context.Context, repo string) (*kernel.Tree, error) {
	l.Progress.live("opening %s", repo)
	defer l.Progress.live("")
	return kernel.OpenTree(ctx, l.Cache, repo)
}

// build makes a commit's kernel. The trial it gives ended in EndBuild where
// the kernel does not build, and else stands at EndBuilt.
func (l *Lab) build(ctx context.Context, tree *kernel.Tree, c kernel.Commit, s Spec) (Trial, error) {
	fragments, err := s.Kernel.fragments()
	if err != nil {
		return Trial{}, err
	}
	start := time.Now()
	defer l.Progress.live("")
	l.Progress.live("building %s", short(c.Hash))
	k, failure, cached, err := tree.Build(ctx, c.Hash, kernel.BuildOptions{
		Fragments: fragments,
		Jobs:      s.Kernel.Jobs,
		Progress: func(line string, objects, total int) {
			switch {
			case objects == 0 && strings.HasPrefix(line, "waiting"):
				l.Progress.live("%s", line)
			case total > 0:
				l.Progress.live("building %s: %d of about %d objects, %s", short(c.Hash), objects, total, seconds(time.Since(start)))
			default:
				l.Progress.live("building %s: %d objects, %s", short(c.Hash), objects, seconds(time.Since(start)))
			}
		},
	})
	if err != nil {
		return Trial{}, err
	}
	t := Trial{Kernel: k, End: EndBuilt, Cached: cached, Build: time.Since(start)}
	if failure != nil {
		t.End, t.Failure, t.Detail = EndBuild, failure, oneLine(failure.Line)
		t.Kernel.Commit = c.Hash
		return t, nil
	}
	if len(k.Missing) > 0 {
		l.Progress.line("config: %d requested symbols did not survive in %s: %s", len(k.Missing), short(c.Hash), some(k.Missing, 6))
	}
	return t, nil
}

// some names the first few of a list.
func some(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// try boots the trial's kernel with the guest and runs the test.
func (l *Lab) try(ctx context.Context, s Spec, g *guest, t *Trial) error {
	if err := checkConfig(t); err != nil || t.End == EndBoot {
		return err
	}
	dir, err := os.MkdirTemp("", "lab-trial-")
	if err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	defer os.RemoveAll(dir)
	initrd, err := g.keepInitramfs(dir, t.Kernel)
	if err != nil {
		return err
	}
	m, accel, err := l.machine(ctx, s.Machine, t)
	if err != nil {
		return err
	}
	m.Kernel, m.Initrd, m.Cmdline = t.Kernel.Image, initrd, cmdline(s.Machine.Cmdline)
	m.Disks = []qemu.Disk{{Path: g.disk.Path}}
	m.Clock = g.test.Epoch
	l.Progress.live("booting %s", t.Kernel.Release)
	defer l.Progress.live("")
	before := *t
	if err := boot(ctx, m, s.Machine.BootTimeout, s.Test.Timeout, t); err != nil || accel.Name != "kvm" || accel.Proof == qemu.ProofLinux {
		return err
	}
	return l.proveKVM(ctx, m, s, before, t)
}

// proveKVM learns from the first boot of a Linux with a KVM that is proven by
// no more than a small guest. One that did not get the kernel to userspace is
// not trusted: the trial is done again with TCG, and if that boots it, TCG is
// used on this host from now on.
func (l *Lab) proveKVM(ctx context.Context, m qemu.Machine, s Spec, before Trial, t *Trial) error {
	dir, err := l.dir("host")
	if err != nil {
		return err
	}
	learned := qemu.Accel{Name: "kvm", Reason: "a Linux booted with it", Proof: qemu.ProofLinux, Tried: time.Now().UTC()}
	if t.End == EndBoot {
		l.Progress.line("%s does not boot with KVM (%s): trying without", t.Kernel.Release, t.Detail)
		m.Accel = "tcg"
		if err := boot(ctx, m, s.Machine.BootTimeout, s.Test.Timeout, &before); err != nil {
			return err
		}
		if *t = before; t.End == EndBoot {
			return nil // the kernel's own fault
		}
		learned.Name, learned.Reason = "tcg", "a Linux that boots with tcg did not boot with kvm"
	}
	return qemu.Remember(ctx, dir, m.Binary, learned)
}

// checkConfig ends the trial where the kernel's config shows that the guest
// cannot come up, so that a missing option is named instead of a hang.
func checkConfig(t *Trial) error {
	lacks, err := t.Kernel.Lacks()
	if err == nil && len(lacks) > 0 {
		t.End, t.Detail = EndBoot, "its config lacks what the guest needs: "+some(lacks, 8)
	}
	return err
}

// machine is the part of the virtual machine that does not depend on what is
// booted: the binary, the accelerator, sizes, ports. Where the accelerator was
// not asked for, it comes with the proof that it works.
func (l *Lab) machine(ctx context.Context, s MachineSpec, t *Trial) (qemu.Machine, qemu.Accel, error) {
	m := qemu.Machine{Binary: s.QEMU, Accel: s.Accel, Memory: s.Memory, CPUs: s.CPUs, Ports: []string{probe.Port}}
	var err error
	if m.Binary == "" {
		if m.Binary, err = qemu.Find(runtime.GOARCH); err != nil {
			return qemu.Machine{}, qemu.Accel{}, err
		}
	}
	if t.QEMU, err = qemu.Version(ctx, m.Binary); err != nil {
		return qemu.Machine{}, qemu.Accel{}, err
	}
	if m.Accel != "" {
		return m, qemu.Accel{}, nil
	}
	a, err := l.Accelerator(ctx, m.Binary, false)
	m.Accel = a.Name
	return m, a, err
}

// Accelerator says which accelerator works on this host: KVM only where a
// real boot proved it. The answer is remembered for the host; refresh asks
// the machine again.
func (l *Lab) Accelerator(ctx context.Context, binary string, refresh bool) (qemu.Accel, error) {
	dir, err := l.dir("host")
	if err != nil {
		return qemu.Accel{}, err
	}
	l.Progress.live("checking whether KVM works here")
	defer l.Progress.live("")
	return qemu.Accelerator(ctx, dir, qemu.ProbeOptions{Binary: binary, Refresh: refresh})
}

func short(hash string) string {
	if len(hash) > 12 {
		return hash[:12]
	}
	return hash
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
