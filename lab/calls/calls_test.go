package calls

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const audit = `1 execve("/bin/su", ["su"], 0x7ffd10 /* 9 vars */) = 0
1 brk(NULL) = 0x55d0c0de0000
1 socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT) = 3
1 sendto(3, {{len=124, type=AUDIT_USER, nlmsg_seq=1, nlmsg_pid=0}, "op=PAM:accounting"}, 124, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 124
1 recvfrom(3, {{len=36, type=NLMSG_ERROR, nlmsg_pid=71}, {error=-EPERM (Operation not permitted)}}, 8988, 0, NULL, NULL) = 36
1 close(3) = 0
1 write(2, "su: System error\n", 17) = 17
1 +++ exited with 1 +++
`

// compare is Compare of one run each.
func compare(a, b []byte) *Difference {
	d, _ := Compare([][]byte{a}, [][]byte{b})
	return d
}

func TestCompareAnswers(t *testing.T) {
	other := strings.NewReplacer("-EPERM (Operation not permitted)", "-ECONNREFUSED (Connection refused)", "nlmsg_pid=71", "nlmsg_pid=99",
		"(3", "(5", "NETLINK_AUDIT) = 3", "NETLINK_AUDIT) = 5", "0x55d0c0de0000", "0x562000000000", "su: System error", "fine").Replace(audit)
	d := compare([]byte(audit), []byte(other))
	if d == nil || !d.Answer || d.Program != "/bin/su" || !strings.Contains(d.A.Call, "-EPERM") || !strings.Contains(d.B.Call, "-ECONNREFUSED") {
		t.Fatalf("audit's answer was not found: %+v", d)
	}
	if len(d.A.Around) != 7 || len(d.B.Around) != 7 {
		t.Errorf("paragraphs of %d and %d calls", len(d.A.Around), len(d.B.Around))
	}
	same := strings.NewReplacer("nlmsg_pid=71", "nlmsg_pid=99", "(3", "(5", "NETLINK_AUDIT) = 3", "NETLINK_AUDIT) = 5", "0x55d0c0de0000", "0x562000000000").Replace(audit)
	if d := compare([]byte(audit), []byte(same)); d != nil {
		t.Errorf("noise differs: %+v", d)
	}
}

func TestCompareAlone(t *testing.T) {
	lines := strings.SplitAfter(audit, "\n")
	without := strings.Join(append(append([]string{}, lines[:6]...), lines[7:]...), "")
	d := compare([]byte(audit), []byte(without))
	if d == nil || d.Answer || !strings.HasPrefix(d.A.Call, "write(2, ") || d.B.Call != "" {
		t.Errorf("A's write alone: %+v", d)
	}
	d = compare([]byte(without), []byte(audit))
	if d == nil || d.Answer || !strings.HasPrefix(d.B.Call, "write(2, ") || d.A.Call != "" {
		t.Errorf("B's write alone: %+v", d)
	}
}

// TestNoise compares runs of which it is known what differs among runs of the same.
func TestNoise(t *testing.T) {
	run := func(lines ...string) []byte {
		return []byte("1 execve(\"/t\", [\"t\"], 0x1) = 0\n1 " + strings.Join(lines, "\n1 ") + "\n")
	}
	const open = `openat(AT_FDCWD, "/x", O_RDONLY) = 3`
	for name, test := range map[string]struct {
		a, b  [][]byte
		want  string // of which call is told
		noise int
	}{
		"no noise":              {[][]byte{run("write(1, \"\", 9) = 5")}, [][]byte{run("write(1, \"\", 9) = 6")}, "write", 0},
		"an answer of A's":      {[][]byte{run("write(1, \"\", 9) = 5", open), run("write(1, \"\", 9) = 4", open)}, [][]byte{run("write(1, \"\", 9) = 6", open)}, "", 1},
		"an answer of B's":      {[][]byte{run("write(1, \"\", 9) = 5", open)}, [][]byte{run("write(1, \"\", 9) = 6", open), run("write(1, \"\", 9) = 5", open)}, "", 1},
		"steady":                {[][]byte{run("write(1, \"\", 9) = 5"), run("write(1, \"\", 9) = 5")}, [][]byte{run("write(1, \"\", 9) = 6"), run("write(1, \"\", 9) = 6")}, "write", 0},
		"noise, but an error":   {[][]byte{run("write(1, \"\", 9) = 5"), run("write(1, \"\", 9) = 4")}, [][]byte{run("write(1, \"\", 9) = -1 EPERM (no)")}, "write", 0},
		"an error at times":     {[][]byte{run("write(1, \"\", 9) = 5"), run("write(1, \"\", 9) = -1 EAGAIN (no)")}, [][]byte{run("write(1, \"\", 9) = -1 EAGAIN (no)")}, "", 1},
		"a call at times":       {[][]byte{run("sync() = 0", open), run(open)}, [][]byte{run(open)}, "", 1},
		"a call at times of B":  {[][]byte{run("sync() = 0", open)}, [][]byte{run(open), run("sync() = 0", open)}, "", 1},
		"a call of B's alone":   {[][]byte{run(open), run(open)}, [][]byte{run("sync() = 0", open), run("sync() = 0", open)}, "sync", 0},
		"noise before what is":  {[][]byte{run("write(1, \"\", 9) = 5", open), run("write(1, \"\", 9) = 4", open)}, [][]byte{run("write(1, \"\", 9) = 6", strings.Replace(open, "3", "-1 ENOENT (no)", 1))}, "openat", 1},
		"a process at times":    {[][]byte{append(run("fork() = 2", open), "2 sync() = 0\n"...), run("fork() = 2", open)}, [][]byte{append(run("fork() = 2", open), "2 sync() = 1\n"...)}, "sync", 0},
		"nothing traced at all": {},
	} {
		d, noise := Compare(test.a, test.b)
		got := ""
		if d != nil {
			got = d.Name
		}
		if got != test.want || noise != test.noise {
			t.Errorf("%s: %q with %d left out, want %q with %d", name, got, noise, test.want, test.noise)
		}
	}
}

