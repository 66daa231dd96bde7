package kconfig

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const choiceKconfig = `
menuconfig NET
	bool "Networking"
if NET
config INET
	bool "TCP/IP"
	select HASH
config UNIX
	bool "Unix sockets"
endif
config HASH
	bool
config CRC
	def_bool INET || DISK
config DISK
	bool "Disks"
config EXPERT
	bool "Expert"
config FUTEX
	bool "Futexes" if EXPERT
	default y
config AUDIT
	bool "Auditing"
	depends on UNIX || DISK
config WATCH
	bool "Watch"
	depends on CRC && HASH
config KEYS
	bool "Keys"
config RING
	bool "Ring"
	select KEYS if !DISK
config LOG
	int "Size" if NET
	default 4
choice
	prompt "Ticks"
config HZ_100
	bool "100"
config HZ_250
	bool "250"
config HZ_300
	bool "300"
endchoice
`

func choiceTree(t *testing.T) *Tree {
	t.Helper()
	tree, err := ReadTree(fstest.MapFS{"Kconfig": {Data: []byte(choiceKconfig)}}, "x86")
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// told renders choices: SYMBOL was -> is < what it needs.
func told(list []Choice) string {
	var lines []string
	for _, c := range list {
		line := c.String()
		for _, n := range c.Needs {
			line += " <" + list[n].Symbol
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func TestChoices(t *testing.T) {
	tree := choiceTree(t)
	for _, test := range []struct{ name, good, bad, want string }{
		{"depends, also through what follows from others", "FUTEX", "FUTEX NET INET HASH CRC WATCH",
			"NET n -> y; INET n -> y <NET; WATCH n -> y <INET"},
		{"on the way out it is the other way round", "NET INET HASH CRC UNIX WATCH", "",
			"NET y -> n <INET <UNIX; INET y -> n <WATCH; UNIX y -> n; WATCH y -> n"},
		{"one of two is enough", "", "NET UNIX DISK CRC AUDIT", "NET n -> y; UNIX n -> y <NET; DISK n -> y; AUDIT n -> y"},
		{"a select", "", "RING KEYS", "KEYS n -> y; RING n -> y <KEYS"},
		{"and what keeps it from being off", "RING KEYS", "RING KEYS DISK", "DISK n -> y"},
		{"off while it is selected", "RING KEYS", "RING DISK CRC", "DISK n -> y; KEYS y -> n <DISK"},
		{"a default that is hidden", "FUTEX", "EXPERT", "EXPERT n -> y; FUTEX y -> n <EXPERT"},
		{"a choice", "HZ_100", "HZ_300", "HZ_100 y -> n <HZ_300; HZ_300 n -> y <HZ_100"},
	} {
		parse := func(names string) Config {
			c := Config{}
			for _, n := range strings.Fields(names) {
				c[n] = "y"
			}
			return c
		}
		if got := told(tree.Choices(parse(test.good), parse(test.bad))); got != test.want {
			t.Errorf("%s:\n got  %s\n want %s", test.name, got, test.want)
		}
	}
	list := (*Tree)(nil).Choices(Config{"A": "y", "N": "4", "S": "1"}, Config{"B": "m", "N": "5"})
	if got := told(list); got != "A y -> n; B n -> m; N 4 -> 5" {
		t.Errorf("without Kconfig files: %s", got)
	}
}

func TestMix(t *testing.T) {
	good := Config{"NET": "y", "INET": "y", "LOG": "4", "OLD": "n"}
	bad := Config{"DISK": "y", "RAID": "n", "LOG": "5", "SIZE": "7", "INET": "n"}
	choices := choiceTree(t).Choices(good, bad)
	if got := told(choices); got != "NET y -> n <INET; INET y -> n; DISK n -> y; LOG 4 -> 5" {
		t.Fatal(got)
	}
	for _, test := range []struct {
		made []int
		want Config
	}{
		{nil, good},
		{[]int{0, 1, 2, 3}, bad},
		{[]int{0, 1}, Config{"NET": "n", "INET": "n", "LOG": "4", "OLD": "n", "DISK": "n", "RAID": "n", "SIZE": "7"}},
		{[]int{2}, Config{"NET": "y", "INET": "y", "LOG": "4", "OLD": "n", "DISK": "y", "RAID": "n", "SIZE": "7"}},
	} {
		got := Mix(good, bad, choices, func(i int) bool { return slices.Contains(test.made, i) })
		if !maps.Equal(got, test.want) {
			t.Errorf("%v: %v, want %v", test.made, got, test.want)
		}
	}
	if f := good.File("good"); !f.Full() {
		t.Error("a whole .config is not taken for one")
	}
}
