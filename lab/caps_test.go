package lab

import (
	"fmt"
	"strings"
	"testing"
)

func TestCapsDifferences(t *testing.T) {
	for _, c := range []struct{ good, bad, want string }{
		{"docker", "docker,-NET_RAW,SYS_ADMIN", "-NET_RAW +SYS_ADMIN"},
		{"", "docker,cap_net_raw,-cap_mknod", "-MKNOD"},
		{"none,KILL", "kill,CHOWN", "+CHOWN"},
		{"none", "none", ""},
	} {
		k, err := capsKnob(SettingEnds{c.good, c.bad})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, d := range k.list {
			ids = append(ids, d.String())
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("from %q to %q: %q, want %q", c.good, c.bad, got, c.want)
		}
	}
	for _, c := range []struct{ list, want string }{
		{"wings", `"wings" is unknown`}, {"KILL,docker", "stands behind KILL"}, {"privileged,-KILL", "privileged stands alone"}, {"KILL,", `"" is unknown`},
	} {
		if _, err := capsKnob(SettingEnds{"", c.list}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.list, err)
		}
	}
}

func TestCapsOfASet(t *testing.T) {
	s := asWritten(t, Settings{Cmdline: &SettingEnds{"quiet", "nosmt"}, Caps: &SettingEnds{"kill,chown", "kill,fowner"}})
	for _, c := range []struct {
		set         []int
		cmdline     string
		caps, title string
	}{
		{nil, "quiet", "[CHOWN KILL]", "the good setting"},
		{[]int{1, 2}, "quiet nosmt", "[KILL]", "cmdline +nosmt, caps -CHOWN"},
		{[]int{3}, "quiet", "[CHOWN FOWNER KILL]", "caps +FOWNER"},
		{s.all, "nosmt", "[FOWNER KILL]", "the bad setting"},
	} {
		spec := s.with(c.set)
		if got := fmt.Sprint(spec.Test.CapAdd); spec.Machine.Cmdline != c.cmdline || got != c.caps || fmt.Sprint(spec.Test.CapDrop) != "[ALL]" || spec.Test.Privileged {
			t.Errorf("%v: %q, %s", c.set, spec.Machine.Cmdline, got)
		}
		if got := s.commit(c.set).Title; got != c.title {
			t.Errorf("%v: %s, want %s", c.set, got, c.title)
		}
	}
}
