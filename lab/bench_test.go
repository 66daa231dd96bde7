package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"lab/disk"
	"lab/lab/debiantest"
	"lab/oci"
)

// Each contender runs in a process of its own, so that its time and its memory
// are its own; these two are this test binary again.
const benchChild = "LAB_BENCH_CHILD"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(benchChild) {
	case "":
		os.Exit(m.Run())
	case "lab":
		err = benchLab(os.Args[1], os.Args[2], os.Args[3])
	case "floor":
		err = benchFloor(os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// What wait4(2) would say begins with what the parent had.
	status, _ := os.ReadFile("/proc/self/status")
	fmt.Println(regexp.MustCompile(`VmHWM:\s*(\d+)`).FindStringSubmatch(string(status))[1])
}

// benchLab makes a disk image of an image that the store has.
func benchLab(store, digest, out string) error {
	s, err := oci.Open(store)
	if err != nil {
		return err
	}
	img, err := s.Get(context.Background(), digest)
	if err != nil {
		return err
	}
	c, err := container("app", img, oci.Limits{})
	if err != nil {
		return err
	}
	_, err = disk.Build(context.Background(), out, disk.Spec{Containers: []disk.Container{c}, Free: benchFree})
	return err
}

// benchFloor reads a layer and writes its bytes: less cannot be done.
func benchFloor(blob, out string) error {
	in, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	r := io.Reader(in)
	if strings.HasSuffix(blob, ".gz") {
		if r, err = gzip.NewReader(in); err != nil {
			return err
		}
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

const benchFree = 256 << 20

// BenchmarkImage makes a disk image of an OCI image's layer, side by side with
// what else there is: mke2fs -d of the files unpacked before, umoci unpack and
// mke2fs -d after it, and the floor, which reads the layer and writes its bytes.
// Each round does every one of them once, one after the other, each to a new
// file that is synced, so that what else the machine does hits all alike. For
// each it reports wall and CPU time and lab's ratio to it, and lab's peak
// memory. Debian is what LAB_TEST_ROOTFS names, or else mmdebstrap's.
//
//	LAB_E2E=1 go test ./lab -run '^$' -bench Image -benchtime 5x
func BenchmarkImage(b *testing.B) {
	if os.Getenv("LAB_E2E") == "" {
		b.Skip("set LAB_E2E=1: makes a Debian root file system")
	}
	debian := func(b *testing.B) string { return debiantest.Rootfs(b) }
	for _, c := range []struct {
		name string
		tar  func(*testing.B) string
		gzip bool
	}{
		{"debian/plain", debian, false},
		{"debian/gzip", debian, true},
		{"spread/1k", smallFiles(1_000, 50), false},
		{"spread/10k", smallFiles(10_000, 50), false},
		{"spread/50k", smallFiles(50_000, 50), false},
		{"onedir/1k", smallFiles(1_000, 1_000), false},
		{"onedir/10k", smallFiles(10_000, 10_000), false},
		{"onedir/50k", smallFiles(50_000, 50_000), false},
	} {
		b.Run(c.name, func(b *testing.B) { benchImage(b, c.tar(b), c.gzip) })
	}
}

// smallFiles is a tar of files of up to 8 KiB, so many to a directory.
func smallFiles(n, each int) func(*testing.B) string {
	return func(b *testing.B) string {
		random := rand.New(rand.NewPCG(uint64(n), uint64(each)))
		path := filepath.Join(b.TempDir(), "files.tar")
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		w := tar.NewWriter(f)
		body := make([]byte, 8<<10)
		for i := range n {
			dir := fmt.Sprintf("d%d/", i/each)
			if i%each == 0 {
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
					b.Fatal(err)
				}
			}
			data := body[:random.IntN(len(body))]
			for j := range data {
				data[j] = byte(random.Uint32())
			}
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%sfile%d", dir, i), Mode: 0o644, Size: int64(len(data))}); err != nil {
				b.Fatal(err)
			}
			if _, err := w.Write(data); err != nil {
				b.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), f.Close()); err != nil {
			b.Fatal(err)
		}
		return path
	}
}

func benchImage(b *testing.B, plain string, compress bool) {
	work := b.TempDir()
	at := func(name string) string { return filepath.Join(work, name) }
	blob := plain
	if compress {
		blob = at("layer.tar.gz")
		gzipFile(b, plain, blob)
	}
	writeLayout(b, at("layout"), blob)
	s, err := oci.Open(at("store"))
	if err != nil {
		b.Fatal(err)
	}
	img, err := s.Pull(context.Background(), "oci:"+at("layout"), oci.PullOptions{})
	if err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(at("files"), 0o755); err != nil {
		b.Fatal(err)
	}
	run(b, "tar", "-C", at("files"), "--xattrs", "--xattrs-include=*", "-xpf", plain)
	run(b, "du", "-s", at("files")) // reads the inodes, for mke2fs
	info, err := os.Stat(plain)
	if err != nil {
		b.Fatal(err)
	}
	size := fmt.Sprintf("%dk", (info.Size()+info.Size()/4+benchFree)>>10)
	mke2fs := []string{"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-N", "200000"}

	ways := []*contender{
		{name: "lab", steps: [][]string{{"lab", at("store"), img.Pin.Digest, at("image")}}},
		{name: "floor", steps: [][]string{{"floor", blob, at("image")}}},
		{name: "mke2fs", steps: [][]string{append(mke2fs, "-d", at("files"), at("image"), size)}},
		{name: "umoci+mke2fs", steps: [][]string{
			{"umoci", "unpack", "--image", at("layout") + ":latest", at("bundle")},
			append(mke2fs, "-d", at("bundle/rootfs"), at("image"), size),
		}},
	}
	for b.Loop() {
		for _, way := range ways {
			b.StopTimer()
			os.Remove(at("image"))
			os.RemoveAll(at("bundle"))
			unix.Sync()
			b.StartTimer()
			way.run(b)
		}
	}
	b.ReportMetric(0, "ns/op")
	lab := ways[0]
	for _, way := range ways {
		b.ReportMetric(way.wall.Seconds()/float64(b.N), way.name+"-s")
		b.ReportMetric(way.cpu.Seconds()/float64(b.N), way.name+"-cpu-s")
		if way != lab {
			b.ReportMetric(lab.wall.Seconds()/way.wall.Seconds(), "wall/"+way.name)
			b.ReportMetric(lab.cpu.Seconds()/way.cpu.Seconds(), "cpu/"+way.name)
		}
	}
	b.ReportMetric(float64(lab.peak)/(1<<20), "lab-peak-MiB")
}

// BenchmarkCachedDisk asks for a disk that is in the cache already, image and
// all: what each run but the first waits for.
//
//	go test ./lab -run '^$' -bench CachedDisk
func BenchmarkCachedDisk(b *testing.B) {
	work := b.TempDir()
	if err := os.WriteFile(filepath.Join(work, "hello"), []byte("hello\n"), 0o755); err != nil {
		b.Fatal(err)
	}
	l := &Lab{Cache: filepath.Join(work, "cache")}
	s := Spec{Images: []Load{{Name: "app", Reference: "oci:" + filepath.Join(work, "layout")}}, Free: benchFree}
	run(b, "tar", "-C", work, "-cf", filepath.Join(work, "files.tar"), "hello")
	writeLayout(b, filepath.Join(work, "layout"), filepath.Join(work, "files.tar"))
	for b.Loop() {
		if _, err := l.buildDisk(context.Background(), s, nil, nil, ""); err != nil {
			b.Fatal(err)
		}
	}
}

// contender is one way to the goal and what it took so far.
type contender struct {
	name      string
	steps     [][]string
	wall, cpu time.Duration
	peak      int64 // bytes
}

func (c *contender) run(b *testing.B) {
	for _, args := range c.steps {
		cmd := exec.Command(args[0], args[1:]...)
		if args[0] == "lab" || args[0] == "floor" {
			cmd = exec.Command(os.Args[0], args[1:]...)
			cmd.Env = append(os.Environ(), benchChild+"="+args[0])
		}
		start := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%s: %v\n%s", args[0], err, out)
		}
		c.wall += time.Since(start)
		c.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if kib, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64); err == nil {
			c.peak = max(c.peak, kib<<10)
		}
	}
}

