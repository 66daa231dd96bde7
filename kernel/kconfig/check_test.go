package kconfig

import (
	"slices"
	"testing"
)

func find(t *testing.T, findings []Finding, symbol string) Finding {
	t.Helper()
	i := slices.IndexFunc(findings, func(f Finding) bool { return f.Symbol == symbol })
	if i < 0 {
		t.Fatalf("nothing is said of %s", symbol)
	}
	return findings[i]
}

func TestCheck(t *testing.T) {
	c := Config{"64BIT": "y", "EXT4_FS": "m", "VETH": "m", "TMPFS": "m", "VIRTIO_BLK": "m", "SERIAL_8250": "y", "DEVPTS_MULTIPLE_INSTANCES": "y"}
	for _, test := range []struct {
		symbol  string
		release string
		modules Modules
		want    State
	}{
		{"64BIT", "6.1.0", Modules{}, BuiltIn},
		{"VETH", "6.1.0", Modules{Known: true}, Module},
		{"EXT4_FS", "6.1.0", Modules{}, Module}, // of a .config alone, a package's modules are believed in
		{"EXT4_FS", "6.1.0", Modules{Known: true}, Unloadable},
		{"EXT4_FS", "6.1.0", Modules{Known: true, Loaded: []string{"ext4"}}, Module},
		{"TMPFS", "6.1.0", Modules{}, Unloadable}, // nothing loads it
		{"OVERLAY_FS", "3.14.79", Modules{}, NotThere},
		{"OVERLAY_FS", "3.18", Modules{}, Missing},
		{"OVERLAY_FS", "", Modules{}, Missing},
		{"MEMCG_SWAP", "6.0.9", Modules{}, Missing},
		{"MEMCG_SWAP", "6.1.0-rc1", Modules{}, NotThere},
		{"CGROUP_MEM_RES_CTLR", "2.6.32-754.el6.x86_64", Modules{}, Missing},
		{"CFS_BANDWIDTH", "2.6.32-754.el6.x86_64", Modules{}, NotThere},
		// What is set is there, whatever the table says.
		{"DEVPTS_MULTIPLE_INSTANCES", "6.1.0", Modules{}, BuiltIn},
	} {
		got := find(t, Check(c, ParseVersion(test.release), test.modules), test.symbol)
		if got.State != test.want {
			t.Errorf("%s in %s: %s, want %s", test.symbol, test.release, got.State, test.want)
		}
	}
	// Results have one of two ways out.
	if f := find(t, Check(c, Version{}, Modules{}), "SERIAL_8250"); f.Lacking() {
		t.Errorf("a second serial port is a way out: %+v", f)
	}
	delete(c, "SERIAL_8250")
	if f := find(t, Check(c, Version{}, Modules{}), "VIRTIO_CONSOLE"); !f.Lacking() || f.Level != Required {
		t.Errorf("there is no way out: %+v", f)
	}
}

// What Guest says before a boot and what Check says to people is the same.
func TestCheckAgreesWithGuest(t *testing.T) {
	c := Config{}
	for range 200 {
		lacks := len(Guest(c))
		var missing []Finding
		for _, f := range Check(c, Version{}, Modules{Known: true}) {
			if f.Lacking() && (f.Group == groupGuest || f.Group == groupMachine) {
				missing = append(missing, f)
			}
		}
		if len(missing) != lacks {
			t.Fatalf("Guest names %d, Check %d of %v", lacks, len(missing), c)
		}
		if lacks == 0 {
			return
		}
		c[missing[0].Symbol] = "y"
	}
	t.Fatal("the guest is never content")
}

func TestFeatures(t *testing.T) {
	seen := map[string]bool{}
	var groups []string
	for _, f := range features {
		if seen[f.symbol] {
			t.Errorf("%s is there twice", f.symbol)
		}
		seen[f.symbol] = true
		if len(groups) == 0 || groups[len(groups)-1] != f.group {
			if slices.Contains(groups, f.group) {
				t.Errorf("group %q is in pieces", f.group)
			}
			groups = append(groups, f.group)
		}
		if !isSymbol(f.symbol) || f.why == "" || f.source == "" || f.level == "" {
			t.Errorf("incomplete: %+v", f)
		}
		for _, v := range []string{f.since, f.until} {
			if v != "" && ParseVersion(v) == (Version{}) {
				t.Errorf("%s: %q is no version", f.symbol, v)
			}
		}
		if f.since != "" && f.until != "" && ParseVersion(f.until).compare(f.since) < 0 {
			t.Errorf("%s ends before it begins", f.symbol)
		}
	}
}

func TestRelease(t *testing.T) {
	for text, want := range map[string]string{
		"#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1.192 Kernel Configuration\n#\n":                    "6.1.192",
		"#\n# Automatically generated make config: don't edit\n# Linux kernel version: 2.6.32-5-amd64\n# Sat Oct 30 2010\n": "2.6.32-5-amd64",
		"#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86_64 3.2.0 Kernel Configuration\n#\n":                   "3.2.0",
		"CONFIG_A=y\n": "",
	} {
		if got := (Fragment{Data: []byte(text)}).Release(); got != want {
			t.Errorf("Release of %q is %q", text, got)
		}
	}
	if v := ParseVersion("6.1.0-56-cloud-amd64"); v != (Version{6, 1, 0}) {
		t.Errorf("%v", v)
	}
	if v := ParseVersion("next"); v != (Version{}) {
		t.Errorf("%v", v)
	}
}
