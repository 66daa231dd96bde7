package demo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// smallTree is a source tree with just the places that the series edits.
func smallTree() map[string]string {
	base, now := make(map[string]string), make(map[string]string)
	for _, c := range series {
		for _, e := range c.Edits {
			if e.Old != "" && !strings.Contains(now[e.Path], e.Old) {
				base[e.Path] += e.Old + "\n"
				now[e.Path] += e.Old + "\n"
			}
			now[e.Path] = strings.Replace(now[e.Path], e.Old, e.New, 1)
		}
	}
	base["Makefile"] = "VERSION = 6\nPATCHLEVEL = 1\n"
	return base
}

// writeArchive writes a source archive in the compression of its name.
func writeArchive(t *testing.T, name string, headers []tar.Header, data []string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(data[i]))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(data[i])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	switch filepath.Ext(name) {
	case ".gz":
		z := gzip.NewWriter(f)
		defer z.Close()
		_, err = z.Write(b.Bytes())
	case ".xz":
		z, zerr := xz.NewWriter(f)
		if zerr != nil {
			t.Fatal(zerr)
		}
		defer z.Close()
		_, err = z.Write(b.Bytes())
	case ".zst":
		z, zerr := zstd.NewWriter(f)
		if zerr != nil {
			t.Fatal(zerr)
		}
		defer z.Close()
		_, err = z.Write(b.Bytes())
	default:
		_, err = f.Write(b.Bytes())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// smallArchive is an archive of smallTree with one of each other kind of entry.
func smallArchive(t *testing.T, name string) {
	t.Helper()
	headers := []tar.Header{
		{Name: "linux-source-6.1/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "linux-source-6.1/scripts/run me.sh", Typeflag: tar.TypeReg, Mode: 0o755},
		{Name: "linux-source-6.1/scripts/link", Typeflag: tar.TypeSymlink, Linkname: "run me.sh"},
		{Name: "linux-source-6.1/scripts/again.sh", Typeflag: tar.TypeLink, Linkname: "linux-source-6.1/scripts/run me.sh"},
	}
	data := []string{"", "#!/bin/sh\n", "", ""}
	for path, text := range smallTree() {
		headers = append(headers, tar.Header{Name: "linux-source-6.1/" + path, Typeflag: tar.TypeReg, Mode: 0o644})
		data = append(data, text)
	}
	writeArchive(t, name, headers, data)
}

func gitOut(t *testing.T, dir string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := git(context.Background(), dir, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func needGit(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git not installed: run lab doctor --install")
	}
}

// checkHistory asserts what is true of the history whatever the archive.
func checkHistory(t *testing.T, repo Repo) {
	t.Helper()
	if got := gitOut(t, repo.Dir, "rev-list", "--count", repo.Good+".."+repo.Bad); got != "24" || repo.Commits != 24 {
		t.Errorf("commits between good and bad: %s, Repo says %d, want 24", got, repo.Commits)
	}
	if got := gitOut(t, repo.Dir, "rev-list", "--merges", "--count", repo.Good+".."+repo.Bad); got != "1" {
		t.Errorf("merges: %s, want 1", got)
	}
	for ref, want := range map[string]string{"refs/tags/good": repo.Good, "refs/tags/bad": repo.Bad, "HEAD": repo.Bad} {
		if got := gitOut(t, repo.Dir, "rev-parse", ref); got != want {
			t.Errorf("%s is %s, want %s", ref, got, want)
		}
	}
	// The culprit undoes to kernel/audit.c what the good commit did, and comes
	// into main by the merge alone.
	did := gitOut(t, repo.Dir, "show", "--format=", "-U0", repo.Good)
	undid := gitOut(t, repo.Dir, "show", "--format=", "-U0", "-R", repo.Culprit)
	body := func(patch string) string {
		_, b, _ := strings.Cut(patch, "@@ ")
		_, b, _ = strings.Cut(b, "\n")
		return b
	}
	if body(did) == "" || body(did) != body(undid) {
		t.Errorf("the culprit does not undo the base's commit:\n%s\n%s", did, undid)
	}
	merge := gitOut(t, repo.Dir, "rev-list", "--merges", repo.Good+".."+repo.Bad)
	onMain := gitOut(t, repo.Dir, "rev-list", repo.Good+".."+merge+"^1")
	onSide := gitOut(t, repo.Dir, "rev-list", merge+"^1.."+merge+"^2")
	if strings.Contains(onMain, repo.Culprit) || !strings.Contains(onSide, repo.Culprit) {
		t.Errorf("the culprit %s is not behind the merge only", repo.Culprit)
	}
	if n := strings.Count(onSide, "\n") + 1; n != 5 {
		t.Errorf("%d commits on the side branch, want 5", n)
	}
	// The merge loses nothing of either side.
	if got := gitOut(t, repo.Dir, "merge-tree", "--write-tree", merge+"^1", merge+"^2"); got != gitOut(t, repo.Dir, "rev-parse", merge+"^{tree}") {
		t.Errorf("the merge's tree is not what git would merge: %s", got)
	}
	if out := gitOut(t, repo.Dir, "fsck", "--strict", "--no-progress"); strings.Contains(out, "error") {
		t.Errorf("git fsck: %s", out)
	}
	for _, line := range strings.Split(gitOut(t, repo.Dir, "log", "--format=%an <%ae>|%cn <%ce>"), "\n") {
		if line != author+"|"+author {
			t.Errorf("author and committer are %q", line)
		}
	}
}

func TestHistory(t *testing.T) {
	needGit(t)
	dir := t.TempDir()
	var first Repo
	for _, suffix := range []string{".tar", ".tar.gz", ".tar.xz", ".tar.zst"} {
		archive := filepath.Join(dir, "linux-source-6.1"+suffix)
		smallArchive(t, archive)
		var last, total int64
		repo, err := History(t.Context(), filepath.Join(dir, "cache"), archive, func(d, n int64, what string) {
			if d < last {
				t.Errorf("progress goes back from %d to %d", last, d)
			}
			last, total = d, n
			if what != "import linux-source-6.1"+suffix {
				t.Errorf("progress says %q", what)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if last != total || total == 0 {
			t.Errorf("%s: progress ends at %d of %d", suffix, last, total)
		}
		if first.Bad == "" {
			first = repo
			checkHistory(t, repo)
		}
		// Map iteration shuffles the archive's files each time: only the content counts.
		if repo.Good != first.Good || repo.Bad != first.Bad || repo.Culprit != first.Culprit {
			t.Errorf("%s: hashes differ: %+v, %+v", suffix, repo, first)
		}
	}
	// The same on every machine, with every git; it changes when the series does.
	if want := "4fb86a20efdc4275a8ca55d77f66de941f93eaa0"; first.Bad != want {
		t.Errorf("the small history ends in %s, want %s", first.Bad, want)
	}
	tree := gitOut(t, first.Dir, "ls-tree", "-r", first.Bad, "scripts")
	for _, want := range []string{"100755 blob", "120000 blob", "scripts/again.sh", "scripts/link", "scripts/run me.sh"} {
		if !strings.Contains(tree, want) {
			t.Errorf("no %q in\n%s", want, tree)
		}
	}
	if got := gitOut(t, first.Dir, "show", first.Bad+":scripts/link"); got != "run me.sh" {
		t.Errorf("symbolic link's target is %q", got)
	}
	if got := gitOut(t, first.Dir, "show", first.Bad+":scripts/again.sh"); got != "#!/bin/sh" {
		t.Errorf("hard link's content is %q", got)
	}
}

func TestHistoryIsFoundAgain(t *testing.T) {
	needGit(t)
	dir := t.TempDir()
	archive, cache := filepath.Join(dir, "linux-source-6.1.tar.gz"), filepath.Join(dir, "cache")
	smallArchive(t, archive)
	repo, err := History(t.Context(), cache, archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := History(t.Context(), cache, archive, func(int64, int64, string) { t.Error("the archive was read again") })
	if err != nil || again != repo {
		t.Fatalf("second call: %+v, %v, want %+v", again, err, repo)
	}

	// A leftover of a killed run goes; a damaged repository is made anew.
	leftover := filepath.Join(cache, "history-123.tmp")
	if err := os.MkdirAll(filepath.Join(leftover, "objects"), 0o755); err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(repo.Dir, "objects/pack/*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("packs: %v, %v, want one", packs, err)
	}
	if err := os.Chmod(packs[0], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(packs[0], 1000); err != nil {
		t.Fatal(err)
	}
	again, err = History(t.Context(), cache, archive, nil)
	if err != nil || again != repo {
		t.Fatalf("after damage: %+v, %v, want %+v", again, err, repo)
	}
	checkHistory(t, again)
	if _, err := os.Stat(leftover); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", leftover, err)
	}
}

// Whatever goes wrong, the directory is as empty as before.
func TestHistoryRefuses(t *testing.T) {
	needGit(t)
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	for _, test := range []struct {
		name   string
		header tar.Header
		want   string
	}{
		{"no anchors", file("linux/lib/bsearch.c"), "kernel/audit.c: this kernel does not have that file"},
		{"climbing", file("linux/../../etc/passwd"), "odd path"},
		{"absolute", file("/etc/passwd"), "odd path"},
		{"git's own", file("linux/sub/.Git/config"), "odd path"},
		{"newline", file("linux/a\nb"), "odd path"},
		{"quote", file(`linux/"a`), "odd path"},
		{"device", tar.Header{Name: "linux/dev", Typeflag: tar.TypeChar}, "linux/dev"[6:] + " is of type"},
		{"link forward", tar.Header{Name: "linux/a", Typeflag: tar.TypeLink, Linkname: "linux/b"}, "hard link to b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			archive, cache := filepath.Join(dir, "a.tar.gz"), filepath.Join(dir, "cache")
			writeArchive(t, archive, []tar.Header{test.header}, []string{"text\n"})
			_, err := History(t.Context(), cache, archive, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			left, globErr := filepath.Glob(filepath.Join(cache, "history-*"))
			if globErr != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, globErr)
			}
		})
	}
}

func TestHistoryTruncated(t *testing.T) {
	needGit(t)
	dir := t.TempDir()
	for _, suffix := range []string{".tar.gz", ".tar.xz", ".tar.zst"} {
		archive, cache := filepath.Join(dir, "linux-source-6.1"+suffix), filepath.Join(dir, "cache")
		smallArchive(t, archive)
		info, err := os.Stat(archive)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(archive, info.Size()-3); err != nil {
			t.Fatal(err)
		}
		if _, err := History(t.Context(), cache, archive, nil); err == nil {
			t.Errorf("%s: a truncated archive is taken", suffix)
		}
		if left, err := filepath.Glob(filepath.Join(cache, "history-*")); err != nil || len(left) != 0 {
			t.Errorf("%s: left behind: %v, %v", suffix, left, err)
		}
	}
}

func TestHistoryCancelled(t *testing.T) {
	needGit(t)
	dir := t.TempDir()
	archive, cache := filepath.Join(dir, "linux-source-6.1.tar.gz"), filepath.Join(dir, "cache")
	smallArchive(t, archive)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := History(ctx, cache, archive, func(int64, int64, string) { cancel() })
	if err == nil || ctx.Err() == nil {
		t.Fatalf("error %v after a cancel", err)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "history-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestEdit(t *testing.T) {
	for _, test := range []struct {
		edit   edit
		text   string
		exists bool
		want   string
		err    string
	}{
		{edit{"f", "b", "B"}, "abc", true, "aBc", ""},
		{edit{"f", "", "new"}, "", false, "new", ""},
		{edit{"f", "", "new"}, "old", true, "", "has that file already"},
		{edit{"f", "b", "B"}, "", false, "", "does not have that file"},
		{edit{"f", "x", "B"}, "abc", true, "", "0 times"},
		{edit{"f", "b", "B"}, "abcb", true, "", "2 times"},
	} {
		got, err := test.edit.apply(test.text, test.exists)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%+v on %q: %q, %v, want %q, %q", test.edit, test.text, got, err, test.want, test.err)
		}
	}
}

func TestMessages(t *testing.T) {
	for _, c := range series {
		lines := strings.Split(c.message(), "\n")
		if len(lines[0]) > 75 || lines[1] != "" || lines[2] == "" {
			t.Errorf("odd message:\n%s", c.message())
		}
		for _, l := range lines[1:] {
			if len(l) > 72 {
				t.Errorf("long line in %q: %q", c.Title, l)
			}
		}
	}
}

func TestNewestSource(t *testing.T) {
	dir := t.TempDir()
	if _, err := newestSource(dir); err == nil || !strings.Contains(err.Error(), "install the package linux-source") {
		t.Errorf("empty directory: %v", err)
	}
	if _, err := newestSource(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "install the package linux-source") {
		t.Errorf("missing directory: %v", err)
	}
	for _, name := range []string{"linux-source-6.1.tar.xz", "linux-source-5.10.tar.xz", "linux-source-6.12.tar.zst", "linux-source-6.9.tar.xz", "linux-source-7.tar", "linux-patch-8.tar.xz"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "linux-source-9.1.tar.xz"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := newestSource(dir)
	if want := filepath.Join(dir, "linux-source-6.12.tar.zst"); err != nil || got != want {
		t.Errorf("newest is %s, %v, want %s", got, err, want)
	}
}
