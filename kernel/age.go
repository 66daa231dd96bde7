package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A release is the first two numbers of a version: of a kernel, as in 6.1, or of
// a gcc, as in 4.9. The zero release is not known.
type release struct{ major, minor int }

func (r release) before(o release) bool {
	return r.major < o.major || r.major == o.major && r.minor < o.minor
}

func (r release) String() string { return fmt.Sprintf("%d.%d", r.major, r.minor) }

// gcc writes a gcc's version as it is spoken of: since 5, the major number alone
// tells releases apart.
func (r release) gcc() string {
	if r.major >= 5 {
		return strconv.Itoa(r.major)
	}
	return r.String()
}

// A suit is the range of gcc's that build kernels of some age. The zero newest
// is any.
type suit struct{ oldest, newest release }

func (s suit) fits(gcc release) bool {
	if gcc.before(s.oldest) {
		return false
	}
	return s.newest == (release{}) || gcc.major < s.newest.major ||
		gcc.major == s.newest.major && (gcc.major >= 5 || gcc.minor <= s.newest.minor)
}

func (s suit) String() string {
	if s.newest == (release{}) {
		return "gcc " + s.oldest.gcc() + " and later"
	}
	return "gcc " + s.oldest.gcc() + " to " + s.newest.gcc()
}

// and is what suits both.
func (s suit) and(o suit) suit {
	if s.oldest.before(o.oldest) {
		s.oldest = o.oldest
	}
	if s.newest == (release{}) || o.newest != (release{}) && o.newest.before(s.newest) {
		s.newest = o.newest
	}
	return s
}

// suits says which gcc builds the kernels from a release on. The oldest is what
// the kernel asks for (Documentation/process/changes.rst, scripts/min-tool-version.sh).
// The newest is that of which unchanged trees are known to build and to boot; a
// stable branch of that age may take a newer one.
var suits = []struct {
	from release
	suit
}{
	{release{0, 0}, suit{release{3, 2}, release{4, 9}}},  // include/linux/compiler-gccN.h for each N, up to 4
	{release{3, 18}, suit{release{3, 2}, release{5, 0}}}, // compiler-gcc5.h
	{release{4, 9}, suit{release{3, 2}, release{6, 0}}},  // -fno-PIE, for gcc's that make PIE by default
	{release{4, 11}, suit{release{3, 2}, release{7, 0}}},
	{release{4, 12}, suit{release{3, 2}, release{8, 0}}},
	{release{4, 19}, suit{release{4, 6}, release{8, 0}}},
	{release{5, 1}, suit{release{4, 6}, release{9, 0}}}, // gcc 10 breaks start_secondary's stack protector until 5.7
	{release{5, 8}, suit{release{4, 9}, release{9, 0}}},
	{release{5, 9}, suit{release{4, 9}, release{11, 0}}},
	{release{5, 15}, suit{release{5, 1}, release{11, 0}}},
	{release{5, 16}, suit{release{5, 1}, release{14, 0}}},
	{release{6, 14}, suit{release{5, 1}, release{}}}, // -std=gnu11 everywhere, for gcc 15, whose default is C23
	{release{6, 16}, suit{release{8, 1}, release{}}},
}

// suited is what suits a kernel.
func suited(kernel release) suit {
	s := suits[0].suit
	for _, row := range suits {
		if !kernel.before(row.from) {
			s = row.suit
		}
	}
	return s
}

// A compiler is an installed gcc.
type compiler struct {
	path    string // empty: gcc as it is on the PATH
	name    string // gcc, gcc-9
	version release
}

// choose picks from the installed compilers, of which the first is the one to
// take without a reason for another, and says what one should know about it.
func choose(kernels []release, have []compiler) (compiler, string) {
	var ages []string
	need := suit{}
	for _, k := range kernels {
		if k == (release{}) {
			return have[0], "" // nothing is known of the tree's age
		}
		need = need.and(suited(k))
		if name := "Linux " + k.String(); !slices.Contains(ages, name) {
			ages = append(ages, name)
		}
	}
	if len(kernels) == 0 || need.fits(have[0].version) {
		return have[0], ""
	}
	what := strings.Join(ages, " and ")
	var best *compiler
	for i, c := range have {
		if need.fits(c.version) && (best == nil || best.version.before(c.version)) {
			best = &have[i]
		}
	}
	if best != nil {
		return *best, fmt.Sprintf("compiler: %s for %s, which %s is not known to build (%s is)", best.name, what, have[0].name, need)
	}
	var names []string
	for _, c := range have {
		names = append(names, c.name+" is "+c.version.gcc())
	}
	there := strings.Join(names, ", ")
	if need.newest != (release{}) && need.newest.before(need.oldest) {
		return have[0], fmt.Sprintf("compiler: no one gcc is known to build %s; trying all with one (%s), and what it does not build is skipped: choose it with --toolchain", what, there)
	}
	get := need.newest
	if get == (release{}) {
		get = need.oldest
	}
	return have[0], fmt.Sprintf("compiler: %s is known to build %s, and none is installed (%s): trying all the same; get one with apt install gcc-%s, or in an image: --toolchain docker://docker.io/library/gcc:%s", need, what, there, get.gcc(), get.gcc())
}

