//go:build linux

package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lab/probe"
)

func TestHasParameter(t *testing.T) {
	for _, test := range []struct {
		cmdline string
		want    bool
	}{
		{"", false},
		{"lab.echo", true},
		{"console=ttyS0 lab.echo panic=-1\n", true},
		{"lab.echo=0", false},
		{"xlab.echo lab.echox", false},
		{`dyndbg="file a.c lab.echo +p"`, false},
		{`dyndbg="file a.c +p" lab.echo`, true},
	} {
		if got := hasParameter(test.cmdline, "lab.echo"); got != test.want {
			t.Errorf("%q: %v, want %v", test.cmdline, got, test.want)
		}
	}
}

func TestContainerCaps(t *testing.T) {
	const last36, last40 = capability.CAP_BLOCK_SUSPEND, capability.CAP_CHECKPOINT_RESTORE
	two := &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}}
	for _, test := range []struct {
		name   string
		config *specs.LinuxCapabilities
		spec   probe.Spec
		last   capability.Cap
		want   capSet
		notes  int
	}{
		{"docker's", nil, probe.Spec{}, last40, 0xa80425fb, 0},
		{"the config's", two, probe.Spec{}, last40, 0x21, 0},
		{"none in the config", &specs.LinuxCapabilities{}, probe.Spec{}, last40, 0, 0},
		{"privileged", two, probe.Spec{Privileged: true}, last40, 0x1ffffffffff, 0},
		{"privileged, old kernel", nil, probe.Spec{Privileged: true}, last36, 0x1fffffffff, 0},
		{"add", two, probe.Spec{CapAdd: []string{"net_admin", "CAP_SYS_PTRACE"}}, last40, 0x21 | 1<<12 | 1<<19, 0},
		{"drop", nil, probe.Spec{CapDrop: []string{"AUDIT_WRITE"}}, last40, 0x880425fb, 0},
		{"drop all", nil, probe.Spec{CapDrop: []string{"all"}}, last40, 0, 0},
		{"drop all, add one", nil, probe.Spec{CapDrop: []string{"ALL"}, CapAdd: []string{"CHOWN"}}, last40, 1, 0},
		{"add all, drop one", nil, probe.Spec{CapAdd: []string{"ALL"}, CapDrop: []string{"CHOWN"}}, last40, 0x1fffffffffe, 0},
		{"add and drop one", nil, probe.Spec{CapAdd: []string{"KILL"}, CapDrop: []string{"KILL"}}, last40, 0xa80425fb, 0},
		{"unknown to the kernel", two, probe.Spec{CapAdd: []string{"BPF"}}, last36, 0x21, 1},
	} {
		got, notes, err := containerCaps(test.config, test.spec, test.last)
		if err != nil || got != test.want || len(notes) != test.notes {
			t.Errorf("%s: %#x, %q, %v; want %#x and %d notes", test.name, got, notes, err, test.want, test.notes)
		}
	}
	if _, _, err := containerCaps(&specs.LinuxCapabilities{Bounding: []string{"CAP_WINGS"}}, probe.Spec{}, last40); err == nil || !strings.Contains(err.Error(), "CAP_WINGS") {
		t.Errorf("error %v, want one that names CAP_WINGS", err)
	}
}

func TestResolveUser(t *testing.T) {
	dir := t.TempDir()
	passwd, group := filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
	write(t, passwd, "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\n# comment\nbroken\n")
	write(t, group, "root:x:0:\nusers:x:100:\nwheel:x:10:root,alice\naudio:x:29:alice\n")
	for _, test := range []struct {
		config specs.User
		want   identity
		err    string
	}{
		{specs.User{}, identity{0, 0, []int{10}, "/root"}, ""},
		{specs.User{Username: "alice"}, identity{1000, 100, []int{10, 29}, "/home/alice"}, ""},
		{specs.User{Username: "alice:audio"}, identity{1000, 29, nil, "/home/alice"}, ""},
		{specs.User{Username: "1000"}, identity{1000, 100, []int{10, 29}, "/home/alice"}, ""},
		{specs.User{Username: "4711"}, identity{4711, 0, nil, "/"}, ""},
		{specs.User{Username: "4711:815"}, identity{4711, 815, nil, "/"}, ""},
		{specs.User{Username: "alice", AdditionalGids: []uint32{7}}, identity{1000, 100, []int{10, 29, 7}, "/home/alice"}, ""},
		{specs.User{UID: 1000, GID: 5, AdditionalGids: []uint32{7}}, identity{1000, 5, []int{7}, "/home/alice"}, ""},
		{specs.User{UID: 4711, GID: 5}, identity{4711, 5, nil, "/"}, ""},
		{specs.User{Username: "bob"}, identity{}, `resolve user "bob"`},
		{specs.User{Username: "alice:strangers"}, identity{}, `resolve user "alice:strangers"`},
	} {
		got, err := resolveUser(test.config, passwd, group)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%+v: error %v, want %q", test.config, err, test.err)
			}
			continue
		}
		if len(got.groups) == 0 {
			got.groups = nil
		}
		if d := cmp.Diff(test.want, got, cmp.AllowUnexported(identity{})); err != nil || d != "" {
			t.Errorf("%+v: %v\n%s", test.config, err, d)
		}
	}
	missing := filepath.Join(dir, "missing")
	if got, err := resolveUser(specs.User{Username: "12:34"}, missing, missing); err != nil || got.uid != 12 || got.gid != 34 {
		t.Errorf("numbers without a passwd file: %+v, %v", got, err)
	}
}

