package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lab/kernel/qemu"
	"lab/lab/debiantest"
	"lab/probe"
)

// TestKVMThatDoesNotBootLinux has a kernel that did not boot with a KVM that
// only the small guest vouched for: the trial is done again with TCG, and the
// host is remembered as one where KVM does not work. One that does not boot
// with TCG either says nothing of KVM.
func TestKVMThatDoesNotBootLinux(t *testing.T) {
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
	agent := filepath.Join(t.TempDir(), "lab")
	build := exec.Command("go", "build", "-o", agent, "lab")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l := &Lab{Cache: t.TempDir(), Agent: func() (string, error) { return agent, nil }}
	fs := t.TempDir()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v: run lab doctor --install", err)
	}
	if err := os.WriteFile(filepath.Join(fs, "true"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	s := Spec{Images: []Load{{Name: "test", Reference: "rootfs:" + fs}}, Test: probe.Spec{Command: []string{"/true"}}, Machine: MachineSpec{Accel: "tcg"}}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	k, err := l.readyMade(t.Context(), Spec{Kernel: KernelSpec{File: debiantest.Kernel(t)}}, "")
	if err != nil {
		t.Fatal(err)
	}
	g, err := l.prepare(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, initrd, err := g.memoryInitramfs(k)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	e, err := l.emulator(t.Context(), MachineSpec{Accel: "tcg", Memory: 512, CPUs: 1})
	if err != nil {
		t.Fatal(err)
	}
	before, m := Trial{Kernel: k, End: EndBuilt, QEMU: e.version}, e.Machine
	m.Accel, m.Kernel, m.Initrd, m.Cmdline, m.Disks = "kvm", k.Image, initrd, cmdline(""), []qemu.Disk{{Path: g.disk.Path}}

	remembered := filepath.Join(l.Cache, "host", "host.json")
	trial := Trial{Kernel: k, End: EndBoot, Detail: "no sign of userspace"}
	broken := m
	broken.Cmdline = cmdline("rdinit=/nope")
	if err := l.proveKVM(t.Context(), broken, s, before, &trial); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(remembered); trial.End != EndBoot || !os.IsNotExist(err) {
		t.Errorf("a kernel that boots nowhere ended in %s, and something was remembered (%v)", trial.End, err)
	}

	trial = Trial{Kernel: k, End: EndBoot, Detail: "no sign of userspace"}
	if err := l.proveKVM(t.Context(), m, s, before, &trial); err != nil {
		t.Fatal(err)
	}
	if v := Judge(trial, s.Symptom); v.Mark != Good || trial.Accel != "tcg" {
		t.Errorf("done again with %s: %s: %s", trial.Accel, v.Mark, v.Reason)
	}
	a, err := l.Accelerator(t.Context(), m.Binary, false)
	if err != nil || a.Name != "tcg" {
		t.Errorf("from now on: %+v, %v", a, err)
	}
}
