package lab

import (
	"slices"
	"strings"
	"testing"

	"lab/kernel/qemu"
)

func TestCmdlineDifferences(t *testing.T) {
	for _, c := range []struct{ good, bad, want string }{
		{"A B", "A C D", "-B +C +D"},
		{"", "quiet", "+quiet"},
		{"loglevel=3 quiet", "quiet loglevel=7", "loglevel=3->loglevel=7"},
		{"a b", "b a", "moved:a"},
		{"console=tty0", "console=ttyS0 console=tty0", "+console=ttyS0"},
		{"x=1 x=2 y", "x=3 y", "x=1->x=3 -x=2"},
		{"dm-mod.a=1", "dm_mod.a=2", "dm-mod.a=1->dm_mod.a=2"},
		{`a="1 2" b`, `a="1 3" b`, `a="1 2"->a="1 3"`},
		{"a -- b c", "a -- b d", "-- b c->-- b d"},
		{"a  b", "a b", ""},
	} {
		k, err := cmdlineKnob(SettingEnds{c.good, c.bad})
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
	for _, c := range []struct{ bad, want string }{{`a="b`, "not closed"}, {"a\x01", "no character"}, {strings.Repeat("a", qemu.MaxCmdline+1), "takes 2047"}} {
		if _, err := cmdlineKnob(SettingEnds{"", c.bad}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.20q: %v", c.bad, err)
		}
	}
}

// made gives the command line with some of the differences.
func made(k knob, has func(int) bool) string {
	var s setup
	k.apply(&s, has)
	return s.Machine.Cmdline
}

func none(int) bool { return false }
func all(int) bool  { return true }

func TestCmdlineOfADifference(t *testing.T) {
	k, err := cmdlineKnob(SettingEnds{"a x=1 b c", "new a x=2 c"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range k.list {
		got = append(got, made(k, func(n int) bool { return n == i }))
	}
	if want := []string{"new a x=1 b c", "a b x=2 c", "a x=1 c"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	s := setup{Spec: Spec{Machine: MachineSpec{Cmdline: ` common="1  2" `}}}
	k.apply(&s, none)
	if s.Machine.Cmdline != `common="1  2" a x=1 b c` {
		t.Errorf("behind what is common: %q", s.Machine.Cmdline)
	}
}

// Whatever two command lines are: none of the differences makes the one and all
// of them the other.
func FuzzCmdlineKnob(f *testing.F) {
	f.Add("A B", "A C D")
	f.Add("x=1 x=2 -- init", `x=3 "q u" x=1`)
	f.Fuzz(func(t *testing.T, good, bad string) {
		k, err := cmdlineKnob(SettingEnds{good, bad})
		if err != nil {
			return
		}
		for _, end := range []struct {
			text string
			has  func(int) bool
		}{{good, none}, {bad, all}} {
			want, err := splitCmdline(end.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := made(k, end.has); got != strings.Join(want, " ") {
				t.Errorf("%q and %q: made %q", good, bad, got)
			}
		}
	})
}
