package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"lab/kernel"
	"lab/lab/bundle"
)

// BundleShell says what of a bundle is booted for a shell.
type BundleShell struct {
	Role     string   // of the kernel
	Command  []string // empty is /bin/sh
	QEMU     string   // empty finds it
	AllowKVM bool     // let a stranger's kernel have KVM, where it works
}

// ShellBundle is Shell with a kernel of a bundle, and the disk, machine, boot options and
// container that it recorded. The bundle is verified and confined as by Reproduce; the
// agent is our own, to which the recorded one may be too old.
func (l *Lab) ShellBundle(ctx context.Context, from BundleSource, s BundleShell, o ShellOptions) (Trial, error) {
	b, err := l.openBundle(ctx, from, true)
	if err != nil {
		return Trial{}, err
	}
	defer b.Close()
	m := b.Manifest
	k, err := bootable(m, s.Role)
	if err != nil {
		return Trial{}, fmt.Errorf("%s %w", from, err)
	}
	test := m.Test
	test.Command, test.Trace = s.Command, false
	if err := interactive(&test, o); err != nil {
		return Trial{}, err
	}
	if err := test.Validate(); err != nil {
		return Trial{}, err
	}
	test.Timeout = o.timeout()
	r := rerunner{Lab: l, bundle: b.Bundle, file: from.String(), dir: b.dir, test: &test}
	if err := r.open(ctx, ReproduceOptions{QEMU: s.QEMU, AllowKVM: s.AllowKVM}); err != nil {
		return Trial{}, err
	}
	l.Progress.Say("verified: %d members, made by lab %s with QEMU %s", len(m.Members), m.Lab, m.Machine.QEMU)
	notes := r.notes()
	if r.qemu.Exact {
		r.qemu.Exact = false
		notes = append(notes, "the recorded runs were exact; this one is not, an exact machine waits for nobody")
	}
	for _, n := range notes {
		l.Progress.Say("note: %s", n)
	}
	machine, err := r.machine(ctx, k)
	if err != nil {
		return Trial{}, err
	}
	t := r.begin(k)
	return t, l.talk(ctx, machine, time.Duration(m.Machine.BootTimeout), test.Timeout, o, &t)
}

// bootable gives the kernel of a role, or says why there is none to boot.
func bootable(m bundle.Manifest, role string) (bundle.Kernel, error) {
	k, ok := m.Kernel(role)
	if !ok {
		var roles []string
		for _, k := range m.Kernels {
			roles = append(roles, k.Role)
		}
		return k, fmt.Errorf("has no %s kernel, it has %s", role, strings.Join(roles, ", "))
	}
	if k.Image == "" || k.Initramfs.Member == "" {
		return k, fmt.Errorf("has no %s kernel that boots: it did not build", role)
	}
	return k, nil
}

// addInitramfs puts a guest's agent and test behind the archive that a file has, whose
// modules stay: of a file that occurs twice the kernel takes the later one
// (Documentation/driver-api/early-userspace/buffer-format.rst).
func addInitramfs(file string, g *guest) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("add to initramfs: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil { // an archive begins at a multiple of 4 bytes
		_, err = f.Write(make([]byte, -info.Size()&3))
	}
	if err == nil {
		err = g.initramfs(f, kernel.Kernel{})
	}
	if err != nil {
		return fmt.Errorf("add to initramfs: %w", err)
	}
	return f.Close()
}
