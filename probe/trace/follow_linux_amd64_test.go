package trace

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestMain is the tracer as well, which must be alone in a process.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[0] == "tracer" {
		pid, _ := strconv.Atoi(os.Args[1])
		limit, _ := strconv.ParseInt(os.Args[2], 10, 64)
		s, err := Follow(pid, os.Stdout, limit, nil, func() error { _, err := fmt.Fprintln(os.NewFile(3, "attached")); return err })
		fmt.Fprintln(os.Stderr, s.Truncated, s.Notes, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// follow traces a command on this machine.
func follow(t *testing.T, limit int64, command ...string) (events []Event, summary string, state *os.ProcessState) {
	t.Helper()
	var traced, said bytes.Buffer
	// The shell waits for a line, and then becomes the command.
	c := exec.Command("/bin/sh", append([]string{"-c", `read _; exec "$@" </dev/null`, "sh"}, command...)...)
	start, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Dir, c.Env = t.TempDir(), []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	attached, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	tracer := exec.Command("/proc/self/exe")
	tracer.Args = []string{"tracer", fmt.Sprint(c.Process.Pid), fmt.Sprint(limit)}
	tracer.Stdout, tracer.Stderr, tracer.ExtraFiles = &traced, &said, []*os.File{theirs}
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if _, err := attached.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the tracer did not attach: %v", err)
	}
	if _, err := io.WriteString(start, "\n"); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // its state says how
	if err := tracer.Wait(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(traced.String()) {
		e, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if e.String()+"\n" != line {
			t.Errorf("%q is read as %q", line, e)
		}
		events = append(events, e)
	}
	return events, strings.TrimSpace(said.String()), c.ProcessState
}

// same is what two traces of a program have in common, without what changes from run
// to run: addresses, processes, the time, and how threads take turns.
func same(e Event) string {
	if e.Name == "" {
		words := strings.Fields(strings.ReplaceAll(e.Said, "(core dumped) ", ""))
		if words[0] == "---" && words[1] != "stopped" {
			return words[1]
		}
		return strings.Join(words, " ")
	}
	result := e.Result
	switch {
	case e.Errno != "":
		result = e.Errno
	case e.Name == "fcntl" || e.Name == "umask": // in hexadecimal and octal there
		n, _ := strconv.ParseInt(result, 0, 64)
		result = fmt.Sprint(n)
	case strings.HasPrefix(result, "0x"):
		result = "address"
	case slices.Contains([]string{"clone", "clone3", "fork", "vfork", "getpid", "getppid", "gettid", "set_tid_address", "wait4", "getpgrp", "getpgid", "setsid", "time"}, e.Name):
		result = "process"
	}
	return e.Name + " = " + result
}

// processes are the sequences of same, by process.
func processes(events []Event) [][]string {
	var p [][]string
	for _, e := range events {
		for e.PID > len(p) {
			p = append(p, nil)
		}
		// A child's end may come before or after a call of its parent, or in it: then
		// the kernel makes the call once more.
		if s := same(e); s != "SIGCHLD" && e.Name != "rt_sigreturn" && !strings.HasPrefix(e.Errno, "ERESTART") {
			p[e.PID-1] = append(p[e.PID-1], s)
		}
	}
	return p
}

// stracing has strace's account of a command, a file for each process.
func stracing(t *testing.T, command ...string) []Event {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command("/bin/sh", append([]string{"-c", `exec "$@" </dev/null`, "sh", "strace", "-ff", "-o", filepath.Join(dir, "trace")}, command...)...)
	c.Dir, c.Env = t.TempDir(), []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	_ = c.Run() // with the command's status
	files, err := filepath.Glob(filepath.Join(dir, "trace.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("strace wrote nothing: %v", err)
	}
	pid := func(name string) int { n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Ext(name), ".")); return n }
	slices.SortFunc(files, func(a, b string) int { return pid(a) - pid(b) })
	var events []Event
	for i, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSuffix(line, "\n")
			// What is aligned there, and unfinished at the end.
			line = strings.ReplaceAll(line, " <unfinished ...>", "")
			if at := strings.LastIndex(line, ") "); at >= 0 && strings.HasPrefix(strings.TrimLeft(line[at+1:], " "), "= ") {
				line = line[:at+1] + " " + strings.TrimLeft(line[at+1:], " ")
			}
			e := Event{PID: i + 1, Said: line}
			if !strings.HasPrefix(line, "+++") && !strings.HasPrefix(line, "---") {
				// Only names and results are compared: a closing bracket of an
				// address may be anywhere in strace's arguments.
				name, rest, _ := strings.Cut(line, "(")
				at := strings.LastIndex(rest, ") = ")
				if at < 0 {
					t.Fatalf("strace wrote %q", line)
				}
				words := strings.Fields(rest[at+4:])
				e = Event{PID: i + 1, Name: name, Result: words[0]}
				if len(words) > 1 && strings.HasPrefix(words[1], "E") {
					e.Errno = words[1]
				}
			}
			events = append(events, e)
		}
	}
	return events
}

