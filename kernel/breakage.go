package kernel

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// A Breakage is a known way in which a tree and the tools that build it do not
// go together, as old trees and new tools mostly. It is told beside what was
// seen, in the place of a wall of errors that says it in a compiler's words.
type Breakage struct {
	Kind     string `json:"kind"`               // one word for it
	What     string `json:"what"`               // what is wrong, in one line
	Repaired string `json:"repaired,omitempty"` // the first release of Linux that has the repair, as in 4.2
	Commit   string `json:"commit,omitempty"`   // upstream's repair, by its full hash
	Title    string `json:"title,omitempty"`
	Advice   string `json:"advice"` // what to do about it
}

// String tells it in a line or two.
func (b Breakage) String() string {
	s := b.What
	switch {
	case b.Repaired != "" && b.Commit != "":
		s += fmt.Sprintf("; repaired in Linux %s by %.12s (%q)", b.Repaired, b.Commit, b.Title)
	case b.Commit != "":
		s += fmt.Sprintf("; repaired by %.12s (%q)", b.Commit, b.Title)
	case b.Repaired != "":
		s += "; repaired in Linux " + b.Repaired
	}
	return s + ": " + b.Advice
}

// A sign is how a Breakage shows in the log of a build that failed.
type sign struct {
	Breakage
	word string         // is in every such line
	line *regexp.Regexp // matches it; nil where the word is enough
	warn bool           // the line is no error by itself, but what one comes from
}

func (s sign) in(line string) bool {
	return strings.Contains(line, s.word) && (s.line == nil || s.line.MatchString(line))
}

const (
	olderCompiler = "build with a --toolchain of an older compiler"
	newerCompiler = "build with a --toolchain of a newer compiler"
)