// TestTell is what is told of a call: what it is about, and its answers in short.
func TestTell(t *testing.T) {
	const sent = `1 socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT) = 3
1 sendto(3, {len=132, type=AUDIT_USER_AUTH, data="op=PAM"}, 132, 0, NULL, 0) = 132
1 poll(0x7ffe, 1, 500) = 1
1 recvfrom(3, {len=152, type=NLMSG_ERROR, error=-EPERM (Operation not permitted), msg={len=132, type=AUDIT_USER_AUTH}}, 8988, 0, NULL, NULL) = 152
1 openat(AT_FDCWD, "/proc/filesystems", O_RDONLY) = 4
1 read(4, "nodev sysfs", 1024) = 11
1 statfs("/sys/fs/selinux", 0x7ffe) = 0
`
	for name, test := range map[string]struct{ was, is, of, a, b string }{
		"an acknowledgement behind it": {"NULL, 0) = 132", "NULL, 0) = -1 ECONNREFUSED (Connection refused)", "AUDIT_USER_AUTH", "132 (acknowledged: -EPERM)", "ECONNREFUSED"},
		"the acknowledgement":          {"error=-EPERM (Operation not permitted)", "error=0", "AUDIT_USER_AUTH", "152 with error=-EPERM", "152"},
		"what was opened":              {"\"nodev sysfs\", 1024) = 11", "\"nodev proc\", 1024) = 10", "/proc/filesystems", "11", "10"},
		"what is named":                {"0x7ffe) = 0", "0x7ffe) = -1 ENOENT (No such file or directory)", "/sys/fs/selinux", "0", "ENOENT"},
	} {
		d := compare([]byte(sent), []byte(strings.Replace(sent, test.was, test.is, 1)))
		if d == nil || !d.Answer || d.Of != test.of || d.A.Answer != test.a || d.B.Answer != test.b {
			t.Errorf("%s: %+v", name, d)
		} else if d.A.PID != 1 || d.A.Line != d.B.Line || !strings.Contains(sent, "1 "+d.A.Call+"\n") {
			t.Errorf("%s: process %d, lines %d and %d, %s", name, d.A.PID, d.A.Line, d.B.Line, d.A.Call)
		}
	}
}

func TestThreadsAreTheirProcess(t *testing.T) {
	a := "1 execve(\"/t\", [\"t\"], 0x1) = 0\n1 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD) = 2\n2 access(\"/x\", R_OK) = 0\n"
	b := "1 execve(\"/t\", [\"t\"], 0x1) = 0\n1 clone(child_stack=0x8f, flags=CLONE_VM|CLONE_THREAD) = 9\n1 access(\"/x\", R_OK) = -1 EACCES (Permission denied)\n"
	if d := compare([]byte(a), []byte(b)); d == nil || !d.Answer || !strings.HasPrefix(d.B.Call, "access(") {
		t.Errorf("the thread's call: %+v", d)
	}
}

// TestStrace compares what strace wrote of real programs.
func TestStrace(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	if d := compare(read("good1"), read("good2")); d != nil {
		t.Errorf("two runs of the same: %+v", d)
	}
	d := compare(read("good1"), read("bad"))
	if d == nil || !d.Answer || !strings.Contains(d.A.Call, "settings") || !strings.Contains(d.B.Call, "ENOENT") {
		t.Errorf("the missing file: %+v", d)
	}
}

func FuzzCompare(f *testing.F) {
	f.Add([]byte(audit), []byte(audit[40:]))
	f.Add([]byte("1 clone(CLONE_THREAD) = 2\n2 clone(CLONE_THREAD) = 1\n1 a() = 0\n"), []byte("1 a() = 1\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		Compare([][]byte{a, b}, [][]byte{b, a})
		if d := compare(a, a); d != nil {
			t.Errorf("a trace differs from itself: %+v", d)
		}
	})
}
