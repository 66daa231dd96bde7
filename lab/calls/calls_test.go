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

func TestCompareAnswers(t *testing.T) {
	other := strings.NewReplacer("-EPERM (Operation not permitted)", "-ECONNREFUSED (Connection refused)", "nlmsg_pid=71", "nlmsg_pid=99",
		"(3", "(5", "NETLINK_AUDIT) = 3", "NETLINK_AUDIT) = 5", "0x55d0c0de0000", "0x562000000000", "su: System error", "fine").Replace(audit)
	d := Compare([]byte(audit), []byte(other))
	if d == nil || !d.Answer || d.Program != "/bin/su" || !strings.Contains(d.A.Call, "-EPERM") || !strings.Contains(d.B.Call, "-ECONNREFUSED") {
		t.Fatalf("audit's answer was not found: %+v", d)
	}
	if len(d.A.Around) != 7 || len(d.B.Around) != 7 {
		t.Errorf("paragraphs of %d and %d calls", len(d.A.Around), len(d.B.Around))
	}
	same := strings.NewReplacer("nlmsg_pid=71", "nlmsg_pid=99", "(3", "(5", "NETLINK_AUDIT) = 3", "NETLINK_AUDIT) = 5", "0x55d0c0de0000", "0x562000000000").Replace(audit)
	if d := Compare([]byte(audit), []byte(same)); d != nil {
		t.Errorf("noise differs: %+v", d)
	}
}

func TestCompareAlone(t *testing.T) {
	lines := strings.SplitAfter(audit, "\n")
	without := strings.Join(append(append([]string{}, lines[:6]...), lines[7:]...), "")
	d := Compare([]byte(audit), []byte(without))
	if d == nil || d.Answer || !strings.HasPrefix(d.A.Call, "write(2, ") || d.B.Call != "" {
		t.Errorf("A's write alone: %+v", d)
	}
	d = Compare([]byte(without), []byte(audit))
	if d == nil || d.Answer || !strings.HasPrefix(d.B.Call, "write(2, ") || d.A.Call != "" {
		t.Errorf("B's write alone: %+v", d)
	}
}

func TestThreadsAreTheirProcess(t *testing.T) {
	a := "1 execve(\"/t\", [\"t\"], 0x1) = 0\n1 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD) = 2\n2 access(\"/x\", R_OK) = 0\n"
	b := "1 execve(\"/t\", [\"t\"], 0x1) = 0\n1 clone(child_stack=0x8f, flags=CLONE_VM|CLONE_THREAD) = 9\n1 access(\"/x\", R_OK) = -1 EACCES (Permission denied)\n"
	if d := Compare([]byte(a), []byte(b)); d == nil || !d.Answer || !strings.HasPrefix(d.B.Call, "access(") {
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
	if d := Compare(read("good1"), read("good2")); d != nil {
		t.Errorf("two runs of the same: %+v", d)
	}
	d := Compare(read("good1"), read("bad"))
	if d == nil || !d.Answer || !strings.Contains(d.A.Call, "settings") || !strings.Contains(d.B.Call, "ENOENT") {
		t.Errorf("the missing file: %+v", d)
	}
}

func FuzzCompare(f *testing.F) {
	f.Add([]byte(audit), []byte(audit[40:]))
	f.Add([]byte("1 clone(CLONE_THREAD) = 2\n2 clone(CLONE_THREAD) = 1\n1 a() = 0\n"), []byte("1 a() = 1\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		Compare(a, b)
		if d := Compare(a, a); d != nil {
			t.Errorf("a trace differs from itself: %+v", d)
		}
	})
}