func tools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s not installed: run lab doctor --install", name)
		}
	}
}

// TestAsStrace compares with strace what programs do: names and results of calls,
// signals and ends, in each process.
func TestAsStrace(t *testing.T) {
	tools(t, "strace", "busybox", "su")
	for name, command := range map[string][]string{
		"true":      {"true"},
		"static":    {"busybox", "echo", "hello"},
		"ls":        {"ls", "-l", "/etc"},
		"cat":       {"cat", "/etc/passwd", "/nothing"},
		"shell":     {"sh", "-c", "echo a | cat; (exit 3); ls /nothing"},
		"script":    {"sh", "-c", "for i in 1 2 3; do true; done; exit 7"},
		"static sh": {"busybox", "sh", "-c", "ls / | wc -l; exit 4"},
		"su":        {"su", "-s", "/bin/true", "nobody"},
		"id":        {"id", "nobody"},
		"killed":    {"sh", "-c", "kill -SEGV $$"},
		"trap":      {"sh", "-c", "trap 'echo caught' USR1; kill -USR1 $$; true"},
		"grep":      {"grep", "-r", "root", "/etc/passwd", "/etc/group"},
		"find":      {"find", "/etc/init.d"},
		"files":     {"sh", "-c", "mkdir d; echo x >d/f; chmod 600 d/f; ln -s f d/l; readlink d/l; mv d/f d/g; rm -r d; cat <&7"},
		"not there": {"env", "nosuchprogram"},
	} {
		t.Run(name, func(t *testing.T) {
			events, summary, _ := follow(t, MaxBytes, command...)
			if summary != "false [] <nil>" {
				t.Error(summary)
			}
			if d := cmp.Diff(processes(stracing(t, command...)), processes(events)); d != "" {
				t.Errorf("strace's account is -, ours is +\n%s", d)
			}
		})
	}
}

// TestEnd compares how programs end with how they end untraced.
func TestEnd(t *testing.T) {
	for script, want := range map[string]string{
		"exit 7":                "1 +++ exited with 7 +++",
		"kill -SEGV $$":         "1 +++ killed by SIGSEGV",
		"kill -9 $$":            "1 +++ killed by SIGKILL +++",
		"kill -TERM $$; exit 1": "1 +++ killed by SIGTERM +++",
		"(sleep 0.1; kill -CONT $$) & kill -STOP $$; exit 5": "1 +++ exited with 5 +++",
		"sh -c 'exit 9' & wait $!":                           "1 +++ exited with 9 +++",
	} {
		untraced := exec.Command("sh", "-c", script)
		_ = untraced.Run()
		events, summary, state := follow(t, MaxBytes, "sh", "-c", script)
		// A child may outlive it.
		events = slices.DeleteFunc(events, func(e Event) bool { return e.PID != 1 })
		last := events[len(events)-1].String()
		if summary != "false [] <nil>" || !strings.HasPrefix(last, want) || state.String() != untraced.ProcessState.String() {
			t.Errorf("%s: %s, %s; untraced %s; the trace ends with %s", script, summary, state, untraced.ProcessState, last)
		}
	}
}

// TestProcesses has 200 of them, and threads.
func TestProcesses(t *testing.T) {
	tools(t, "python3", "sort")
	events, _, _ := follow(t, MaxBytes, "sh", "-c", "i=0; while [ $i -lt 200 ]; do (exit 3) & i=$((i+1)); done; wait")
	ends := 0
	for _, e := range events {
		if e.Said == "+++ exited with 3 +++" {
			ends++
		}
	}
	if ends != 200 || events[len(events)-1].PID != 1 {
		t.Errorf("%d of 200 children have ended, the last line is %s", ends, events[len(events)-1])
	}
	// A thread other than the first becomes another program.
	events, summary, state := follow(t, MaxBytes, "python3", "-c", `
import threading, os
t = threading.Thread(target=lambda: os.execv("/bin/sh", ["sh", "-c", "exit 6"]))
t.start(); t.join()`)
	if last := events[len(events)-1].String(); last != "1 +++ exited with 6 +++" || state.ExitCode() != 6 {
		t.Errorf("%s, %s: %s", summary, state, last)
	}
	if !slices.ContainsFunc(events, func(e Event) bool { return e.Said == "+++ superseded by execve in pid 1 +++" }) {
		t.Error("the thread's end is not told")
	}
	events, _, state = follow(t, MaxBytes, "sh", "-c", "seq 300000 >n; exec sort --parallel=4 -S 100M n -o m")
	threads := slices.MaxFunc(events, func(a, b Event) int { return a.PID - b.PID }).PID
	if threads < 3 || !state.Success() {
		t.Errorf("%d threads, %s", threads, state)
	}
}

