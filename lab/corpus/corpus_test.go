package corpus

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lab/lab/corpus/listing"
)

// TestCases: each case says what it is about, under a name of its own, and the
// tree that it has by hand is the one that the rules leave.
func TestCases(t *testing.T) {
	name := regexp.MustCompile(`^[a-z0-9-]{1,60}$`)
	seen := make(map[string]bool)
	for _, c := range All() {
		if !name.MatchString(c.Name) || seen[c.Name] || c.About == "" || c.Rule == "" {
			t.Errorf("%q: name is odd or comes twice, or there is no word on it", c.Name)
		}
		seen[c.Name] = true
		if c.Umoci.Why == "" && (c.Umoci.Error != "" || c.Umoci.Paths != nil) {
			t.Errorf("%s: nobody says why umoci differs", c.Name)
		}
		if c.Refused != "" {
			continue
		}
		if diff := cmp.Diff(c.Tree, c.Describe(c.Files())); diff != "" {
			t.Errorf("%s: -case +reference:\n%s", c.Name, diff)
		}
	}
	if len(seen) < 200 {
		t.Errorf("only %d cases", len(seen))
	}
}

// TestTar: GNU tar takes our archives for what they are meant to be. It is asked
// for names, contents and links, which it unpacks for anybody.
func TestTar(t *testing.T) {
	wanted := regexp.MustCompile(`^(sparse-|longname-|mixed-forms|v7|ustar|name-old-directory|name-odd-bytes|name-not-utf8|hardlink-|owners|unknown-records|end-|file-sizes)`)
	plain := func(files []listing.File) []string {
		var lines []string
		for _, f := range files {
			if kind := f.Type(); kind != listing.TypeRegular && kind != listing.TypeSymlink && kind != listing.TypeDir {
				continue
			}
			lines = append(lines, listing.File{Name: f.Name, Mode: f.Type(), Size: f.Size, Links: f.Links, Inode: f.Inode, Content: f.Content}.String())
		}
		return lines
	}
	asked := 0
	for _, c := range Good() {
		// GNU tar puts nothing below a symlink; devices take root.
		if !wanted.MatchString(c.Name) || len(c.Layers) != 1 || c.Name == "hardlink-through-symlink" || c.Name == "hardlink-to-special" {
			continue
		}
		asked++
		t.Run(c.Name, func(t *testing.T) {
			dir := t.TempDir()
			tar := exec.Command("tar", "-x", "--no-same-owner", "-C", dir)
			for _, e := range c.Layers[0].Entries {
				if e.Type == TypeChar || e.Type == TypeBlock {
					tar.Args = append(tar.Args, "--exclude="+e.Name)
				}
			}
			tar.Stdin = bytes.NewReader(c.Layers[0].Tar())
			tar.Env = append(tar.Environ(), "LC_ALL=C")
			if out, err := tar.CombinedOutput(); err != nil {
				t.Fatalf("tar: %v\n%s", err, out)
			}
			var got []listing.File
			if err := listing.Walk(dir, func(f listing.File) error { got = append(got, f); return nil }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(plain(c.Files()), plain(got)); diff != "" {
				t.Errorf("-reference +tar:\n%s", diff)
			}
		})
	}
	if asked < 20 {
		t.Errorf("only %d archives were tried", asked)
	}
}

// What a mistake in a case would show: Describe tells apart what must be.
func TestDescribe(t *testing.T) {
	c := Case{Layers: one(File("a", "text"), Dir("d/").mode(0o700).at(1, 2), Symlink("l", "x y"), Device("c", TypeChar, 1, 3), Hard("b", "a"), File("big", strings.Repeat("x", 100)))}
	want := tree(`a "text"
		b = a
		big {09ecb6eb}
		c c1:3 0600
		d/ 0700 @1.000000002
		l -> "x y"`)
	if diff := cmp.Diff(want, c.Describe(c.Files())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