func TestMakePlan(t *testing.T) {
	config := specs.Spec{
		Process: &specs.Process{Args: []string{"/entry", "arg"}, Env: []string{"PATH=/image", "A=1", "A=2", "rubbish"}, Cwd: "relative", User: specs.User{Username: "alice"}},
		Linux:   &specs.Linux{MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"}},
	}
	p, notes, err := makePlan("app", config, probe.Spec{}, 40)
	if err != nil || notes != nil {
		t.Fatal(notes, err)
	}
	process := p.Config.Process
	if d := cmp.Diff([]string{"/entry", "arg"}, process.Args); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"PATH=/image", "HOSTNAME=app", "A=2"}, process.Env); d != "" {
		t.Error(d)
	}
	if process.Cwd != "/relative" || process.User.Username != "alice" || p.Config.Hostname != "app" || p.Rootfs != "/containers/app/rootfs" || len(p.Config.Mounts) != 7 {
		t.Errorf("%+v", p)
	}

	p, _, err = makePlan("app", config, probe.Spec{Command: []string{"x"}, Env: []string{"A=3", "B=4"}, User: "0:0", Cwd: "/y", Privileged: true}, 40)
	if err != nil {
		t.Fatal(err)
	}
	process = p.Config.Process
	if d := cmp.Diff([]string{"x"}, process.Args); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"PATH=/image", "HOSTNAME=app", "A=3", "B=4"}, process.Env); d != "" {
		t.Error(d)
	}
	if process.Cwd != "/y" || process.User.Username != "0:0" || !p.AllDevices || p.Config.Linux.MaskedPaths != nil || p.Config.Linux.ReadonlyPaths != nil {
		t.Errorf("%+v", p)
	}
	for _, m := range p.Config.Mounts {
		if o := parseOptions(m.Options); o.flags&unix.MS_RDONLY != 0 {
			t.Errorf("privileged, and %s is read-only", m.Destination)
		}
	}
	if config.Process.Args[0] != "/entry" || config.Linux.MaskedPaths == nil || parseOptions(defaultMounts[3].Options).flags&unix.MS_RDONLY == 0 {
		t.Error("the plan changed what it was made from")
	}
	if _, _, err := makePlan("app", specs.Spec{}, probe.Spec{}, 40); err == nil || !strings.Contains(err.Error(), "has no command") {
		t.Errorf("error %v, want one about the missing command", err)
	}
}

func TestParseOptions(t *testing.T) {
	got := parseOptions([]string{"ro", "nosuid", "rw", "rbind", "size=64k", "rslave", "mode=755", "defaults"})
	want := options{flags: unix.MS_NOSUID | unix.MS_BIND | unix.MS_REC, propagation: unix.MS_SLAVE | unix.MS_REC, data: "size=64k,mode=755"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestFindCommand has the ways in which a command can be no command.
func TestFindCommand(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for _, d := range []string{first, second, filepath.Join(first, "folder")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"first/plain": 0o644, "second/plain": 0o755, "second/good": 0o755, "first/unused": 0o644} {
		write(t, filepath.Join(dir, name), "#!/missing/interpreter -x\n")
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	path := first + ":" + second
	for _, test := range []struct{ name, want, err string }{
		{"good", second + "/good", ""},
		{"plain", second + "/plain", ""},
		{second + "/good", second + "/good", ""},
		{"none", "", "command none: not found in the container's PATH (" + path + ")"},
		{"unused", "", "command unused: " + first + "/unused is not an executable file"},
		{"folder", "", "command folder: " + first + "/folder is not an executable file"},
		{dir + "/none", "", "no such file in the container"},
		{first + "/plain", "", "it is not an executable file"},
		{first + "/folder", "", "it is not an executable file"},
	} {
		got, err := findCommand(test.name, path)
		if test.err == "" && (err != nil || got != test.want) {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
		if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.err)
		}
	}
}

func TestExplainExec(t *testing.T) {
	dir := t.TempDir()
	script, text, link := filepath.Join(dir, "script"), filepath.Join(dir, "text"), filepath.Join(dir, "link")
	write(t, script, "#! /missing/interpreter -x\n")
	write(t, text, "hello\n")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		file string
		err  error
		want string
	}{
		{script, unix.ENOENT, "its interpreter /missing/interpreter is not there"},
		{link, unix.ENOENT, "a link to a file that is not there"},
		{dir + "/none", unix.ENOENT, "no such file in the container"},
		{text, unix.ENOEXEC, "neither a program nor a script"},
		{script, unix.ENOEXEC, "a script, and the kernel runs none (CONFIG_BINFMT_SCRIPT)"},
		{text, unix.E2BIG, "argument list too long"},
	} {
		if err := explainExec(test.file, test.err); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.file, err, test.want)
		}
	}
	if err := explainExec(text, nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}