// TestSetUser: a set-user-ID program gets what it would get untraced.
func TestSetUser(t *testing.T) {
	tools(t, "setpriv")
	events, _, _ := follow(t, MaxBytes, "sh", "-c", "cp $(command -v id) id; chmod 4755 id; exec setpriv --reuid 65534 --clear-groups ./id -u")
	if !slices.ContainsFunc(events, func(e Event) bool { return e.Name == "write" && e.Args[1] == `"0\n"` }) {
		t.Errorf("the last calls are %v", events[max(0, len(events)-5):])
	}
}

// TestLimit: a trace that is too long changes nothing for the traced.
func TestLimit(t *testing.T) {
	events, summary, state := follow(t, 500, "sh", "-c", "ls / >/dev/null; exit 4")
	size := 0
	for _, e := range events {
		size += len(e.String()) + 1
	}
	if summary != "true [] <nil>" || state.ExitCode() != 4 || size > 500 || size < 300 {
		t.Errorf("%s, %s, %d bytes", summary, state, size)
	}
}

// TestPtrace: who wants to trace itself hears the truth, and so does the reader.
func TestPtrace(t *testing.T) {
	tools(t, "strace")
	events, summary, _ := follow(t, MaxBytes, "strace", "-o", "/dev/null", "true")
	if !strings.Contains(summary, "asked for ptrace") || !slices.ContainsFunc(events, func(e Event) bool { return e.Name == "ptrace" && e.Errno == "EPERM" }) {
		t.Error(summary)
	}
}

// TestNetlink reads the kernel's answer to an audit message.
func TestNetlink(t *testing.T) {
	tools(t, "python3")
	events, _, _ := follow(t, MaxBytes, "python3", "-c", `
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
s.sendto(struct.pack("=IHHII", 16, 4711, 5, 1, 0), (0, 0))
s.recvfrom(8988)`)
	var got []string
	for _, e := range events {
		if (e.Name == "sendto" || e.Name == "recvfrom") && len(e.Args) == 6 {
			got = append(got, e.Args[1])
		}
	}
	if len(got) != 2 || got[0] != "{len=16, type=0x1267, flags=NLM_F_REQUEST|NLM_F_ACK, seq=1, pid=0}" ||
		!strings.HasPrefix(got[1], "{len=36, type=NLMSG_ERROR, flags=0") || !strings.Contains(got[1], "error=-E") {
		t.Errorf("%q", got)
	}
}

func TestDecode(t *testing.T) {
	refused := []byte("\x24\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00" + "\xff\xff\xff\xff" + "\x7c\x00\x00\x00\x4d\x04\x05\x00\x01\x00\x00\x00\x00\x00\x00\x00")
	for _, test := range []struct{ got, want string }{
		{netlink(refused, unix.NETLINK_AUDIT), "{len=36, type=NLMSG_ERROR, flags=0, seq=1, pid=7, error=-EPERM (Operation not permitted), " +
			"msg={len=124, type=AUDIT_USER_ACCT, flags=NLM_F_REQUEST|NLM_F_ACK, seq=1, pid=0}}"},
		{netlink(nil, 0), `""`},
		{netlink([]byte("\x01\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00"), 0), "{len=1, type=NLMSG_ERROR, flags=0, seq=1, pid=7}"},
		{sockaddr([]byte("\x01\x00/dev/log\x00xx"), 1), `{sa_family=AF_UNIX, sun_path="/dev/log"}`},
		{sockaddr([]byte("\x02\x00\x00\x50\x7f\x00\x00\x01"), 1), `{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}`},
		{sets["open"].text(unix.O_WRONLY | unix.O_CREAT | unix.O_CLOEXEC), "O_WRONLY|O_CREAT|O_CLOEXEC"},
		{sets["prot"].text(3), "PROT_READ|PROT_WRITE"},
		{sets["at"].text(0), "0"},
	} {
		if test.got != test.want {
			t.Errorf("%s, want %s", test.got, test.want)
		}
	}
	for name, kinds := range signatures {
		for _, kind := range strings.Fields(kinds) {
			if _, ok := sets[kind]; !ok && !slices.Contains(strings.Split("iluxmpDksvewrAaLhHtPW", ""), kind) {
				t.Errorf("%s: %s is no kind", name, kind)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x24\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00\xff\xff\xff\xff\x7c\x00\x00\x00\x4d\x04\x05\x00\x01\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x00/dev/log"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := Event{PID: 1, Name: "x", Args: []string{netlink(b[:min(len(b), maxNetlink)], unix.NETLINK_AUDIT), sockaddr(b[:min(len(b), maxSockaddr)], 1)}, Result: "0"}
		again, err := Parse(e.String())
		if d := cmp.Diff(e, again); err != nil && len(e.String()) <= MaxLine || err == nil && d != "" {
			t.Errorf("%v\n%s", err, d)
		}
	})
}
