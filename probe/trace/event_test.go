package trace

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]Event{
		`2 openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3`:          {PID: 2, Name: "openat", Args: []string{"AT_FDCWD", `"/etc/passwd"`, "O_RDONLY|O_CLOEXEC"}, Result: "3"},
		`1 access("/a, \"b)", R_OK) = -1 ENOENT (no such file or directory)`: {PID: 1, Name: "access", Args: []string{`"/a, \"b)"`, "R_OK"}, Result: "-1", Errno: "ENOENT", Text: "no such file or directory"},
		`1 recvfrom(3, {len=36, error=-EPERM (operation not permitted)}, 8988, 0, NULL, NULL) = 36`: {PID: 1, Name: "recvfrom", Args: []string{
			"3", "{len=36, error=-EPERM (operation not permitted)}", "8988", "0", "NULL", "NULL"}, Result: "36"},
		`1 getpid() = 7`:                {PID: 1, Name: "getpid", Result: "7"},
		`3 exit_group(0) = ?`:           {PID: 3, Name: "exit_group", Args: []string{"0"}, Result: "?"},
		`2 --- SIGSEGV ---`:             {PID: 2, Said: "--- SIGSEGV ---"},
		`1 +++ exited with 0 +++`:       {PID: 1, Said: "+++ exited with 0 +++"},
		`12 pause() = ? ERESTARTNOHAND`: {PID: 12, Name: "pause", Result: "?", Errno: "ERESTARTNOHAND"},
	} {
		got, err := Parse(line + "\n")
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", line, err, d)
		}
		if got.String() != line {
			t.Errorf("%q became %q", line, got.String())
		}
	}
	if e, err := Parse("7     close(3)     = 0"); err != nil || e.String() != "7 close(3) = 0" {
		t.Errorf("%q, %v", e, err)
	}
	for _, line := range []string{"", "1", "0 getpid() = 1", "01 getpid() = 1", "x getpid() = 1", "1 getpid() 1", "1 getpid( = 1", "1 a b() = 1", `1 open("x) = 1`, "1 getpid(]) = 1", "1 getpid() = ", "1 +++", "1 a() = 1 (b"} {
		if e, err := Parse(line); err == nil {
			t.Errorf("%q is %+v", line, e)
		}
	}
}

func TestQuote(t *testing.T) {
	if got, want := quote([]byte("a\"\\\n\x00\x001\xff"), true), `"a\"\\\n\0\0001\377"...`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`1 openat(AT_FDCWD, "/a", 0x1 /* ? */) = -1 EPERM (no)`)
	f.Add("1 --- SIGHUP ---")
	f.Add("1 a({, [}]) = ? (x)")
	f.Fuzz(func(t *testing.T, line string) {
		e, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(e.String())
		if d := cmp.Diff(e, again); err != nil || d != "" {
			t.Errorf("%q: %v\n%s", line, err, d)
		}
	})
}