// signs are the breakages that show in a log, the more special before the more
// general. Hashes and titles are upstream's.
var signs = []sign{
	{word: "compiler-gcc", line: regexp.MustCompile(`linux/compiler-gcc\d+\.h: No such file`), Breakage: Breakage{
		Kind: "gcc-header", What: "trees before 4.2 have a header for each major version of gcc, and none for this one",
		Repaired: "4.2", Commit: "cb984d101b30eb7478d32df56a0023e4603cba7f", Title: "compiler-gcc: integrate the various compiler-gcc[345].h files",
		Advice: "where it does not apply, " + olderCompiler + " (gcc 4.9)",
	}},
	{word: "does not support PIC mode", Breakage: Breakage{
		Kind: "pie", What: "the compiler makes position-independent programs by default, and the tree does not say -fno-PIE",
		Repaired: "4.9", Commit: "8ae94224c9d72fc4d9aaac93b2d7833cf46d7141", Title: "kbuild: add -fno-PIE",
		Advice: olderCompiler + ", or one without that default",
	}},
	{word: "yylloc", line: regexp.MustCompile(`multiple definition of .yylloc'`), Breakage: Breakage{
		Kind: "dtc-yylloc", What: "gcc 10 and later take two declarations of yylloc in scripts/dtc for two variables",
		Repaired: "5.6", Commit: "e33a814e772cdc36436c8c188d8c42d019fda639", Title: "scripts/dtc: Remove redundant YYLOC global declaration",
		Advice: olderCompiler + " (gcc 9)",
	}},
	{word: "multiple definition of", line: regexp.MustCompile(`arch/x86/tools/relocs`), Breakage: Breakage{
		Kind: "relocs-common", What: "gcc 10 and later take a variable declared in two files of arch/x86/tools/relocs for two",
		Advice: "give a --patch that has one of them extern, or " + olderCompiler + " (gcc 9)",
	}},
	{word: "multiple definition of", line: regexp.MustCompile(`(^|[ /])(scripts|tools)/`), Breakage: Breakage{
		Kind: "no-common", What: "gcc 10 and later take a variable declared in two files for two (-fno-common)",
		Advice: "give a --patch that has one of them extern, or " + olderCompiler + " (gcc 9)",
	}},
	{word: "Can't use 'defined(@array)'", Breakage: Breakage{
		Kind: "timeconst", What: "kernel/timeconst.pl asks of an array whether it is defined, which perl 5.22 and later refuse",
		Repaired: "3.9", Advice: "give a --patch that drops defined() around the array",
	}},
	{word: "objtool: missing symbol table", Breakage: Breakage{
		Kind: "objtool-symtab", What: "binutils 2.36 and later leave out a symbol table that is empty, and the tree's objtool wants one",
		Repaired: "5.11", Commit: "1d489151e9f9d1647110277ff77282fe4d96d09b", Title: "objtool: Don't fail on missing symbol table",
		Advice: "build with a --toolchain of older binutils",
	}},
	{word: "use-after-free", line: regexp.MustCompile(`subcmd`), Breakage: Breakage{
		Kind: "subcmd-realloc", What: "gcc 12 and later find a use after free in tools/lib/subcmd, of which objtool is made",
		Repaired: "5.17", Commit: "52a9dab6d892763b2a8334a568bd4e2c1a6fde66", Title: "libsubcmd: Fix use-after-free for realloc(..., 0)",
		Advice: olderCompiler + " (gcc 11)",
	}},
	{word: "-mindirect-branch", line: regexp.MustCompile(`-fcf-protection.* not compatible`), Breakage: Breakage{
		Kind: "cf-protection", What: "the compiler has -fcf-protection on by default, which does not go with the tree's -mindirect-branch",
		Repaired: "5.3", Commit: "29be86d7f9cb18df4123f309ac7857570513e8bc", Title: "kbuild: add -fcf-protection=none when using retpoline flags",
		Advice: olderCompiler + ", or one without that default",
	}},
	{word: "non-retpoline compiler", Breakage: Breakage{
		Kind: "retpoline", What: "the configuration asks for retpolines, which this compiler does not make",
		Advice: newerCompiler + " (gcc 7.3), or set CONFIG_RETPOLINE=n in a --config fragment",
	}},
	{word: "Unsupported relocation type", line: regexp.MustCompile(`PLT32|\(4\)`), Breakage: Breakage{
		Kind: "plt32", What: "binutils 2.31 and later make R_X86_64_PLT32 of branches, which the tree does not know",
		Repaired: "4.16", Commit: "b21ebf2fb4cde1618915a97cc773e287ff49173e", Title: "x86: Treat R_X86_64_PLT32 as R_X86_64_PC32",
		Advice: "build with a --toolchain of older binutils",
	}},
	{word: "____ilog2_NaN", Breakage: Breakage{
		Kind: "ilog2", What: "gcc 7 and later keep a call that the tree counts on being optimised away",
		Repaired: "4.11", Commit: "474c90156c8dcc2fa815e6716cc9394d7930cb9c", Title: "give up on gcc ilog2() constant optimizations",
		Advice: olderCompiler + " (gcc 6)",
	}},
	{word: "missing separator", line: regexp.MustCompile(`\.cmd:\d+: \*\*\* missing separator`), Breakage: Breakage{
		Kind: "make-hash-tools", What: "make 4.3 and later do not take the backslash from \\# in the makefiles below tools/",
		Repaired: "4.18", Commit: "9feeb638cde083c737e295c0547f1b4f28e99583", Title: "tools build: fix # escaping in .cmd files for future Make",
		Advice: "build with a --toolchain that has make 4.2",
	}},
	{word: "elf_getshnum", line: regexp.MustCompile(`deprecated`), Breakage: Breakage{
		Kind: "make-hash-objtool", What: "make 4.3 and later do not take the backslash from \\#, and objtool's makefile finds what is not there",
		Repaired: "4.17", Commit: "9564a8cf422d7b58f6e857e3546d346fa970191e", Title: "Kbuild: fix # escaping in .cmd files for future Make",
		Advice: "build with a --toolchain that has make 4.2",
	}},
	{word: "mixed implicit and normal rules", Breakage: Breakage{
		Kind: "make-rules", What: "make 3.82 and later refuse a rule that makes both named files and patterns",
		Advice: "build with a --toolchain that has an older make, or give a --patch that takes the rule apart",
	}},
	{word: "error", line: regexp.MustCompile(`(scripts|certs)/(sign-file|extract-cert)|implicit declaration of function .(SSL|ENGINE|ERR|PKCS7|CMS|BIO|EVP)_`), Breakage: Breakage{
		Kind: "openssl", What: "the tree's programs that sign modules and read certificates do not go with this OpenSSL",
		Advice: "set CONFIG_MODULE_SIG=n and CONFIG_SYSTEM_TRUSTED_KEYRING=n in a --config fragment, or build with a --toolchain that has an older OpenSSL",
	}},
	{word: "BTF", line: regexp.MustCompile(`FAILED:? |pahole|resolve_btfids.*(rror|failed)`), Breakage: Breakage{
		Kind: "btf", What: "pahole and the tree do not agree on the type information (BTF)",
		Advice: "set CONFIG_DEBUG_INFO_BTF=n in a --config fragment",
	}},
	{word: "'", line: regexp.MustCompile(`(undefined reference to|implicit declaration of function) .(major|minor|makedev)'`), Breakage: Breakage{
		Kind: "sysmacros", What: "glibc 2.28 and later have major, minor and makedev in <sys/sysmacros.h> only",
		Advice: "give a --patch that includes it",
	}},
	{word: "bool", line: regexp.MustCompile(`cannot be defined via 'typedef'|before 'bool'|keyword 'false' as enumeration`), Breakage: gnu23},
	{word: "keyword 'false'", Breakage: gnu23},
	{word: "too old", line: regexp.MustCompile(`(?i)compiler.* too old|gcc.* too old`), Breakage: Breakage{
		Kind: "old-compiler", What: "the tree wants a newer compiler", Advice: newerCompiler,
	}},
	{word: "unrecognized command", line: regexp.MustCompile(`unrecognized command[- ]line option`), Breakage: Breakage{
		Kind: "option", What: "the tree asks the compiler for an option that it does not have",
		Advice: "build with a --toolchain of the tree's age",
	}},
	{word: "compiler support broken", warn: true, Breakage: Breakage{
		Kind: "stack-protector", What: "the tree's test of the stack protector fails with this compiler, as it does with one that makes position-independent programs by default",
		Repaired: "4.9", Advice: olderCompiler + ", or set CONFIG_CC_STACKPROTECTOR=n in a --config fragment",
	}},
}

