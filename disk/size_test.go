package disk

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A base surrounds the containers, and its directories keep what it says of them.
func TestBase(t *testing.T) {
	s := testSpec(t)
	base := container("", rootfs(t, map[string]string{"./etc/os-release": "ID=base\n", "sbin/init": "init"}))
	s.Base = &base
	image := build(t, s)
	fsck(t, image.Path)
	for name, want := range map[string]string{
		"/etc/os-release":                   "ID=base\n",
		"/sbin/init":                        "init",
		"/containers/db-1/rootfs/bin/app":   "db",
		"/containers/web/rootfs/etc/passwd": "root:x:0:0::/:/bin/sh\n",
	} {
		if got := debugfs(t, image.Path, "cat "+name); got != want {
			t.Errorf("%s holds %q", name, got)
		}
	}
	if without := testSpec(t); without.Digest() == s.Digest() {
		t.Error("a spec with a base has the digest of one without")
	}

	own := container("", rootfs(t, map[string]string{"containers/web/rootfs/bin/app": "other"}))
	s.Base = &own
	path := filepath.Join(t.TempDir(), "disk.img")
	if _, err := Build(t.Context(), path, s); err == nil || !strings.Contains(err.Error(), "base: it has a /containers of its own") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the image is there all the same")
	}
}

// A container's store is in a folder of its own beside the root file system.
func TestStore(t *testing.T) {
	s := testSpec(t)
	store := container("docker", rootfs(t, map[string]string{"image/overlay2/repositories.json": "{}"}))
	s.Containers[0].Store = &store
	image := build(t, s)
	fsck(t, image.Path)
	if got := debugfs(t, image.Path, "cat /containers/web/docker/image/overlay2/repositories.json"); got != "{}" {
		t.Errorf("the store holds %q", got)
	}
	if got := debugfs(t, image.Path, "cat /containers/web/rootfs/etc/passwd"); got != "root:x:0:0::/:/bin/sh\n" {
		t.Errorf("the root file system holds %q", got)
	}
}

// debugfs asks e2fsprogs about the file system in the image's partition.
func debugfs(t *testing.T, image, request string) string {
	t.Helper()
	out := tool(t, "debugfs", "-R", request, fmt.Sprintf("%s?offset=%d", image, partitionStart))
	_, out, _ = strings.Cut(out, "\n") // the version
	return out
}

// A disk is as large as asked for, whatever is on it, and takes what its content
// takes.
func TestSize(t *testing.T) {
	for _, mebibytes := range []int64{40, 41, 129, 130, 4 << 10, 1 << 20} {
		t.Run(fmt.Sprint(mebibytes), func(t *testing.T) {
			s := testSpec(t)
			s.Free, s.Size = 0, mebibytes*mib
			if mebibytes > 100 {
				s.Boot = testBoot(t, 1<<20, 2<<20)
			}
			image := build(t, s)
			info, err := os.Stat(image.Path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() != s.Size || image.Size != s.Size {
				t.Errorf("size is %d, and said to be %d, not %d", info.Size(), image.Size, s.Size)
			}
			if took := info.Sys().(*syscall.Stat_t).Blocks * 512; took > 16*mib {
				t.Errorf("image takes %d bytes on the disk", took)
			}
			fsck(t, image.Path)
			if out := tool(t, "sfdisk", "-V", image.Path); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk: %s", out)
			}
		})
	}
}

func TestSizeErrors(t *testing.T) {
	big := container("big", nil)
	big.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(rootfs(t, map[string]string{"big": strings.Repeat("big", 4<<20)})))), nil
	}
	for name, c := range map[string]struct {
		size, free int64
		want       string
	}{
		"too small":     {10 * mib, 0, "are needed"},
		"much too":      {2 * mib, 0, "no room for a file system"},
		"odd":           {mib + 4096, 0, "not whole MiB"},
		"negative":      {-mib, 0, "not whole MiB up to 1 TiB"},
		"too large":     {1<<40 + mib, 0, "up to 1 TiB"},
		"size and free": {64 * mib, mib, "both a size"},
	} {
		path := filepath.Join(t.TempDir(), "disk.img")
		_, err := Build(t.Context(), path, Spec{Containers: []Container{big}, Size: c.size, Free: c.free})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, not %s", name, err, c.want)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
			t.Errorf("%s: %s is left", name, left[0].Name())
		}
	}
}
