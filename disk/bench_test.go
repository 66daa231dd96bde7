package disk

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lab/disk/ext4"

	"lab/lab/debiantest"
)

// BenchmarkDebian writes a Debian root file system side by side with mke2fs -d:
// each round does all of it once, one after the other, each to a new file that is
// synced, so that what else the machine does hits all alike. It reports seconds
// of wall and CPU time for each, and the ratios to mke2fs -d. The tar and the
// folder for mke2fs are made before (LAB_TEST_ROOTFS, else mmdebstrap).
//
//	LAB_E2E=1 go test ./disk -run '^$' -bench Debian -benchtime 5x
func BenchmarkDebian(b *testing.B) {
	if os.Getenv("LAB_E2E") == "" {
		b.Skip("set LAB_E2E=1: makes a Debian root file system")
	}
	tarball := debiantest.Rootfs(b)
	work := b.TempDir()
	dir := filepath.Join(work, "rootfs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	tool(b, "tar", "-C", dir, "--xattrs", "--xattrs-include=*", "-xpf", tarball)
	const free = 256 << 20
	s := Spec{Free: free, Containers: []Container{{
		Name: "debian", Digest: "debian",
		Open: func(context.Context) (io.ReadCloser, error) { return os.Open(tarball) },
	}}}
	image := filepath.Join(work, "image")
	first, err := Build(context.Background(), image, s) // warms the page cache, and tells the size
	if err != nil {
		b.Fatal(err)
	}

	ways := []struct {
		name string
		run  func() error
	}{
		{"mke2fs", func() error {
			cmd := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", dir, image, fmt.Sprintf("%dk", first.Size>>10))
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("mke2fs: %w: %s", err, out)
			}
			return nil
		}},
		{"ext4", func() error { return writeExt4(image, tarball, free) }},
		{"build", func() error {
			_, err := Build(context.Background(), image, s)
			return err
		}},
	}
	wall, cpu := make([]time.Duration, len(ways)), make([]time.Duration, len(ways))
	for b.Loop() {
		for i, way := range ways {
			os.Remove(image)
			unix.Sync()
			start, startCPU := time.Now(), cpuTime()
			if err := way.run(); err != nil {
				b.Fatal(err)
			}
			wall[i] += time.Since(start)
			cpu[i] += cpuTime() - startCPU
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, way := range ways {
		b.ReportMetric(wall[i].Seconds()/float64(b.N), way.name+"-s")
		b.ReportMetric(cpu[i].Seconds()/float64(b.N), way.name+"-cpu-s")
		if i > 0 {
			b.ReportMetric(wall[i].Seconds()/wall[0].Seconds(), way.name+"-wall/mke2fs")
			b.ReportMetric(cpu[i].Seconds()/cpu[0].Seconds(), way.name+"-cpu/mke2fs")
		}
	}
}

// writeExt4 writes the file system alone: no partition table, no digest.
func writeExt4(path, tarball string, free int64) error {
	in, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := ext4.NewWriter(f, 0, ext4.Options{UUID: fsUUID})
	if err != nil {
		return err
	}
	if err := w.AddTar("rootfs", in); err != nil {
		return err
	}
	size, err := w.Close(free)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// cpuTime is what this process and its finished children have used.
func cpuTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