var gnu23 = Breakage{
	Kind: "gnu23", What: "gcc 15 and later take C for that of 2023, in which bool and false are keywords",
	Commit: "b3bee1e7c3f2b1b77182302c7b2131c804175870", Title: "x86/boot: Compile boot code with -std=gnu11 too",
	Advice: olderCompiler + " (gcc 14)",
}

// earlyCrash is what the kernel says of itself, on a console.
var earlyCrash = Breakage{
	Kind: "start-secondary", What: "gcc 10 and later end start_secondary with a jump, which leaves its stack guard behind: the kernel panics when it brings up its processors",
	Repaired: "5.7", Commit: "a9a3ed1eff3601b63aea4fb462d8b3b92c7c1e7e", Title: "x86: Fix early boot crash on gcc-10, third try",
	Advice: olderCompiler + " (gcc 9), or set CONFIG_STACKPROTECTOR=n in a --config fragment",
}

// KnownCrash finds the known breakage that a console tells of; nil where it tells
// of none.
func KnownCrash(console []byte) *Breakage {
	if bytes.Contains(console, []byte("stack-protector: Kernel stack is corrupted in: start_secondary")) {
		b := earlyCrash
		b.Advice = fmt.Sprintf("put it on top with --pick %.12s; or %s", b.Commit, b.Advice)
		return &b
	}
	return nil
}

// KnownBreakage finds one by its kind.
func KnownBreakage(kind string) (Breakage, bool) {
	for _, b := range []Breakage{slowRebuilds, silentHang, earlyCrash} {
		if b.Kind == kind {
			return b, true
		}
	}
	for _, s := range signs {
		if s.Kind == kind {
			return s.Breakage, true
		}
	}
	return Breakage{}, false
}

// explain finds the known breakage behind a failure: by the line that tells, or
// else by the first in its log that is as telling. It is made anew each time a
// failure is read, so that an old one profits from what was learned since.
func explain(f *Failure) *Breakage {
	if f.Step == StepPatch {
		return nil
	}
	for _, s := range signs {
		if s.in(f.Line) {
			return &s.Breakage
		}
	}
	log, err := os.Open(f.Log)
	if err != nil {
		return nil // gone, and with it what it could have told
	}
	defer log.Close()
	return explainLog(log)
}

// explainLog reads a log up to the first line of a known breakage; lines that
// are no errors are believed only where there is no other.
func explainLog(r io.Reader) *Breakage {
	lines := bufio.NewScanner(io.LimitReader(r, maxLog))
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	var warned *Breakage
	for lines.Scan() {
		line := lines.Text()
		for _, s := range signs {
			switch {
			case !s.in(line):
			case s.warn && warned == nil:
				warned = &s.Breakage
			case !s.warn && tells(line):
				return &s.Breakage
			}
		}
	}
	return warned
}

func tells(line string) bool {
	if quoted.MatchString(line) {
		return false
	}
	for _, kind := range telling {
		if kind.MatchString(line) {
			return true
		}
	}
	return false
}

