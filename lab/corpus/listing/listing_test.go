package listing

import (
	"archive/tar"
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var odd = File{
	Name: "a b/\xff\n xattrs=-\"", Mode: 0o104755, UID: 4294967294, GID: 65536, Size: 1 << 40,
	Mtime: Time{-2, 5}, Atime: Time{1 << 33, 999999999}, Ctime: Time{0, 0},
	Links: 3, Major: 4095, Minor: 1048575, Inode: "b", Content: "-> x", Xattrs: map[string]string{"user.a|b": "\x00|\xff", "user.empty": "", "security.x": "1"},
}

func TestLinesReadBack(t *testing.T) {
	for _, f := range []File{odd, {Name: ".", Inode: ".", Content: "-"}} {
		got, err := Parse(f.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f, got); diff != "" {
			t.Errorf("%s\n-want +got:\n%s", f, diff)
		}
	}
}

// What is read is written the same, whatever was there to read.
func FuzzParse(f *testing.F) {
	f.Add(odd.String())
	f.Add(File{Name: "a"}.String())
	f.Fuzz(func(t *testing.T, line string) {
		one, err := Parse(line)
		if err != nil {
			return
		}
		two, err := Parse(one.String())
		if err != nil || one.String() != two.String() {
			t.Errorf("%q is read as %v, then as %v (%v)", line, one, two, err)
		}
	})
}

// A walk of a folder and a reading of the same as a tar agree.
func TestWalkAgreesWithTar(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("n", 255)
	deep := strings.Repeat(long+"/", 20) // deeper than a path may be long
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	back, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, f := range []struct {
		kind             byte
		name, link, body string
	}{
		{tar.TypeLink, "early", "z", ""}, {tar.TypeReg, "z", "", "content"}, {tar.TypeDir, "d/", "", ""},
		{tar.TypeLink, "d/again", "early", ""}, {tar.TypeSymlink, "link", "no where", ""}, {tar.TypeReg, "d.x", "", ""},
	} {
		h := &tar.Header{Typeflag: f.kind, Name: f.name, Linkname: f.link, Mode: 0o755, Size: int64(len(f.body))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(f.body))
	}
	for _, err := range []error{
		w.Close(),
		os.WriteFile("z", []byte("content"), 0o755), os.WriteFile("d.x", nil, 0o755), os.Link("z", "early"),
		os.Mkdir("d", 0o755), os.Link("z", "d/again"), os.Symlink("no where", "link"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want, err := ReadTar(&b)
	if err != nil {
		t.Fatal(err)
	}
	plain := func(files []File) []string { // without what a folder of today has
		var lines []string
		for _, f := range files {
			f.UID, f.GID, f.Mtime, f.Atime, f.Ctime = 0, 0, Time{}, Time{}, Time{}
			f.Mode |= 0o777
			lines = append(lines, f.String())
		}
		return lines
	}
	walk := func() (files []File) {
		if err := Walk(dir, func(f File) error { files = append(files, f); return nil }); err != nil {
			t.Fatal(err)
		}
		return files
	}
	got := walk()
	got[0].Links = 0 // the tar does not list the root
	root := File{Name: ".", Mode: got[0].Mode, Inode: ".", Content: "-"}
	if diff := cmp.Diff(plain(append([]File{root}, want...)), plain(got)); diff != "" {
		t.Errorf("-tar +walk:\n%s", diff)
	}
	for range strings.Count(deep, "/") {
		if err := os.Mkdir(long, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chdir(long); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chdir(back); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(walk(), func(f File) bool { return f.Name+"/" == deep }) {
		t.Error("the deepest directory is not found")
	}
	if at, err := os.Getwd(); err != nil || at != back {
		t.Errorf("the walk ends at %s (%v)", at, err)
	}
}
