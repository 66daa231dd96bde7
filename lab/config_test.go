package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lab/kernel/kconfig"
)

// A tree whose Kconfig is a script that goes by the same rules as its Kconfig
// files. Its kernel does not compile with INET and RAID, and notes each build.
const (
	configMakefile = `
KCONFIG_CONFIG ?= .config
allnoconfig:
	@sh conf.sh $(KCONFIG_ALLCONFIG) $(KCONFIG_CONFIG)
olddefconfig:
	@cp $(KCONFIG_CONFIG) asked && sh conf.sh asked $(KCONFIG_CONFIG)
bzImage:
	@echo built >> %s
	@if grep -q INET=y .config && grep -q RAID=y .config; then echo "raid.c:1: error: no" >&2; exit 1; fi
	@mkdir -p arch/x86/boot
	@grep -v COMMENT .config | cat header.bin - > arch/x86/boot/bzImage
	@echo > System.map
`
	configScript = `
asked() { grep -qx "CONFIG_$1=y" "$in"; }
is() { grep -qx "CONFIG_$1=y" "$out"; }
say() { if "$@"; then echo "CONFIG_$2=y"; else echo "# CONFIG_$2 is not set"; fi >> "$out"; }
in=$1 out=$2.new
echo "# Automatically generated file; DO NOT EDIT." > "$out"
for s in NET DISK RING COMMENT EXTRA1 EXTRA2; do say asked $s; done
for s in INET UNIX; do if is NET; then say asked $s; fi; done
if is RING; then echo CONFIG_KEYS=y >> "$out"; else say asked KEYS; fi
if is DISK || is UNIX; then say asked RAID; fi
mv "$out" "$2"
`
	configKconfig = `
config NET
	bool "Networking"
config INET
	bool "TCP/IP"
	depends on NET
config UNIX
	bool "Unix sockets"
	depends on NET
config DISK
	bool "Disks"
config RAID
	bool "Many disks"
	depends on DISK || UNIX
config RING
	bool "Ring"
	select KEYS
config KEYS
	bool "Keys"
config COMMENT
	bool "A comment"
config EXTRA1
	bool
	prompt "Extra"
config EXTRA2
	bool "Extra"
`
)

func newConfigRepo(t *testing.T) (r *smallRepo, built func() int) {
	t.Helper()
	r = &smallRepo{t: t, dir: filepath.Join(t.TempDir(), "linux")}
	r.run("", "init", "-q", "-b", "main", r.dir)
	log := filepath.Join(t.TempDir(), "built")
	r.write("Makefile", fmt.Sprintf(configMakefile, log))
	r.write("conf.sh", configScript)
	r.write("Kconfig", configKconfig)
	r.write("header.bin", string(smallHeader()))
	r.change("first")
	return r, func() int {
		data, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Count(string(data), "\n")
	}
}

// configs writes two fragments and gives the options of a bisect between them.
func (r *smallRepo) configs(good, bad string) BisectOptions {
	r.t.Helper()
	dir := r.t.TempDir()
	write := func(name, symbols string) []string {
		c := kconfig.Config{}
		for _, s := range strings.Fields(symbols) {
			c[s] = "y"
		}
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, c.Bytes(), 0o644); err != nil {
			r.t.Fatal(err)
		}
		return []string{name}
	}
	return BisectOptions{
		Dir: filepath.Join(dir, "state"), Settings: &Settings{Config: &ConfigEnds{write("good.config", good), write("bad.config", bad)}},
		Spec: Spec{Kernel: KernelSpec{Repo: r.dir, Commit: "HEAD", Jobs: 1}, Symptom: Symptom{Kind: SymptomBuild}},
	}
}

// What Kconfig needs comes along and is told, what it does not allow is not built,
// and what it makes the same of is built once.
func TestBisectConfig(t *testing.T) {
	r, built := newConfigRepo(t)
	o := r.configs("EXTRA1", "NET INET UNIX DISK RAID RING KEYS COMMENT EXTRA2")
	l := testLab(t)
	b, err := l.Bisect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(minimal(b))
	// RAID wants one of DISK and UNIX, which no single need says.
	if !slices.Contains(got, "+CONFIG_INET=y") || !slices.Contains(got, "+CONFIG_RAID=y") || !slices.Contains(got, "+CONFIG_NET=y") || len(got) != 4 || b.Culprit == nil {
		t.Fatalf("%s: %s", minimal(b), b.Unclear)
	}
	if fmt.Sprint(b.Flip.Needed) != "[+CONFIG_NET=y]" || len(b.Flip.Unsure) != 1 {
		t.Errorf("needed %v, unsure %v", b.Flip.Needed, b.Flip.Unsure)
	}
	for _, d := range b.Flip.Minimal {
		if d.Name == "INET" && (d.Kind != "config" || d.Title != "TCP/IP" || d.Good != "" || d.Bad != "CONFIG_INET=y") {
			t.Errorf("%+v", d)
		}
	}
	n, seen := built(), map[string]bool{}
	for _, x := range b.Tested {
		if strings.HasPrefix(x.Reason, "Kconfig does not allow it: CONFIG_RAID: asked for y, is absent: it depends on DISK || UNIX") != (x.Mark == Skip) {
			t.Errorf("%s: %s, %s", x.Commit.Title, x.Mark, x.Reason)
		}
		seen[x.Kernel] = true
	}
	if n > len(seen)+4 { // those that do not compile have no kernel
		t.Errorf("%d builds of %d kernels", n, len(seen))
	}
	again, err := l.Bisect(t.Context(), o)
	if err != nil || minimal(again) != minimal(b) || built() != n || len(again.Tested) != len(b.Tested) {
		t.Errorf("again: %s, %d builds, %v", minimal(again), built()-n, err)
	}
	st, err := savedStatus(o.Dir)
	if err != nil || st.Culprit == nil || !strings.HasPrefix(st.Culprit.Title, "config +CONFIG_NET=y") {
		t.Errorf("status %+v, %v", st.Culprit, err)
	}
}

// Options that are gone take with them what depends on them.
func TestBisectConfigOff(t *testing.T) {
	r, _ := newConfigRepo(t)
	o := r.configs("NET INET UNIX DISK KEYS RING", "INET RAID DISK COMMENT")
	o.Settings.Config.Good, o.Settings.Config.Bad = o.Settings.Config.Bad, o.Settings.Config.Good
	o.Spec.Kernel.Config = r.configs("", "DISK RAID").Settings.Config.Bad
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || minimal(b) != "+CONFIG_NET=y +CONFIG_INET=y" || b.Culprit == nil {
		t.Errorf("%s: %s, %v", minimal(b), b.Unclear, err)
	}
}

func TestBisectConfigRefuses(t *testing.T) {
	r, _ := newConfigRepo(t)
	for want, ends := range map[string]ConfigEnds{
		"the same":       *r.configs("NET INET", "INET NET UNKNOWN").Settings.Config,
		"no such file":   {[]string{"tiny"}, []string{"nosuch"}},
		"both are to be": {Bad: []string{"tiny"}},
	} {
		o := r.configs("", "")
		o.Settings.Config = &ends
		if _, err := testLab(t).Bisect(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