func run(b *testing.B, name string, args ...string) {
	b.Helper()
	if _, err := exec.LookPath(name); err != nil {
		b.Fatalf("%s not installed: run lab doctor --install", name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func gzipFile(b *testing.B, from, to string) {
	b.Helper()
	in, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := io.Copy(w, in); err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.WriteFile(to, buf.Bytes(), 0o644)); err != nil {
		b.Fatal(err)
	}
}

// writeLayout makes an OCI layout of one image with one layer, tagged latest.
func writeLayout(b *testing.B, dir, blob string) {
	b.Helper()
	mt := types.OCIUncompressedLayer
	if strings.HasSuffix(blob, ".gz") {
		mt = types.OCILayer
	}
	layer, err := tarball.LayerFromFile(blob, tarball.WithMediaType(mt))
	if mt == types.OCIUncompressedLayer {
		var plain []byte
		plain, err = os.ReadFile(blob)
		layer = static.NewLayer(plain, mt)
	}
	if err != nil {
		b.Fatal(err)
	}
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		&v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err == nil {
		img, err = mutate.AppendLayers(mutate.ConfigMediaType(img, types.OCIConfigJSON), layer)
	}
	if err != nil {
		b.Fatal(err)
	}
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "latest"}))
	}
	if err != nil {
		b.Fatal(err)
	}
}
