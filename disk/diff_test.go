package disk

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// diff gives what Diff reports, a line for each change.
func diff(t *testing.T, a, b Side, o DiffOptions) []string {
	t.Helper()
	var lines []string
	n, err := Diff(context.Background(), a, b, o, func(c *Change) error {
		line := c.Kind + " " + c.Partition + " " + c.Path
		for _, d := range c.Differences {
			line += fmt.Sprintf("; %s: %s -> %s", d.What, d.Was, d.Is)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n.Added+n.Removed+n.Changed != len(lines) || n.Equal() != (len(lines) == 0) || n.Paths < len(lines)-3 {
		t.Errorf("counted %+v in %d changes", n, len(lines))
	}
	return lines
}

func side(t *testing.T, s Spec, container string) Side {
	t.Helper()
	r, err := Open(build(t, s).Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return Side{r, container}
}

// TestDiffPaths changes one thing at a time.
func TestDiffPaths(t *testing.T) {
	type entry struct {
		tar.Header
		data string
	}
	stream := func(entries []entry) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range entries {
			e.Format, e.Size = tar.FormatPAX, int64(len(e.data))
			if e.ModTime.IsZero() {
				e.ModTime = time.Unix(1e9, 5)
			}
			if err := w.WriteHeader(&e.Header); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, e.data)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	large := strings.Repeat("x", 3*chunk)
	base := func() []entry {
		return []entry{
			{tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, ""},
			{tar.Header{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1"}}, large},
			{tar.Header{Typeflag: tar.TypeReg, Name: "d.x", Mode: 0o644}, strings.Repeat("\x00", 1<<20) + "end"},
			{tar.Header{Typeflag: tar.TypeChar, Name: "dev", Mode: 0o600, Devmajor: 1, Devminor: 3}, ""},
			{tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "d/f"}, ""},
			{tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "d", Mode: 0o777}, ""},
		}
	}
	spec := func(entries []entry) Spec { return Spec{Containers: []Container{container("c", stream(entries))}} }
	was := side(t, spec(base()), "c")
	for _, c := range []struct {
		change func([]entry) []entry
		want   []string
	}{
		{func(e []entry) []entry { return e }, nil},
		{func(e []entry) []entry { e[0].Mode = 0o1711; return e }, []string{"changed  /rootfs/d; mode: 0755 -> 1711"}},
		{func(e []entry) []entry { e[0].Uid, e[0].Gid = 70000, 1; return e }, []string{"changed  /rootfs/d; owner: 0:0 -> 70000:1"}},
		{func(e []entry) []entry { e[0].ModTime = time.Unix(1e9, 6); return e }, []string{"changed  /rootfs/d; mtime: 2001-09-09T01:46:40.000000005Z -> 2001-09-09T01:46:40.000000006Z"}},
		{func(e []entry) []entry { e[3].Devminor = 5; return e }, []string{"changed  /rootfs/dev; device: 1:3 -> 1:5"}},
		{func(e []entry) []entry { e[5].Linkname = "\xff"; return e }, []string{`changed  /rootfs/l; target: d -> "\xff"`}},
		{func(e []entry) []entry { e[2].data = strings.Repeat("\x00", 1<<20) + "eNd"; return e }, []string{"changed  /rootfs/d.x; content:  -> differs at byte 1048577"}},
		{func(e []entry) []entry {
			e[2].data = strings.Repeat("\x00", 1<<19) + "x" + strings.Repeat("\x00", 1<<19-1) + "end"
			return e
		}, []string{"changed  /rootfs/d.x; content:  -> differs at byte 524288"}},
		{func(e []entry) []entry { e[2].data += "."; return e }, []string{"changed  /rootfs/d.x; size: 1048579 -> 1048580"}},
		{func(e []entry) []entry { e[1].data = large[1:] + "y"; return e }, []string{
			fmt.Sprintf("changed  /rootfs/d/f; content:  -> differs at byte %d", 3*chunk-1),
			fmt.Sprintf("changed  /rootfs/h; content:  -> differs at byte %d", 3*chunk-1)}},
		{func(e []entry) []entry {
			e[1].PAXRecords = map[string]string{"SCHILY.xattr.user.a": "2", "SCHILY.xattr.user.b": ""}
			return e[:4]
		}, []string{`changed  /rootfs/d/f; xattr user.a: "1" -> "2"; xattr user.b:  -> ""`, "removed  /rootfs/h", "removed  /rootfs/l"}},
		{func(e []entry) []entry { e[4] = e[1]; e[4].Name = "h"; return e }, []string{"changed  /rootfs/h; hard link to: /rootfs/d/f -> "}},
		{func(e []entry) []entry { // a directory becomes a file
			e[0].Header = tar.Header{Typeflag: tar.TypeReg, Name: "d", Mode: 0o755}
			e[1].Name, e[4].Linkname = "e", "e"
			return e
		}, []string{"changed  /rootfs/d; type: directory -> file", "removed  /rootfs/d/f", "added  /rootfs/e", "changed  /rootfs/h; hard link to: /rootfs/d/f -> /rootfs/e"}},
	} {
		got := diff(t, was, side(t, spec(c.change(base())), "c"), DiffOptions{})
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	}
	e := base()
	e[0].ModTime = time.Unix(1, 1)
	if got := diff(t, was, side(t, spec(e), "c"), DiffOptions{IgnoreTimes: true}); got != nil {
		t.Errorf("times were to be ignored: %q", got)
	}
}

// TestDiffImages compares whole images: partitions, the one that boots, and what
// the containers would run.
func TestDiffImages(t *testing.T) {
	plain := testSpec(t)
	plain.Containers[0].Config = []byte(`{"process":{"args":["a"],"env":["A=1"],"cwd":"/"}}`)
	other := testSpec(t)
	other.Containers[0].Config = []byte(`{"process":{"args":["a","b"],"env":["A=1"],"user":{"uid":5}}}`)
	was := side(t, plain, "")
	if got := diff(t, was, was, DiffOptions{}); got != nil {
		t.Errorf("an image is not itself: %q", got)
	}
	want := []string{`changed  /containers/web/config.json; size: 50 -> 61; config process.args: ["a"] -> ["a","b"]; config process.cwd: "/" -> ; config process.user.uid:  -> 5`}
	if d := cmp.Diff(want, diff(t, was, side(t, other, ""), DiffOptions{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}

	boots, quiet := plain, plain
	boots.Boot = testBoot(t, 1000, 2000)
	cmdline := *boots.Boot
	cmdline.Cmdline += " quiet"
	quiet.Boot = &cmdline
	esp := side(t, boots, "")
	if d := cmp.Diff([]string{"added partition 2 (lab-esp) "}, diff(t, was, esp, DiffOptions{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	want = []string{"changed partition 2 (lab-esp) /loader/entries/lab.conf; size: 84 -> 90"}
	if d := cmp.Diff(want, diff(t, esp, side(t, quiet, ""), DiffOptions{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	larger := plain
	larger.Free += 8 << 20
	if got := diff(t, was, side(t, larger, ""), DiffOptions{}); len(got) != 1 || !strings.HasPrefix(got[0], "changed partition 1 (lab-root) ; size: ") {
		t.Errorf("a larger image differs in %q", got)
	}
	_, err := Diff(context.Background(), was, Side{esp.Image, "web"}, DiffOptions{}, nil)
	if err == nil || !strings.Contains(err.Error(), "one side is a container") {
		t.Errorf("error is %v", err)
	}

	in, err := esp.Image.Inspect(context.Background(), true)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(esp.Image.Path)
	if err != nil {
		t.Fatal(err)
	}
	if in.Digest != digestOf(whole) || len(in.Partitions) != 2 || in.Partitions[1].Usage.Label != "LAB-ESP" || in.Partitions[1].Error != "" {
		t.Errorf("inspection is %+v", in)
	}
	boot := &InspectedBoot{
		Loaders: []string{"/EFI/BOOT/BOOTX64.EFI"},
		Config:  "default lab.conf\ntimeout 3\nconsole-mode keep\n",
		Entries: []LoaderEntry{{"/loader/entries/lab.conf", "lab: Linux 6.1", "/lab/vmlinuz", []string{"/lab/initramfs"}, "console=ttyS0"}},
	}
	if d := cmp.Diff(boot, in.Boot); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	containers := []InspectedContainer{{Name: "db-1", Command: []string{}, User: "0:0"}, {Name: "web", Command: []string{"a"}, Dir: "/", User: "0:0", Env: 1}}
	if d := cmp.Diff(containers, in.Containers); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestInWalk(t *testing.T) {
	paths := []string{"/", "/a", "/a/b", "/a/b/c", "/a/\x01", "/a\x01", "/a-", "/a-/x", "/a.b", "/b"}
	slices.SortFunc(paths, func(a, b string) int {
		return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
	})
	if !slices.IsSortedFunc(paths, inWalk) {
		t.Errorf("%q is not in order", paths)
	}
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
