package kernel

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestExplain puts lines of real logs to the table.
func TestExplain(t *testing.T) {
	for line, want := range map[string]string{
		"include/linux/compiler-gcc.h:100:30: fatal error: linux/compiler-gcc12.h: No such file or directory":                                                 "gcc-header",
		"kernel/bounds.c:1:0: error: code model kernel does not support PIC mode":                                                                             "pie",
		"/usr/bin/ld: scripts/dtc/dtc-parser.tab.o:(.bss+0x20): multiple definition of `yylloc'; scripts/dtc/dtc-lexer.lex.o:(.bss+0x0): first defined here":  "dtc-yylloc",
		"/usr/bin/ld: arch/x86/tools/relocs_64.o:(.bss+0x0): multiple definition of `sym_regex_c'; arch/x86/tools/relocs_32.o:(.bss+0x0): first defined here": "relocs-common",
		"/usr/bin/ld: scripts/kconfig/a.o:(.bss+0x0): multiple definition of `x'; scripts/kconfig/b.o:(.bss+0x0): first defined here":                         "no-common",
		"Can't use 'defined(@array)' (Maybe you should just omit the defined()?) at kernel/timeconst.pl line 373.":                                            "timeconst",
		"arch/x86/entry/thunk_64.o: warning: objtool: missing symbol table":                                                                                   "objtool-symtab",
		"subcmd-util.h:56:23: error: pointer may be used after 'realloc' [-Werror=use-after-free]":                                                            "subcmd-realloc",
		"./arch/x86/include/asm/a.h:1:1: error: '-mindirect-branch' and '-fcf-protection' are not compatible":                                                 "cf-protection",
		"arch/x86/Makefile:245: *** You are building kernel with non-retpoline compiler, please update your compiler..  Stop.":                                "retpoline",
		"Unsupported relocation type: R_X86_64_PLT32 (4)":                                                                                                     "plt32",
		"timekeeping.c:2088: undefined reference to `____ilog2_NaN'":                                                                                          "ilog2",
		"tools/objtool/.fixdep.o.cmd:1: *** missing separator.  Stop.":                                                                                        "make-hash-tools",
		"orc_dump.c:106:2: error: 'elf_getshnum' is deprecated [-Werror=deprecated-declarations]":                                                             "make-hash-objtool",
		"Makefile:442: *** mixed implicit and normal rules.  Stop.":                                                                                           "make-rules",
		"scripts/extract-cert.c:46:9: error: 'ERR_get_error_line' is deprecated: Since OpenSSL 3.0 [-Werror=deprecated-declarations]":                         "openssl",
		"scripts/a.c:1:1: error: implicit declaration of function 'SSL_load_error_strings' [-Werror=implicit-function-declaration]":                           "openssl",
		"FAILED: load BTF from vmlinux: Invalid argument":                                                                                                     "btf",
		"usr/gen_init_cpio.c:300: undefined reference to `makedev'":                                                                                           "sysmacros",
		"./include/linux/stddef.h:11:9: error: cannot use keyword 'false' as enumeration constant":                                                            "gnu23",
		"./include/linux/types.h:35:33: error: 'bool' cannot be defined via 'typedef'":                                                                        "gnu23",
		"gcc: error: unrecognized command-line option '-mno-fentry'":                                                                                          "option",
		"*** Compiler is too old.": "old-compiler",
		"kernel/audit.c:7:2: error: 'x' undeclared (first use in this function)": "",
		"net/core/dev.c:1:1: error: BTF_ID unknown":                              "",
	} {
		got := ""
		if b := explain(&Failure{Step: "compile", Line: line}); b != nil {
			got = b.Kind
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if b := explain(&Failure{Step: StepPatch, Line: "code model kernel does not support PIC mode"}); b != nil {
		t.Errorf("a patch that does not apply is explained by %s", b.Kind)
	}
}

// TestExplainLog: a line that tells behind the first one; a warning where
// nothing else does; and what is quoted tells nothing.
func TestExplainLog(t *testing.T) {
	for log, want := range map[string]string{
		"  CC a.o\na.c:1:1: error: x\nkernel/bounds.c:1:0: error: code model kernel does not support PIC mode\n":           "pie",
		"arch/x86/Makefile:96: stack protector enabled but compiler support broken\na.c:1:1: error: x\n":                   "stack-protector",
		"arch/x86/Makefile:96: stack protector enabled but compiler support broken\nmake: *** does not support PIC mode\n": "pie",
		"   12 | printf(\"error: does not support PIC mode\");\na.c:1:1: error: x\n":                                       "",
		"": "",
	} {
		got := ""
		if b := explainLog(strings.NewReader(log)); b != nil {
			got = b.Kind
		}
		if got != want {
			t.Errorf("%q: %q, want %q", log, got, want)
		}
	}
}

// TestBreakagesAreWhole: each says what it is and what to do, by a kind of its
// own, and names a commit by hash and title or not at all.
func TestBreakagesAreWhole(t *testing.T) {
	version := regexp.MustCompile(`^([3-6]\.\d{1,2})?$`)
	seen := map[string]string{}
	all := []Breakage{slowRebuilds, silentHang, earlyCrash}
	for _, s := range signs {
		all = append(all, s.Breakage)
		if s.word == "" {
			t.Errorf("%s has no word", s.Kind)
		}
	}
	for _, b := range all {
		if b.Kind == "" || b.What == "" || b.Advice == "" || (b.Commit == "") != (b.Title == "") || b.Commit != "" && !isHash(b.Commit) || !version.MatchString(b.Repaired) {
			t.Errorf("%+v", b)
		}
		if said, ok := seen[b.Kind]; ok && said != b.String() {
			t.Errorf("two kinds are called %s", b.Kind)
		}
		seen[b.Kind] = b.String()
	}
}

// TestFailureHasHint: the hint comes with a failure that is read from the cache
// too, and the advice knows whether the repository has the repair.
func TestFailureHasHint(t *testing.T) {
	r := newRepo(t)
	commit := r.change("broken", "HOOK", "echo \"kernel/bounds.c:1:0: error: code model kernel does not support PIC mode\" >&2; exit 1\n")
	tree := open(t, t.TempDir(), r.dir)
	for _, cached := range []bool{false, true} {
		b := build(t, tree, commit, fragments("CONFIG_A=y\n"))
		if b.failure == nil || b.cached != cached || b.failure.Hint == nil || b.failure.Hint.Kind != "pie" {
			t.Fatalf("cached %v: %+v", cached, b.failure)
		}
		if s := b.failure.Hint.String(); !strings.Contains(s, `repaired in Linux 4.9 by 8ae94224c9d7 ("kbuild: add -fno-PIE"): get that commit into the repository (git fetch) and put it on top with --pick 8ae94224c9d7; or build with a --toolchain of an older compiler`) {
			t.Error(s)
		}
	}
	here := Breakage{Commit: commit, Title: "broken", Advice: "where it does not apply, x"}
	if got, want := tree.advise(t.Context(), &here).Advice, "put it on top with --pick "+commit[:12]+"; where it does not apply, x"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	other := r.change("broken otherwise", "HOOK", "echo \"a.c:1:1: error: x\" >&2; exit 1\n")
	if b := build(t, tree, other, fragments("CONFIG_A=y\n")); b.failure == nil || b.failure.Hint != nil {
		t.Errorf("%+v", b.failure)
	}
}

// TestKnown: what no build fails of is told by the tree and by the kernel.
func TestKnown(t *testing.T) {
	r := newRepo(t)
	escaped := r.change("escaped", "scripts/Kbuild.include", "make-cmd = $(call escsq,$(subst \\#,\\\\\\#,$(subst $$,$$$$,$(cmd_$(1)))))\n")
	repaired := r.change("repaired", "scripts/Kbuild.include", "make-cmd = $(call escsq,$(subst $(pound),$$(pound),$(subst $$,$$$$,$(cmd_$(1)))))\n")
	tree := open(t, t.TempDir(), r.dir)
	kinds := func(b built) (list []string) {
		for _, k := range b.Known {
			list = append(list, k.Kind)
		}
		return list
	}
	tree.makes.versions = map[string][2]int{"": {4, 3}}
	for _, cached := range []bool{false, true} {
		b := build(t, tree, escaped, fragments("CONFIG_A=y\n"))
		if got := fmt.Sprint(kinds(b)); got != "[make-hash]" || b.cached != cached {
			t.Errorf("%s, cached %v", got, b.cached)
		}
	}
	if b := build(t, tree, repaired, fragments("CONFIG_A=y\n")); len(b.Known) > 0 {
		t.Errorf("%+v", b.Known)
	}
	tree.makes.versions[""] = [2]int{4, 2}
	if b := build(t, tree, escaped, fragments("CONFIG_A=y\n")); len(b.Known) > 0 {
		t.Errorf("with make 4.2: %+v", b.Known)
	}
}

func TestShrunkStubs(t *testing.T) {
	for symbols, want := range map[string]bool{
		"ffffffff81c001a0 T early_idt_handlers\nffffffff81c002c0 T early_idt_handler\n":                                        false, // 288 bytes
		"ffffffff81c001a0 T early_idt_handlers\nffffffff81c00290 T early_idt_handler\n":                                        true,
		"ffffffff81c001a0 T early_idt_handler_array\nffffffff81c001c0 t early_idt_handler_common\n":                            false,
		"ffffffff81c001a0 T early_idt_handlers\n":                                                                              false,
		"x T early_idt_handlers\nffffffff81c00290 T early_idt_handler\n" + strings.Repeat("a", 1<<17) + "\nffffffff81 T x y z": false,
	} {
		if got := shrunkStubs(strings.NewReader(symbols)); got != want {
			t.Errorf("%.200q: %v", symbols, got)
		}
	}
}

func TestKnownCrash(t *testing.T) {
	b := KnownCrash([]byte("[    0.1] Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: start_secondary+0x1a3/0x1b0\n"))
	if b == nil || b.Kind != "start-secondary" || !strings.HasPrefix(b.Advice, "put it on top with --pick a9a3ed1eff36; or ") {
		t.Errorf("%+v", b)
	}
	if b := KnownCrash([]byte("stack-protector: Kernel stack is corrupted in: other")); b != nil {
		t.Errorf("%+v", b)
	}
}

func TestMakeVersion(t *testing.T) {
	for text, want := range map[string][2]int{
		"GNU Make 4.3\nBuilt for x86_64-pc-linux-gnu\n": {4, 3},
		"GNU Make 3.82\n":     {3, 82},
		"GNU Make 4.2.1-69\n": {4, 2},
		"bmake 2020\n":        {},
		"GNU Make 99999.1\n":  {},
	} {
		if major, minor := makeVersion(text); [2]int{major, minor} != want {
			t.Errorf("%q: %d.%d", text, major, minor)
		}
	}
}

func FuzzExplainLog(f *testing.F) {
	f.Add([]byte("a.c:1:1: error: code model kernel does not support PIC mode\n"))
	f.Add([]byte("stack protector enabled but compiler support broken\n\x00"))
	f.Fuzz(func(t *testing.T, log []byte) {
		if b := explainLog(bytes.NewReader(log)); b != nil && (b.Kind == "" || b.String() == "") {
			t.Errorf("%+v", b)
		}
		shrunkStubs(bytes.NewReader(log))
	})
}