func TestV1Controllers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cgroups")
	if got, err := v1Controllers(path); err != nil || got != nil {
		t.Errorf("without control groups: %q, %v", got, err)
	}
	write(t, path, "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\nmemory\t0\t1\t0\npids\t2\t9\t1\n")
	got, err := v1Controllers(path)
	if d := cmp.Diff([]string{"cpuset", "pids"}, got); err != nil || d != "" {
		t.Error(err, d)
	}
}

// TestLog sends to a /dev/log as syslog(3) does, more than its queue holds.
func TestLog(t *testing.T) {
	log, err := newLogSocket()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(log.fd)
	path := filepath.Join(t.TempDir(), "log")
	if err := bindLog(log.fd, path); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v; want 0666", st.Mode(), err)
	}
	var got []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		log.receive(make([]byte, 32), func(m []byte) { got = append(got, string(m)) })
	}()
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	var want []string
	for range 30 {
		want = append(want, "<38>su: failed", "", strings.Repeat("x", 32))
		for _, m := range []string{"<38>su: failed\n\x00", "\n", "", strings.Repeat("x", 40)} {
			if err := unix.Sendto(c, []byte(m), 0, &unix.SockaddrUnix{Name: path}); err != nil {
				t.Fatal(err)
			}
		}
	}
	log.finish()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the receiver did not end")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestExt4Label(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	super := make([]byte, 4096)
	super[1024+0x38], super[1024+0x39] = 0x53, 0xef
	copy(super[1024+0x78:], "lab-root")
	write(t, path, string(super))
	if got, err := ext4Label(path); err != nil || got != diskLabel {
		t.Errorf("%q, %v", got, err)
	}
	super[1024+0x38] = 0
	write(t, path, string(super))
	if got, err := ext4Label(path); err == nil {
		t.Errorf("%q of something that is not ext4", got)
	}
	write(t, path, "short")
	if got, err := ext4Label(path); err == nil {
		t.Errorf("%q of something too short", got)
	}
}

func TestExitStatusOf(t *testing.T) {
	for status, want := range map[unix.WaitStatus]struct {
		exit   int
		signal string
	}{
		0:         {0, ""},
		42 << 8:   {42, ""},
		9:         {137, "SIGKILL"},
		11 | 0x80: {139, "SIGSEGV"},
		64:        {192, "signal 64"},
		0xff << 8: {255, ""},
	} {
		if exit, signal := exitStatus(status); exit != want.exit || signal != want.signal {
			t.Errorf("%#x: %d %q, want %d %q", int(status), exit, signal, want.exit, want.signal)
		}
	}
}

func TestWaitFor(t *testing.T) {
	calls := 0
	got, err := waitFor(time.Minute, func() (string, error) {
		if calls++; calls < 3 {
			return "", errors.New("not yet")
		}
		return "there", nil
	})
	if got != "there" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := waitFor(0, func() (int, error) { return 0, errors.New("never") }); err == nil || err.Error() != "never" {
		t.Errorf("error %v, want never", err)
	}
}

func TestDispatchReturns(t *testing.T) {
	Dispatch() // in a process that is no guest's
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRootedCaps(t *testing.T) {
	value := append([]byte{1, 0, 0, 2, 0, 0x20}, make([]byte, 14)...) // effective: NET_RAW
	want := append([]byte{1, 0, 0, 3, 0, 0x20}, append(make([]byte, 14), 0xa0, 0x86, 1, 0)...)
	if got := rootedCaps(value, 100000); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	for _, odd := range [][]byte{nil, value[:12], want} {
		if got := rootedCaps(odd, 100000); got != nil {
			t.Errorf("%x became %x", odd, got)
		}
	}
}

func TestFilterOfAPlan(t *testing.T) {
	for _, c := range []struct {
		spec       probe.Spec
		has        bool
		name, want string // of the filter, and in the note or the error
		filter     bool
	}{
		{probe.Spec{}, true, "default", "", true},
		{probe.Spec{}, false, "none", "the container runs without", false},
		{probe.Spec{Privileged: true}, true, "unconfined", "", false},
		{probe.Spec{Privileged: true, Seccomp: "default"}, true, "default", "", true},
		{probe.Spec{Seccomp: "unconfined"}, false, "unconfined", "", false},
		{probe.Spec{Seccomp: "default"}, false, "default", "wants the seccomp profile default, and the kernel has no seccomp filter", false},
		{probe.Spec{Seccomp: "f", SeccompProfile: `{"defaultAction":"SCMP_ACT_ALLOW"}`}, true, "f", "", true},
	} {
		p := plan{Caps: dockerCaps}
		note, err := p.filter(c.spec, c.has)
		got := note
		if err != nil {
			got = err.Error()
		}
		if p.SeccompName != c.name || (p.Seccomp != nil) != c.filter || !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%+v: %s, %v, %q", c.spec, p.SeccompName, p.Seccomp != nil, got)
		}
	}
}
