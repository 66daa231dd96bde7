package kernel

import (
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	gcc := func(major, minor int) compiler { return compiler{name: "gcc", version: release{major, minor}} }
	other := func(name string, major, minor int) compiler {
		return compiler{path: "/usr/bin/" + name, name: name, version: release{major, minor}}
	}
	debian := []compiler{gcc(12, 2), other("gcc-4.9", 4, 9), other("gcc-9", 9, 3), other("gcc-11", 11, 3)}
	for _, test := range []struct {
		kernels []release
		have    []compiler
		want    string
		why     string // part of it; empty: nothing to say
	}{
		{[]release{{6, 1}}, debian, "gcc", ""},
		{[]release{{5, 16}}, debian, "gcc", ""},
		{[]release{{5, 15}}, debian, "gcc-11", "gcc-11 for Linux 5.15, which gcc is not known to build (gcc 5 to 11 is)"},
		{[]release{{5, 4}}, debian, "gcc-9", "gcc-9 for Linux 5.4"},
		{[]release{{4, 4}}, debian, "gcc-4.9", "gcc-4.9 for Linux 4.4"},
		{[]release{{3, 14}}, debian, "gcc-4.9", "gcc-4.9 for Linux 3.14, which gcc is not known to build (gcc 3.2 to 4.9 is)"},
		{[]release{{2, 6}}, debian, "gcc-4.9", ""},
		{[]release{{6, 16}}, []compiler{gcc(15, 1)}, "gcc", ""},
		{[]release{{6, 13}}, []compiler{gcc(15, 1), other("gcc-14", 14, 2)}, "gcc-14", "gcc-14"},
		{[]release{{6, 16}}, []compiler{gcc(7, 5), other("gcc-8", 8, 3)}, "gcc-8", "gcc 8 and later is"},
		{[]release{{4, 18}}, []compiler{gcc(4, 4)}, "gcc", ""},
		{[]release{{4, 19}}, []compiler{gcc(4, 4)}, "gcc", "gcc 4.6 to 8 is known to build Linux 4.19, and none is installed (gcc is 4.4)"},
		{[]release{{3, 14}}, debian[:1], "gcc", "apt install gcc-4.9, or in an image: --toolchain docker://docker.io/library/gcc:4.9"},
		// One for both ends.
		{[]release{{5, 4}, {5, 15}}, debian, "gcc-9", "gcc-9 for Linux 5.4 and Linux 5.15"},
		{[]release{{6, 1}, {6, 1}}, debian, "gcc", ""},
		{[]release{{3, 14}, {6, 1}}, debian, "gcc", "no one gcc is known to build Linux 3.14 and Linux 6.1; trying all with one"},
		// Of a tree that does not say what it is, nothing is known.
		{[]release{{}}, debian, "gcc", ""},
		{nil, debian, "gcc", ""},
	} {
		got, why := choose(test.kernels, test.have)
		if got.name != test.want || test.why == "" && test.want == "gcc" && why != "" || !strings.Contains(why, test.why) {
			t.Errorf("%v of %v: %s, %q; want %s, %q", test.kernels, test.have, got.name, why, test.want, test.why)
		}
	}
}

func TestSuitsAreInOrder(t *testing.T) {
	for i := 1; i < len(suits); i++ {
		a, b := suits[i-1], suits[i]
		if !a.from.before(b.from) || b.oldest.before(a.oldest) || b.newest != (release{}) && b.newest.before(a.newest) {
			t.Errorf("%v comes after %v", b, a)
		}
	}
}

func TestMakefileRelease(t *testing.T) {
	for text, want := range map[string]release{
		"# SPDX\nVERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 150\n": {6, 1},
		"VERSION = 3\nPATCHLEVEL = 14\nVERSION = 9\n":           {3, 14},
		"VERSION=2\nPATCHLEVEL=6\n":                             {2, 6},
		"VERSION = $(X)\nPATCHLEVEL = 14\n":                     {0, 14},
		"VERSION = 99999\n":                                     {},
		"all:\n":                                                {},
	} {
		if got := makefileRelease([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

var gccLines = map[string]release{
	"gcc (Debian 12.2.0-14+deb12u1) 12.2.0":                     {12, 2},
	"gcc-9 (Ubuntu 9.4.0-1ubuntu1~20.04.2) 9.4.0":               {9, 4},
	"gcc (GCC) 4.8.5 20150623 (Red Hat 4.8.5-44)":               {4, 8},
	"x86_64-linux-gnu-gcc-10 (Debian 10.2.1-6) 10.2.1 20210110": {10, 2},
	"gcc (SUSE Linux) 13.3.0":                                   {13, 3},
	"gcc (Gentoo 13.2.1_p20240210 p14 (mine)) 13.2.1 20240210":  {13, 2},
	"gcc 4.9.4":                   {4, 9},
	"Debian clang version 14.0.6": {},
	"gcc (unclosed 12.2.0":        {},
	"":                            {},
	"Apple LLVM version 10.0.1 (clang-1001.0.46.4) gcc (fake) 12.2": {},
}

func TestGCCVersion(t *testing.T) {
	for line, want := range gccLines {
		if got := gccVersion(line); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}

func FuzzReleases(f *testing.F) {
	for line := range gccLines {
		f.Add(line)
	}
	f.Add("VERSION = 6\nPATCHLEVEL = 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range []release{gccVersion(text), makefileRelease([]byte(text))} {
			if r.major < 0 || r.major > 9999 || r.minor < 0 || r.minor > 9999 {
				t.Errorf("%q: %v", text, r)
			}
			suited(r).fits(r)
		}
	})
}
