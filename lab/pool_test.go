package lab

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lab/kernel"
	"lab/oci"
)

// bzImages makes a folder of kernels that differ in their release and in no
// other way.
func bzImages(t *testing.T, releases ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, release := range releases {
		b := smallHeader()
		clear(b[0x300:])
		copy(b[0x300:], release+" (lab@lab) #1 SMP")
		b[1000] = byte(i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("vmlinuz-%c", 'z'-i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// debWithoutKernel is a Debian package (man 5 deb) with one small file in it.
func debWithoutKernel(t *testing.T) string {
	t.Helper()
	archive := func(name, text string) string {
		var b strings.Builder
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	b := "!<arch>\n"
	for _, m := range [][2]string{
		{"debian-binary", "2.0\n"},
		{"control.tar", archive("./control", "Package: linux-modules\nVersion: 6.1\n")},
		{"data.tar", archive("./lib/modules/6.1/modules.order", "\n")},
	} {
		b += fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", m[0], 0, 0, 0, "100644", len(m[1]), m[1])
	}
	return b
}

func releases(packages []Package) []string {
	var r []string
	for _, p := range packages {
		r = append(r, p.Release)
	}
	return r
}

func TestPackages(t *testing.T) {
	l := testLab(t)
	dir := bzImages(t, "6.1.0-56-amd64", "6.1.0-9-amd64", "6.2.0-rc1", "6.2.0", "6.10.0")
	write(t, filepath.Join(dir, "README"), "not a kernel\n")
	write(t, filepath.Join(dir, "linux-modules.deb"), debWithoutKernel(t))
	sorted := []string{"6.1.0-9-amd64", "6.1.0-56-amd64", "6.2.0-rc1", "6.2.0", "6.10.0"}
	list := write(t, filepath.Join(dir, "list"), "# newest first\n\nvmlinuz-v  # 6.10\r\n  "+filepath.Join(dir, "vmlinuz-z")+"\nvmlinuz-y")
	for _, test := range []struct {
		what string
		refs []string
		want []string
	}{
		{"a folder", []string{dir}, sorted},
		{"a pattern", []string{filepath.Join(dir, "vmlinuz-*")}, sorted},
		{"a wider one", []string{filepath.Join(dir, "[lv]*[xyzvw]"), filepath.Join(dir, "*.deb")}, sorted},
		{"files", []string{filepath.Join(dir, "vmlinuz-w"), filepath.Join(dir, "vmlinuz-x")}, []string{"6.2.0-rc1", "6.2.0"}},
		{"a list", []string{list}, []string{"6.10.0", "6.1.0-56-amd64", "6.1.0-9-amd64"}},
	} {
		packages, err := l.Packages(t.Context(), Spec{}, test.refs)
		if err != nil {
			t.Errorf("%s: %v", test.what, err)
		} else if d := cmp.Diff(test.want, releases(packages)); d != "" {
			t.Errorf("%s (-want +got):\n%s", test.what, d)
		}
	}
}

func TestPackagesRefused(t *testing.T) {
	l := testLab(t)
	dir := bzImages(t, "6.1.0", "6.2.0")
	modules := write(t, filepath.Join(t.TempDir(), "modules.deb"), debWithoutKernel(t))
	alike := bzImages(t, "6.1.0", "6.2.0", "6.1.0")
	folder, empty := t.TempDir(), t.TempDir()
	file := func(name, text string) string { return write(t, filepath.Join(folder, name), text) }
	for what, test := range map[string]struct {
		refs []string
		want []string
	}{
		"alike":             {[]string{alike}, []string{"which comes first", "vmlinuz-x or", "vmlinuz-z? Both are 6.1.0", "list file"}},
		"no kernel":         {[]string{dir, modules}, []string{"modules.deb", "linux-modules holds no kernel"}},
		"one":               {[]string{filepath.Join(dir, "vmlinuz-z")}, []string{"1 kernel in", "two at least"}},
		"no match":          {[]string{dir + "/*.deb"}, []string{"nothing matches"}},
		"bad pattern":       {[]string{dir + "/[*.deb"}, []string{"syntax error in pattern"}},
		"not there":         {[]string{dir + "/nosuch"}, []string{"no such file"}},
		"empty folder":      {[]string{empty}, []string{"there is no .deb, .rpm or kernel in"}},
		"the same twice":    {[]string{file("twice", dir+"/vmlinuz-z\n"+dir+"/../"+filepath.Base(dir)+"/vmlinuz-z\n")}, []string{"the same package, byte for byte"}},
		"a list and more":   {[]string{dir, file("list", dir+"/vmlinuz-z\n"+dir+"/vmlinuz-y\n")}, []string{"only one of", "is a list"}},
		"an empty list":     {[]string{file("empty", "# nothing\n")}, []string{"there is no kernel in it"}},
		"not a list":        {[]string{file("binary", "a\x00b")}, []string{"no text either"}},
		"a list of nothing": {[]string{file("nothing", "nosuch\n")}, []string{"nosuch: no such file"}},
		"a damaged package": {[]string{dir, file("a.deb", "!<arch>\n")}, []string{"a.deb", "without control.tar"}},
	} {
		packages, err := l.Packages(t.Context(), Spec{}, test.refs)
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, error %v, want one with %q", what, packages, err, want)
			}
		}
	}
}

func TestPickAndEnds(t *testing.T) {
	var packages []Package
	for i := range 5 {
		packages = append(packages, Package{Reference: fmt.Sprintf("pool/a%d.deb", i), Name: "linux-image-a", Version: fmt.Sprintf("6.1-%d", i), Release: fmt.Sprintf("6.1.0-%d", i/2), Digest: fmt.Sprintf("sha256:%d", i)})
	}
	for what, want := range map[string]int{"pool/a1.deb": 1, "./pool/a1.deb": 1, "a2.deb": 2, "6.1-3": 3, "6.1.0-2": 4, "linux-image-a 6.1-0": 0} {
		if got, err := pick(packages, what); err != nil || got != want {
			t.Errorf("%s: %d, %v", what, got, err)
		}
	}
	for what, want := range map[string]string{"6.1.0-1": "could be pool/a2.deb or pool/a3.deb", "7": "none of the kernels linux-image-a 6.1-0, "} {
		if _, err := pick(packages, what); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", what, err, want)
		}
	}
	for _, test := range []struct {
		good []string
		bad  string
		want string // of the range, or of the error
	}{
		{nil, "", "sha256:1 sha256:2 sha256:3 sha256:4"},
		{[]string{"6.1-1"}, "6.1-3", "sha256:2 sha256:3"},
		{[]string{"6.1-2", "6.1-1"}, "", "sha256:3 sha256:4"},
		{[]string{"6.1-3"}, "6.1-1", "does not come before"},
		{[]string{"6.1-3"}, "6.1-3", "does not come before"},
		{nil, "nosuch", "bad end: nosuch is none"},
		{[]string{"nosuch"}, "", "good end: nosuch is none"},
	} {
		var result Bisection
		commits, err := newPool(testLab(t), Spec{}, packages).ends(t.Context(), BisectOptions{Good: test.good, Bad: test.bad}, &result)
		got := fmt.Sprint(err)
		if err == nil {
			var hashes []string
			for _, c := range commits {
				hashes = append(hashes, c.Hash)
			}
			got = strings.Join(hashes, " ")
			if result.Range != len(commits) || len(result.Kernels) != 5 {
				t.Errorf("%v, %s: %+v", test.good, test.bad, result)
			}
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("good %v, bad %q: %s, want %s", test.good, test.bad, got, test.want)
		}
	}
}

func TestNext(t *testing.T) {
	for _, test := range []struct{ good, bad, release, want string }{
		{"6.1.192-2", "1:6.12~rc3-1", "", "v6.1.192..v6.12-rc3"},
		{"5.15.0-91.101", "5.15.0-92.102", "", "both kernels are based on Linux v5.15"},
		{"", "", "6.2.0-rc1", "both kernels are based on Linux v6.2-rc1"},
		{"odd", "odd", "odd", "read the changelog of linux"},
	} {
		good := Package{Reference: "a.deb", Name: "linux", Version: test.good, Release: test.release, Digest: "sha256:a"}
		bad := Package{Reference: "b.deb", Name: "linux", Version: test.bad, Release: test.release, Digest: "sha256:b"}
		b := Bisection{Kernels: []Package{good, bad}, Culprit: &kernel.Commit{Hash: "sha256:b", Parents: []string{"sha256:a"}}}
		if got := strings.Join(b.Next(), "\n"); !strings.Contains(got, test.want) {
			t.Errorf("%s to %s: %s, want %s", test.good, test.bad, got, test.want)
		}
	}
	if next := (&Bisection{Culprit: &kernel.Commit{Hash: "1234"}}).Next(); next != nil {
		t.Errorf("of a commit: %q", next)
	}
}

// A module that was asked for and did not load leaves nothing to judge.
func TestCheckModules(t *testing.T) {
	const note = "load module /lib/modules/kvm_intel.ko: operation not supported"
	for _, test := range []struct {
		end     End
		modules []string
		want    End
	}{
		{EndTest, []string{"overlay", "kvm-intel"}, EndSetup},
		{EndTest, []string{"kvm"}, EndTest},
		{EndTest, nil, EndTest},
		{EndCrash, []string{"kvm-intel"}, EndCrash},
	} {
		trial := Trial{End: test.end}
		trial.Result.Notes = []string{"the kernel lacks x", note}
		checkModules(test.modules, &trial)
		if trial.End != test.want || (trial.Detail == note) != (test.want == EndSetup) {
			t.Errorf("%s, %v: %s, %q", test.end, test.modules, trial.End, trial.Detail)
		}
	}
}

func FuzzList(f *testing.F) {
	f.Add("# comment\n\na b.deb # one\r\n/c\noci:layout:tag\n")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := readList(strings.NewReader(text), "/dir")
		if err != nil {
			return
		}
		for _, ref := range found {
			if !filepath.IsAbs(ref) && !oci.HasTransport(ref) || strings.ContainsAny(ref, "\n\x00") {
				t.Errorf("%q of %q", ref, text)
			}
		}
	})
}