// ChooseToolchain gives the host's toolchain for commits: plain gcc where it
// suits their age, else the newest installed gcc-N that does. It is one for all
// of them. What one should know about the choice goes to notice, which may be
// nil.
func (t *Tree) ChooseToolchain(ctx context.Context, notice func(string), commits ...string) (Toolchain, error) {
	plain, err := t.hostToolchain(ctx, "")
	if err != nil {
		return Toolchain{}, err
	}
	var ages []release
	for _, c := range commits {
		age, err := t.release(ctx, c)
		if err != nil {
			return Toolchain{}, fmt.Errorf("find the age of %.12s: %w", c, err)
		}
		ages = append(ages, age)
	}
	have := []compiler{{name: "gcc", version: gccVersion(plain.Compiler())}}
	if have[0].version == (release{}) {
		return plain, nil // a compiler of which nothing is known
	}
	picked, why := choose(ages, have)
	if why == "" {
		return plain, nil
	}
	others, err := t.installed(ctx)
	if err != nil {
		return Toolchain{}, err
	}
	if picked, why = choose(ages, append(have, others...)); notice != nil {
		notice(why)
	}
	return t.hostToolchain(ctx, picked.path)
}

var makefileNumbers = regexp.MustCompile(`(?m)^(VERSION|PATCHLEVEL)[ \t]*=[ \t]*([0-9]{1,4})[ \t]*$`)

// release reads the version of a commit's tree from its Makefile; zero where it
// does not say.
func (t *Tree) release(ctx context.Context, hash string) (release, error) {
	out := &cappedBuffer{limit: 64 << 10}
	var exit *exec.ExitError
	if err := t.git(ctx, out, nil, "cat-file", "blob", hash+":Makefile"); err != nil {
		if errors.As(err, &exit) {
			return release{}, nil
		}
		return release{}, err
	}
	return makefileRelease(out.kept.Bytes()), nil
}

func makefileRelease(makefile []byte) release {
	found := map[string]int{}
	for _, m := range makefileNumbers.FindAllSubmatch(makefile, -1) {
		if _, twice := found[string(m[1])]; !twice {
			found[string(m[1])], _ = strconv.Atoi(string(m[2]))
		}
	}
	return release{found["VERSION"], found["PATCHLEVEL"]}
}

// gccLine takes the version out of "gcc (Debian 12.2.0-14+deb12u1) 12.2.0" and
// "gcc-10 (GCC) 10.2.1 20210110 (Red Hat)": the first number behind the
// parentheses that name the packager.
var gccLine = regexp.MustCompile(`^\S*gcc\S* (?:\([^()]*(?:\([^()]*\)[^()]*)*\) )?([0-9]{1,3})\.([0-9]{1,3})`)

func gccVersion(line string) release {
	m := gccLine.FindStringSubmatch(line)
	if m == nil {
		return release{}
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return release{major, minor}
}

var gccName = regexp.MustCompile(`^gcc-[0-9]{1,2}(\.[0-9]{1,2})?$`)

// installed looks for gcc-N on the PATH.
func (t *Tree) installed(ctx context.Context) ([]compiler, error) {
	t.toolchains.Lock()
	defer t.toolchains.Unlock()
	if t.toolchains.gccs == nil {
		found, err := installed(ctx)
		if err != nil {
			return nil, err
		}
		t.toolchains.gccs = append([]compiler{}, found...)
	}
	return t.toolchains.gccs, nil
}

func installed(ctx context.Context) ([]compiler, error) {
	var list []compiler
	host := Toolchain{path: os.Getenv("PATH")}
	for _, dir := range filepath.SplitList(host.path) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := e.Name()
			if !gccName.MatchString(name) || slices.ContainsFunc(list, func(c compiler) bool { return c.name == name }) {
				continue
			}
			line, err := host.ask(ctx, "/", filepath.Join(dir, name), "--version")
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				continue // does not run, so it is not one to choose
			}
			if v := gccVersion(line); v != (release{}) {
				list = append(list, compiler{filepath.Join(dir, name), name, v})
			}
		}
	}
	return list, nil
}

// Compilers names the gcc's on the PATH with their versions, plain gcc first:
// "gcc (Debian 12.2.0-14) 12.2.0" behind "gcc".
func Compilers(ctx context.Context) ([]Tool, error) {
	host := Toolchain{path: os.Getenv("PATH")}
	var list []Tool
	add := func(name, path string) {
		if line, err := host.ask(ctx, "/", path, "--version"); err == nil {
			list = append(list, Tool{Name: name, Path: path, Version: line})
		}
	}
	if path, _ := lookIn("/", host.path, "gcc"); path != "" {
		add("gcc", path)
	}
	others, err := installed(ctx)
	for _, c := range others {
		add(c.name, c.path)
	}
	return list, err
}