// Breakages that no build fails of.
var (
	slowRebuilds = Breakage{
		Kind: "make-hash", What: "make 4.3 and later do not take the backslash from \\# in scripts/Kbuild.include: each build compiles everything again",
		Repaired: "4.17", Commit: "9564a8cf422d7b58f6e857e3546d346fa970191e", Title: "Kbuild: fix # escaping in .cmd files for future Make",
		Advice: "build with a --toolchain that has make 4.2",
	}
	silentHang = Breakage{
		Kind: "early-idt", What: "the assembler has shrunk the stubs of early_idt_handlers, which must be nine bytes each: such a kernel hangs before it says anything",
		Repaired: "4.1", Commit: "425be5679fd292a3c36cb1fe423086708a99f11a", Title: "x86/asm/irq: Stop relying on magic JMP behavior for early_idt_handlers",
		Advice: "build with a --toolchain of older binutils",
	}
)

// known finds the breakages that a build of a commit has without failing of
// them: by the tree, and by the kernel where there is one.
func (t *Tree) known(ctx context.Context, commit string, tools Toolchain, k Kernel) ([]Breakage, error) {
	var all []Breakage
	text, _, err := t.own(ctx, ownGit{}, "cat-file", "blob", commit+":scripts/Kbuild.include")
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err == nil && hashEscaped(text) && t.newMake(ctx, tools) {
		all = append(all, slowRebuilds)
	}
	if k.SystemMap == "" {
		return all, nil
	}
	symbols, err := os.Open(k.SystemMap)
	if err != nil {
		return nil, fmt.Errorf("look for known breakages: %w", err)
	}
	defer symbols.Close()
	if shrunkStubs(symbols) {
		all = append(all, silentHang)
	}
	return all, nil
}

// hashEscaped tells a Kbuild.include that writes commands with \# in them.
func hashEscaped(text string) bool {
	return strings.Contains(text, `$(subst \#,`)
}

// newMake tells whether a toolchain's make takes no backslash from \#: since 4.3,
// as its NEWS say. One that does not tell its version is an old one.
func (t *Tree) newMake(ctx context.Context, tools Toolchain) bool {
	t.makes.Lock()
	defer t.makes.Unlock()
	key := tools.Digest
	version, known := t.makes.versions[key]
	if !known {
		text, err := tools.ask(ctx, t.base, "make", "--version")
		if err != nil {
			return false
		}
		if t.makes.versions == nil {
			t.makes.versions = map[string][2]int{}
		}
		version[0], version[1] = makeVersion(text)
		t.makes.versions[key] = version
	}
	return version[0] > 4 || version[0] == 4 && version[1] >= 3
}

// makesOnce are the versions of make, by the digest of the toolchain's image.
type makesOnce struct {
	sync.Mutex
	versions map[string][2]int
}

var gnuMake = regexp.MustCompile(`^GNU Make (\d{1,4})\.(\d{1,4})`)

func makeVersion(text string) (major, minor int) {
	if m := gnuMake.FindStringSubmatch(text); m != nil {
		major, _ = strconv.Atoi(m[1])
		minor, _ = strconv.Atoi(m[2])
	}
	return major, minor
}

// shrunkStubs tells from a System.map that the array early_idt_handlers has not
// its 32 stubs of nine bytes: arch/x86/kernel/head_64.S before 4.1, in which
// early_idt_handler comes behind it.
func shrunkStubs(r io.Reader) bool {
	const size = 32 * 9
	var first, next uint64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "early_idt_handler") {
			continue
		}
		at, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			continue
		}
		switch fields[2] {
		case "early_idt_handlers":
			first = at
		case "early_idt_handler":
			next = at
		}
	}
	return first != 0 && next > first && next-first < size
}

// advise says of a breakage how its repair can be had from the repository.
func (t *Tree) advise(ctx context.Context, b *Breakage) *Breakage {
	if b == nil || b.Commit == "" {
		return b
	}
	told := *b
	pick := fmt.Sprintf("put it on top with --pick %.12s", b.Commit)
	if _, _, err := t.own(ctx, atHand, "cat-file", "-e", b.Commit+"^{commit}"); err != nil {
		pick = fmt.Sprintf("get that commit into the repository (git fetch) and %s", pick)
	}
	told.Advice = pick + "; or " + b.Advice
	if strings.HasPrefix(b.Advice, "where ") {
		told.Advice = pick + "; " + b.Advice
	}
	return &told
}
