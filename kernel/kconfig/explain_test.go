package kconfig

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

const fakeKconfig = `
mainmenu "Linux/$(ARCH) $(KERNELVERSION)"

config CC_OK
	def_bool $(success,$(CC) -fsomething -x c /dev/null)

source "net/Kconfig"
source "arch/$(SRCARCH)/Kconfig"
source "$(nowhere)/Kconfig"
source "gone/Kconfig"

config AUDIT
	bool "Auditing support"
	depends on NET
	help
	  config NOT_A_SYMBOL
	    bool "in a help text"

	  endmenu

config EXPERT
	bool "Expert"
	select DEBUG if !EMBEDDED

config SHOWN
	bool "Shown" if EXPERT

config DEBUG
	bool "Debug"

config HIDDEN
	bool
	depends on X86

if EXPERT && \
   X86
menu "Deep"
	depends on NET || INET
	visible if SHOWN

config DEEP
	tristate "Deep"
	depends on (AUDIT || !DEBUG) && NR_CPUS > 4 && NAME="x"

endmenu
endif

choice
	prompt "Which"
	depends on X86
	default ONE
config ONE
	bool "one"
config TWO
	bool "two"
endchoice

config NEEDS_CC
	bool "cc"
	depends on $(cc-option,-fnew (x)) && X86

config TWICE
	bool "a"
	depends on NET
config TWICE
	bool "b"
	depends on INET
`

func fakeTree() fs.FS {
	return fstest.MapFS{
		"Kconfig":          {Data: []byte(fakeKconfig)},
		"net/Kconfig":      {Data: []byte("menuconfig NET\n\tbool \"Networking\"\nif NET\nconfig INET\n\tbool \"TCP/IP\"\nendif\n")},
		"arch/x86/Kconfig": {Data: []byte("config X86\n\tdef_bool y\n")},
		"arch/arm/Kconfig": {Data: []byte("config ARM\n\tdef_bool y\n")},
	}
}

func TestExplain(t *testing.T) {
	tree, err := ReadTree(fakeTree(), "x86")
	if err != nil {
		t.Fatal(err)
	}
	base := Config{"X86": "y", "EXPERT": "y", "DEBUG": "y", "ONE": "y", "NR_CPUS": "4", "NAME": `"x"`, "SHOWN": "y"}
	for _, test := range []struct {
		symbol, asked, is string
		change            Config
		want              string
	}{
		{"NOT_A_SYMBOL", "y", "", nil, "this tree has no such symbol"},
		{"ARM", "y", "", nil, "this tree has no such symbol"},
		{"AUDIT", "y", "", nil, "it depends on NET, and NET is not set"},
		{"INET", "y", "", nil, "it depends on NET, and NET is not set"},
		{"HIDDEN", "y", "", nil, "it cannot be chosen: only another symbol's select, or its own default, turns it on"},
		{"SHOWN", "y", "", Config{"EXPERT": "n"}, "it can be chosen if EXPERT, and EXPERT is not set"},
		{"DEBUG", "n", "y", nil, "EXPERT selects it"},
		{"DEBUG", "n", "y", Config{"EMBEDDED": "y"}, ""},
		{"TWO", "y", "n", nil, "of its choice ONE is taken"},
		{"X86", "n", "y", nil, "it cannot be chosen: its value follows from others"},
		{"DEEP", "m", "", nil, "it depends on EXPERT && X86 && (NET || INET) && (AUDIT || !DEBUG) && NR_CPUS>4 && NAME=\"x\", and NET || INET does not hold and AUDIT || !DEBUG does not hold and NR_CPUS>4 does not hold"},
		{"DEEP", "m", "", Config{"NET": "y", "DEBUG": "n", "NR_CPUS": "8", "NAME": `"y"`}, "it depends on EXPERT && X86 && (NET || INET) && (AUDIT || !DEBUG) && NR_CPUS>4 && NAME=\"x\", and NAME=\"x\" does not hold"},
		{"DEEP", "m", "", Config{"NET": "y", "DEBUG": "n", "NR_CPUS": "8", "SHOWN": "n"}, "it can be chosen if SHOWN, and SHOWN is not set"},
		{"NEEDS_CC", "y", "", nil, "it depends on $(cc-option,-fnew (x)) && X86, and the compiler or the environment does not have that"},
		{"TWICE", "y", "", nil, "it depends on NET, and NET is not set; or it depends on INET, and INET is not set"},
	} {
		c := Config{}
		for _, from := range []Config{base, test.change} {
			for k, v := range from {
				c[k] = v
			}
		}
		if got := tree.Explain(Difference{Symbol: test.symbol, Requested: test.asked, Resolved: test.is}, c); got != test.want {
			t.Errorf("%s:\n got  %s\n want %s", test.symbol, got, test.want)
		}
	}
}

func TestReadTreeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"endif\n":                                        "line 1: endif closes nothing",
		"config A\n\tdepends on B &&\n":                  "ends too early",
		"config A\n\tdepends on (B\n":                    "not closed",
		"if A B\nendif\n":                                "stands behind",
		"source \"../../etc/passwd\"\n":                  "outside of the tree",
		"source \"Kconfig\"\n":                           "too deep",
		"if " + strings.Repeat("!", 1000) + "A\nendif\n": "too deeply",
		strings.Repeat("menu \"x\"\n", 1000):             "too deeply",
	} {
		_, err := ReadTree(fstest.MapFS{"Kconfig": {Data: []byte(text)}}, "x86")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want %q", text, err, want)
		}
	}
	if _, err := ReadTree(fstest.MapFS{}, "x86"); err == nil {
		t.Error("an empty tree reads")
	}
}

func FuzzReadTree(f *testing.F) {
	f.Add(fakeKconfig, "AUDIT", "y")
	f.Add("if A!=B||!(C=\"m\")\nconfig D\nbool 'x' if $(e,(f))\nselect G if H<=0x10\nendif\n", "D", "m")
	f.Fuzz(func(t *testing.T, text, symbol, value string) {
		tree, err := ReadTree(fstest.MapFS{"Kconfig": {Data: []byte(text)}}, "x86")
		if err != nil {
			return
		}
		for name, definitions := range tree.symbols {
			tree.Explain(Difference{Symbol: name, Requested: "y"}, Config{symbol: value})
			for _, d := range definitions {
				// What an expression prints reads back as the same.
				if d.depends == nil {
					continue
				}
				again, err := parseExpr(tokens(d.depends.String()))
				if err != nil {
					continue // a word with a quote in it, say
				}
				if got, want := again.eval(Config{symbol: value}), d.depends.eval(Config{symbol: value}); got != want {
					t.Errorf("%s is %d, and printed %s it is %d", name, want, d.depends, got)
				}
			}
		}
	})
}
