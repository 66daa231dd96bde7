package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lab/kernel/qemu"
	"lab/probe"
)

func TestContainerDifferences(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		caps, container SettingEnds
		want            string
	}{
		{SettingEnds{}, SettingEnds{"", "userns"}, "+userns"},
		{SettingEnds{}, SettingEnds{"cgroup=2, userns", "cgroup=1"}, "-userns cgroup=2->cgroup=1"},
		{SettingEnds{}, SettingEnds{"seccomp=default", "seccomp=" + profile}, "seccomp=default->seccomp=" + profile},
		{SettingEnds{}, SettingEnds{"selinux-fs=ro", "selinux-fs=rw,userns"}, "+userns selinux-fs=ro->selinux-fs=rw"},
		{SettingEnds{"ALL,-SYS_ADMIN", ""}, SettingEnds{"", "privileged"}, "+SYS_ADMIN +seccomp=unconfined +devices +unmasked +writable"},
		{SettingEnds{"ALL,-SYS_ADMIN", "privileged"}, SettingEnds{"", ""}, "+SYS_ADMIN +seccomp=unconfined +devices +unmasked +writable"},
		{SettingEnds{"", "ALL,-KILL"}, SettingEnds{"privileged,seccomp=default,cgroup=1", "seccomp=default,writable"}, "-KILL -cgroup=1 -devices -unmasked"},
	} {
		s := asWritten(t, Settings{Caps: &c.caps, Container: &c.container})
		if got := strings.Join(s.ids(s.all), " "); got != c.want {
			t.Errorf("%+v: %s, want %s", c, got, c.want)
		}
	}
	for _, c := range []struct{ container, want string }{
		{"wings", `"wings" is unknown: want seccomp, userns`}, {"userns,userns", "userns is said twice"}, {"cgroup", "want cgroup=VALUE"},
		{"seccomp=", "want seccomp=VALUE"}, {"userns=1", "userns has no value"}, {"cgroup=3", `version "3"`}, {"selinux-fs=x", `selinuxfs "x"`}, {"seccomp=nowhere", "and no file"},
		{"privileged", "has all capabilities: KILL says otherwise"},
	} {
		if _, err := (Settings{Caps: &SettingEnds{"", "KILL"}, Container: &SettingEnds{"", c.container}}).knobs(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.container, err)
		}
	}
}

// What a set gives a test is what all have in common and its words; ends with the same
// words over different files are different.
func TestContainerOfASet(t *testing.T) {
	of := Settings{Container: &SettingEnds{"cgroup=2", "cgroup=1,seccomp=unconfined,userns"}}
	knobs, err := of.knobs()
	if err != nil {
		t.Fatal(err)
	}
	common := Spec{Test: probe.Spec{Writable: true, Seccomp: "default"}}
	s, err := newSettings(common, knobs)
	if err != nil {
		t.Fatal(err)
	}
	hashes := map[string]bool{}
	for _, c := range []struct {
		set   []int
		want  probe.Spec
		title string
	}{
		{nil, probe.Spec{Cgroup: "2", Seccomp: "default", Writable: true}, "the good setting"},
		{[]int{0}, probe.Spec{Cgroup: "2", Seccomp: "unconfined", Writable: true}, "container +seccomp=unconfined"},
		{[]int{1, 2}, probe.Spec{Cgroup: "1", UserNS: true, Seccomp: "default", Writable: true}, "container +userns cgroup=2->cgroup=1"},
		{s.all, probe.Spec{Cgroup: "1", UserNS: true, Seccomp: "unconfined", Writable: true}, "the bad setting"},
	} {
		commit := s.commit(c.set)
		if got := s.with(c.set).Test; fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) || commit.Title != c.title || hashes[commit.Hash] {
			t.Errorf("%v: %+v, %+v", c.set, got, commit)
		}
		hashes[commit.Hash] = true
	}
	if _, err := newSettings(Spec{Test: probe.Spec{UserNS: true}}, func() []knob {
		k, _ := Settings{Container: &SettingEnds{"", "userns"}}.knobs()
		return k
	}()); err == nil || !strings.Contains(err.Error(), "come to the same") {
		t.Errorf("what both have already: %v", err)
	}
}

// A command line that some set would make too long is refused before anything boots.
func TestCmdlineTooLong(t *testing.T) {
	half := strings.Repeat("x", qemu.MaxCmdline/2)
	for _, c := range []struct {
		common string
		ends   SettingEnds
		fits   bool
	}{
		{"", SettingEnds{"a" + half, "b" + half}, false}, // with b and still a
		{"", SettingEnds{"a=1" + half, "a=2" + half}, true},
		{half, SettingEnds{"", "b" + half}, false},
		{half, SettingEnds{"", "b"}, true},
	} {
		err := Settings{Cmdline: &c.ends}.Validate(Spec{Machine: MachineSpec{Cmdline: c.common}})
		if c.fits != (err == nil) || err != nil && !strings.Contains(err.Error(), "it takes 2047") {
			t.Errorf("%.10s, %.10s: %v", c.common, c.ends.Bad, err)
		}
	}
}
