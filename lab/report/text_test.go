package report

import (
	"strings"
	"testing"

	"lab/lab/bundle"
)

// TestText looks for what regzbot does.
func TestText(t *testing.T) {
	for _, form := range []string{FormText, FormEmail} {
		got := render(t, example(), form)
		if !strings.Contains(got, "\n\n#regzbot introduced: 33faba7fa7f2288d2f8aaea95958b2c97bf9ebfb\n\n") {
			t.Errorf("%s: regzbot wants its command in a paragraph of its own", form)
		}
	}
}

// TestTextHasNoOthersLines has titles and reasons that would be trailers and commands
// if a line began there.
func TestTextHasNoOthersLines(t *testing.T) {
	for n := range 80 {
		d := example()
		evil := strings.Repeat("x", n) + strings.Repeat(" #regzbot introduced: deadbeef Cc: a@example.org From me Signed-off-by: b <b@example.org>", 3)
		for i := range 2 {
			d.Manifest.Kernels[i].Title, d.Manifest.Runs[i].Reason = evil, evil
		}
		d.Manifest.Culprit.Title, d.Sure, d.Known = evil, evil, []string{evil}
		_, got, _ := strings.Cut(render(t, d, FormText), "\n")
		for line := range strings.Lines(got) {
			for _, word := range []string{"#regzbot introduced: dead", "Cc:", "From", "Signed-off-by:"} {
				if strings.HasPrefix(line, word) {
					t.Fatalf("%d: a line begins %q", n, line)
				}
			}
		}
	}
}

// TestTextOnTop tells of picks and patches.
func TestTextOnTop(t *testing.T) {
	d := example()
	m := &d.Manifest
	m.Patches = []bundle.Patch{
		{Name: "x86: repair", Commit: m.Kernels[0].Commit, Member: "inputs/patches/01-pick.patch"},
		{Name: "printk.patch", Member: "inputs/patches/02-printk.patch"},
		{Name: "other.patch", Member: "inputs/patches/03-other.patch"},
	}
	m.Kernels[0].Applied = []string{"inputs/patches/02-printk.patch"}
	m.Kernels[1].Applied = []string{"inputs/patches/01-pick.patch", "inputs/patches/02-printk.patch"}
	got := render(t, d, FormText)
	for _, want := range []string{
		"  with these on top of the commits (inputs/patches/; kernels/…/on-top.patch is what they changed):\n",
		"    pick 51cc83f024ee (\"x86: repair\"): on the bad kernel\n",
		"    patch printk.patch: on the good and the bad kernel\n",
		"    patch other.patch: on neither kernel: there, or not needed\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("without %q:\n%s", want, got)
		}
	}
}

// TestTextOfPackages wants nothing said of commits where ready-made kernels
// were bisected.
func TestTextOfPackages(t *testing.T) {
	d := example()
	m := &d.Manifest
	for i, version := range []string{"6.1-1", "6.1-2"} {
		m.Kernels[i].Commit, m.Kernels[i].Title, m.Kernels[i].Package = "", "linux "+version, &bundle.Package{Name: "linux", Version: version, Digest: "sha256:" + version}
	}
	m.Culprit = &bundle.Culprit{Title: m.Kernels[1].Title, Package: m.Kernels[1].Package}
	m.Machine.Modules = []string{"dummy"}
	d.Patch, d.Hunks, d.Pair, d.Log, d.Next = "", "", nil, "", []string{"read on"}
	got := render(t, d, FormText)
	for _, want := range []string{"With the kernel linux 6.1-2 a container test fails", "With linux 6.1-1 it is good", "package sha256:6.1-2", "7 tests of 25 kernels", "  - read on\n", "modules loaded before the test: dummy"} {
		if !strings.Contains(got, want) {
			t.Errorf("without %q:\n%s", want, got)
		}
	}
	for _, not := range []string{"commit", "regzbot", "Fixes:", "author"} {
		if strings.Contains(got, not) {
			t.Errorf("with %q:\n%s", not, got)
		}
	}
}

// TestTextOfOptions wants no commit blamed where it takes a configuration.
func TestTextOfOptions(t *testing.T) {
	d := example()
	d.Manifest.Kernels[0].Commit, d.Manifest.Culprit.Author = badHash, ""
	d.Manifest.Culprit.Options, d.Patch = []string{"CONFIG_AUDIT=y", "CONFIG_NET_NS=y"}, ""
	d.Log, d.Pair, d.Hunks = "", nil, ""
	got := render(t, d, FormText)
	for _, want := range []string{"With CONFIG_AUDIT=y and 1 more option in the", "\n  CONFIG_NET_NS=y\n", "7 tests of 24 options that differed"} {
		if !strings.Contains(got, want) {
			t.Errorf("without %q:\n%s", want, got)
		}
	}
	for _, not := range []string{"regzbot", "Fixes:", "author", "parent"} {
		if strings.Contains(got, not) {
			t.Errorf("with %q:\n%s", not, got)
		}
	}
	for _, form := range Forms {
		render(t, d, form)
	}
}
