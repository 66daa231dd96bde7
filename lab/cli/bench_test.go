package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lab/disk"
	"lab/kernel"
	"lab/lab/debiantest"
)

// BenchmarkRun compares lab run, whole, with the least that QEMU can do: boot
// the same kernel to a busybox that powers off at once. The two take turns;
// ratio is lab's time over the bare boot's.
//
//	LAB_E2E=1 go test ./lab/cli -run - -bench Run -benchtime 5x
func BenchmarkRun(b *testing.B) {
	needE2E(b)
	deb := debiantest.Kernel(b)
	home, fs := b.TempDir(), busyboxRoot(b)
	k, err := kernel.FromPackage(b.Context(), filepath.Join(home, "kernels"), deb, kernel.Modules{})
	if err != nil {
		b.Fatal(err)
	}
	initrd := filepath.Join(home, "bare")
	f, err := os.Create(initrd)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := disk.WriteInitramfs(f, []disk.File{
		{Path: "bin/busybox", Mode: 0o755, Source: "/bin/busybox"},
		{Path: "init", Mode: 0o755, Data: []byte("#!/bin/busybox sh\n/bin/busybox poweroff -f\n")},
	}); err != nil {
		b.Fatal(err)
	}
	args := []string{"run", "--accel", "tcg", "--kernel", deb, "--image", "rootfs:" + fs, "--", "true"}
	runLab(b, home, ExitGood, args...) // fills the caches

	var bare, whole time.Duration
	for b.Loop() {
		start := time.Now()
		if out, err := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
			"-m", "1024", "-kernel", k.Image, "-initrd", initrd, "-append", "console=ttyS0", "-serial", "stdio").CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		bare += time.Since(start)
		start = time.Now()
		runLab(b, home, ExitGood, args...)
		whole += time.Since(start)
	}
	b.ReportMetric(bare.Seconds()/float64(b.N), "bare-s/op")
	b.ReportMetric(whole.Seconds()/float64(b.N), "lab-s/op")
	b.ReportMetric(whole.Seconds()/bare.Seconds(), "ratio")
}

// BenchmarkEngines runs a test that does nothing in a container of each engine, as
// Debian has them: from lab's start to its verdict, in the memory that is given. size
// is that of the base's tar.
//
//	LAB_E2E=1 go test ./lab/cli -run - -bench Engines -benchtime 1x
func BenchmarkEngines(b *testing.B) {
	needE2E(b)
	deb, home, fs := debiantest.Kernel(b), b.TempDir(), busyboxRoot(b)
	for _, engine := range []struct {
		name, memory string
		packages     []string
	}{
		{"lab", "128", nil},
		{"crun", "128", []string{"crun"}},
		{"runc", "128", []string{"runc"}},
		{"podman", "192", []string{"podman", "crun"}},
		{"docker", "384", []string{"docker.io"}},
	} {
		b.Run(engine.name, func(b *testing.B) {
			args := []string{"run", "--accel", "tcg", "--memory", engine.memory, "--kernel", deb, "--image", "rootfs:" + fs, "--runtime", engine.name}
			var size int64
			if engine.packages != nil {
				base := debiantest.Programs(b, engine.packages...)
				info, err := os.Stat(base)
				if err != nil {
					b.Fatal(err)
				}
				size = info.Size()
				args = append(args, "--base", "rootfs:"+base)
			}
			runLab(b, home, ExitGood, append(args, "--", "true")...) // fills the caches
			for b.Loop() {
				runLab(b, home, ExitGood, append(args, "--", "true")...)
			}
			b.StopTimer()
			b.ReportMetric(float64(size>>20), "size-MiB")
			runLab(b, home, ExitBad, append(args, "--", "sh", "-c", "exit 3")...)
		})
	}
}
