//go:build linux

package agent

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"lab/probe"
)

// sh is a spec that runs a script.
func sh(script string) probe.Spec {
	return probe.Spec{Command: []string{"/bin/sh", "-c", script}}
}

// pass boots the guest with the spec and wants the command to exit with 0.
func (g *guest) pass(t *testing.T, m machine) outcome {
	t.Helper()
	o := g.boot(t, m)
	if o.err != nil || !o.Passed() {
		t.Fatalf("exit %d, %v %s", o.Exit, o.err, o.Error)
	}
	return o
}

// lines compares stdout line by line.
func (o outcome) lines(t *testing.T, want ...string) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(string(o.Stdout), "\n"), "\n")
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(want):
			t.Errorf("more output: %q", got[i])
		case i >= len(got):
			t.Errorf("no output for %q", want[i])
		case got[i] != want[i]:
			t.Errorf("output %q, want %q", got[i], want[i])
		}
	}
}

// A command in the guest itself has no container around it; on a disk without a base its
// root is the container's.
func TestGuestItself(t *testing.T) {
	g := bootable(t)
	spec := sh("for n in pid mnt net; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] && echo same $n; done; cat odd/text; grep -c ^Seccomp:.0 /proc/self/status; grep -c CapEff:.*ffffffff /proc/self/status; id -u; logger hello; sleep 1000 & exit 3")
	spec.Guest, spec.User, spec.CapDrop = true, "nobody", []string{"ALL"}
	o := g.boot(t, machine{spec: spec})
	if o.err != nil || o.Exit != 3 || o.Container == nil || o.Container.Guest != "/" || !strings.Contains(string(o.Syslog), "hello") {
		t.Errorf("exit %d, %v %s; %+v; syslog %s", o.Exit, o.err, o.Error, o.Container, o.Syslog)
	}
	o.lines(t, "same pid", "same mnt", "same net", "hello", "1", "1", "0")
}

func TestExitStatus(t *testing.T) {
	g := bootable(t)
	for _, test := range []struct {
		command []string
		exit    int
	}{
		{[]string{"true"}, 0},
		{[]string{"false"}, 1},
		{[]string{"/bin/sh", "-c", "exit 42"}, 42},
	} {
		t.Run(strings.Join(test.command, " "), func(t *testing.T) {
			o := g.boot(t, machine{spec: probe.Spec{Command: test.command}})
			if o.err != nil || !o.Started || !o.Complete || o.Error != "" || o.Exit != test.exit || o.Signal != "" || o.TimedOut {
				t.Errorf("exit %d, error %v; want %d", o.Exit, o.err, test.exit)
			}
			if o.Passed() != (test.exit == 0) {
				t.Errorf("passed: %v", o.Passed())
			}
			if o.Notes != nil {
				t.Errorf("notes: %q", o.Notes)
			}
			t.Logf("hello after %s, container %s, whole %s", o.hello, o.Duration, o.whole)
		})
	}
}

func TestSignal(t *testing.T) {
	g := bootable(t)
	o := g.boot(t, machine{spec: probe.Spec{Command: []string{"illegal"}}})
	if o.err != nil || !o.Complete || o.Signal != "SIGILL" || o.Exit != 128+4 || o.Passed() {
		t.Errorf("exit %d, signal %q, error %v", o.Exit, o.Signal, o.err)
	}
}

// TestCannotRun has commands and containers that are not there; the other ways
// not to be executable have tests of their own, without a kernel.
func TestCannotRun(t *testing.T) {
	g := bootable(t)
	for _, test := range []struct {
		spec probe.Spec
		want string
	}{
		{probe.Spec{Command: []string{"nothing-like-it"}}, "command nothing-like-it: not found in the container's PATH (/bin:/odd)"},
		{probe.Spec{Command: []string{"foreign"}}, "command /odd/foreign: a program for another machine, EM_AARCH64 (ELFCLASS64)"},
		{probe.Spec{Container: "other"}, `find container "other": the disk has app`},
	} {
		o := g.boot(t, machine{spec: test.spec})
		if o.err != nil || !o.Complete || o.Started || o.Exit != -1 || !strings.Contains(o.Error, test.want) {
			t.Errorf("%+v: started %v, %v, %q; want %q", test.spec, o.Started, o.err, o.Error, test.want)
		}
	}
}

func TestNoDisk(t *testing.T) {
	g := bootable(t)
	o := g.boot(t, machine{spec: sh("true"), noDisk: true})
	if o.err != nil || o.Started || !strings.Contains(o.Error, "find the disk's partition lab-root") {
		t.Errorf("%v, %q", o.err, o.Error)
	}
}

func TestBadSpec(t *testing.T) {
	g := bootable(t)
	o := g.boot(t, machine{rawSpec: `{"comand": ["true"]}`})
	if o.err != nil || o.Started || !strings.Contains(o.Error, `unknown field "comand"`) {
		t.Errorf("%v, %q", o.err, o.Error)
	}
}

// TestImageCommand runs what the image would: its command, in its directory.
func TestImageCommand(t *testing.T) {
	g := bootable(t)
	o := g.pass(t, machine{})
	o.lines(t, "image command", "/work/deep")
	if o.Release == "" || !strings.Contains(o.console, `lab: started ["/bin/sh" "-c" "echo image command; pwd"]`) || !strings.Contains(o.console, "lab: test exited with status 0") {
		t.Error("the console does not say so")
	}
}

// TestSurroundings looks around in a container with nothing special.
func TestSurroundings(t *testing.T) {
	g := bootable(t)
	spec := sh(`
		echo "pid $$ of $(cat /proc/1/comm), ppid $PPID"
		pwd; umask; hostname; id
		echo "$FROM $MORE $HOME $HOSTNAME"
		grep -h '^Cap\|^NoNewPrivs\|^Sig[BI]' /proc/self/status
		ulimit -n
		ip -o addr show lo | grep -o 'inet.* scope' 
		ping -c 1 -W 5 127.0.0.1 >/dev/null && echo pong
		ls /dev
		echo x 2>/dev/null >/proc/sys/kernel/hostname || echo /proc/sys is read-only
		wc -c </proc/kcore
		ls /sys/firmware | wc -l
		touch /sys/x 2>/dev/null || echo /sys is read-only
		mkdir /sys/fs/cgroup/x 2>/dev/null || echo cgroup is read-only
		cat /proc/self/cgroup
		test "$(cat /sys/fs/cgroup/cgroup.procs | head -n 1)" = 1 && echo own cgroup
		grep -c . /proc/self/mountinfo >/dev/null; grep -c containers /proc/mounts
		ls -d /containers /lab /root-disk 2>/dev/null
		cat /etc/hostname; grep app /etc/hosts
		ls -l /proc/self/fd/0 | grep -o '/dev.*'
		echo quiet >/dev/null; echo out >/dev/stdout; echo err >/dev/stderr
		mkdir -p /mnt; mount -t tmpfs none /mnt 2>/dev/null || echo no mount
		touch /written && rm /written && echo writable root
		sleep 1000 & 
	`)
	spec.Env = []string{"MORE=test", "FROM=spec"}
	o := g.pass(t, machine{spec: spec})
	o.lines(t,
		"pid 1 of sh, ppid 0",
		"/work/deep", "0022", "app", "uid=0(root) gid=0(root) groups=0(root)",
		"spec test /root app",
		"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000",
		"CapInh:\t0000000000000000", "CapPrm:\t00000000a80425fb", "CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "CapAmb:\t0000000000000000",
		"NoNewPrivs:\t0",
		"1024",
		"inet 127.0.0.1/8 scope", "inet6 ::1/128 scope", "pong",
		"core", "fd", "full", "log", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
		"/proc/sys is read-only", "0", "0", "/sys is read-only", "cgroup is read-only", "0::/", "own cgroup", "0",
		"app", "127.0.1.1\tapp", "/dev/null", "out", "no mount", "writable root",
	)
	if got := string(o.Stderr); got != "err\n" {
		t.Errorf("stderr %q", got)
	}
	if o.whole > o.hello+30*time.Second {
		t.Errorf("an orphan kept the guest from ending")
	}
}

func TestUserAndCaps(t *testing.T) {
	g := bootable(t)
	t.Run("nobody", func(t *testing.T) {
		spec := sh(`id; pwd; echo $HOME; grep -h '^Cap' /proc/self/status; echo to stdout >/dev/stdout; cat /etc/shadow; touch /x`)
		spec.User, spec.Cwd, spec.CapAdd = "nobody", "/tmp", []string{"net_admin"}
		o := g.boot(t, machine{spec: spec})
		o.lines(t, "uid=65534(nobody) gid=65533(nogroup) groups=77(extra),65533(nogroup)", "/tmp", "/nonexistent",
			"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t00000000a80435fb", "CapAmb:\t0000000000000000",
			"to stdout")
		if o.Exit != 1 || !strings.Contains(string(o.Stderr), "touch: /x: Permission denied") {
			t.Errorf("exit %d, stderr %q", o.Exit, o.Stderr)
		}
	})
	t.Run("numbers", func(t *testing.T) {
		spec := sh(`id`)
		spec.User = "1234:56"
		g.pass(t, machine{spec: spec}).lines(t, "uid=1234 gid=56 groups=56")
	})
	t.Run("drop", func(t *testing.T) {
		spec := sh(`grep -h '^Cap[EB]' /proc/self/status; chown 5 /bin/busybox`)
		spec.CapDrop, spec.CapAdd = []string{"ALL"}, []string{"CAP_NET_RAW"}
		o := g.boot(t, machine{spec: spec})
		o.lines(t, "CapEff:\t0000000000002000", "CapBnd:\t0000000000002000")
		if o.Exit != 1 || !strings.Contains(string(o.Stderr), "Operation not permitted") {
			t.Errorf("exit %d, stderr %q", o.Exit, o.Stderr)
		}
	})
	t.Run("privileged", func(t *testing.T) {
		spec := sh(`grep -h '^Cap[EB]' /proc/self/status; ls /sys/firmware | head -n 1; test -b /dev/vda1 && head -c 3 /dev/vda >/dev/null && echo disk
			mkdir -p /mnt; mount -t tmpfs none /mnt && echo mounted; sysctl -w kernel.sysrq=1; mkdir /sys/fs/cgroup/sub && echo sub; test -e /dev/console || echo no console`)
		spec.Privileged = true
		g.pass(t, machine{spec: spec}).lines(t, "CapEff:\t000001ffffffffff", "CapBnd:\t000001ffffffffff", "acpi", "disk", "mounted", "kernel.sysrq = 1", "sub", "no console")
	})
}

func TestOutput(t *testing.T) {
	g := bootable(t)
	o := g.boot(t, machine{spec: sh(`yes out | head -c 5000000; yes err | head -c 5000000 >&2; echo said >&2; exit 3`)})
	if o.err != nil || o.Exit != 3 || !o.Truncated || !o.Complete {
		t.Errorf("exit %d, truncated %v, %v", o.Exit, o.Truncated, o.err)
	}
	if want := strings.Repeat("out\n", 1<<18); string(o.Stdout) != want {
		t.Errorf("stdout has %d bytes, want the first %d", len(o.Stdout), len(want))
	}
	if want := strings.Repeat("err\n", 1<<18); string(o.Stderr) != want {
		t.Errorf("stderr has %d bytes, want the first %d", len(o.Stderr), len(want))
	}

	spec := sh(`yes out | head -c 5000000`)
	spec.MaxOutput = 5e6
	o = g.pass(t, machine{spec: spec})
	if o.Truncated || len(o.Stdout) != 5e6 {
		t.Errorf("%d bytes of output, truncated %v", len(o.Stdout), o.Truncated)
	}
	t.Logf("5 MB in %s", o.Duration)
}

func TestSyslog(t *testing.T) {
	g := bootable(t)
	o := g.pass(t, machine{spec: sh(`for i in 1 2 3 4 5 6 7 8 9 10 11 12; do logger -p auth.info -t su "message $i"; done`)})
	lines := strings.Split(strings.TrimSuffix(string(o.Syslog), "\n"), "\n")
	if len(lines) != 12 {
		t.Fatalf("%d messages, want 12: %q", len(lines), o.Syslog)
	}
	for i, l := range lines {
		if !strings.HasPrefix(l, "<38>") || !strings.HasSuffix(l, fmt.Sprintf("su: message %d", i+1)) {
			t.Errorf("message %q", l)
		}
	}
}

// TestTimeout kills a tree of processes that does all it can to live on.
func TestTimeout(t *testing.T) {
	g := bootable(t)
	spec := sh(`trap '' TERM INT HUP
		tree() { echo fork; test $1 = 0 || { tree $(($1-1)) & tree $(($1-1)) & }; while :; do sleep 1 & wait; done; }
		setsid sh -c 'while :; do sleep 1000; done' &
		tree 5`)
	spec.Timeout = 3 * time.Second
	o := g.boot(t, machine{spec: spec})
	if o.err != nil || !o.Complete || !o.TimedOut || o.Signal != "SIGKILL" || o.Exit != 137 || o.Error != "" || o.Passed() {
		t.Errorf("timed out %v, signal %q, exit %d, %v %s", o.TimedOut, o.Signal, o.Exit, o.err, o.Error)
	}
	if o.Duration < spec.Timeout || o.Notes != nil {
		t.Errorf("took %s, notes %q", o.Duration, o.Notes)
	}
	if n := strings.Count(string(o.Stdout), "fork\n"); n < 32 {
		t.Errorf("%d processes had started, want a tree", n)
	}
}

// TestPristine writes to the disk and boots again.
func TestPristine(t *testing.T) {
	g := bootable(t)
	for range 2 {
		g.pass(t, machine{spec: sh(`test ! -e /mark && echo x >/mark && sync`)})
	}
}

// TestPanic crashes the kernel in the middle of a test.
func TestPanic(t *testing.T) {
	g := bootable(t)
	spec := sh(`echo before; echo error >&2; logger message; echo c >/proc/sysrq-trigger; echo after`)
	spec.Privileged = true
	o := g.boot(t, machine{spec: spec})
	if !errors.Is(o.err, io.ErrUnexpectedEOF) || !strings.Contains(o.err.Error(), "ended before the test was done") {
		t.Errorf("error %v", o.err)
	}
	if o.Complete || !o.Started || o.Passed() || o.Exit != -1 {
		t.Errorf("complete %v, started %v, exit %d", o.Complete, o.Started, o.Exit)
	}
	o.lines(t, "before")
	if !strings.HasSuffix(string(o.Syslog), "message\n") || string(o.Stderr) != "error\n" {
		t.Errorf("syslog %q, stderr %q", o.Syslog, o.Stderr)
	}
	if !strings.Contains(o.console, "Kernel panic") {
		t.Error("the kernel did not panic")
	}
}

func TestEpoch(t *testing.T) {
	g := bootable(t)
	spec := sh(`date +%s`)
	spec.Epoch = time.Date(2020, 2, 2, 0, 0, 0, 0, time.UTC)
	o := g.pass(t, machine{spec: spec})
	if !strings.HasPrefix(string(o.Stdout), "15806016") {
		t.Errorf("clock %q, want about %d", o.Stdout, spec.Epoch.Unix())
	}
}

// TestEcho has nobody on the host but the console.
func TestEcho(t *testing.T) {
	g := bootable(t)
	o := g.boot(t, machine{spec: sh(`echo said aloud; exit 7`), cmdline: "lab.echo", alone: true})
	for _, want := range []string{"said aloud", "lab: test exited with status 7"} {
		if !strings.Contains(o.console, want) {
			t.Errorf("the console has no %q", want)
		}
	}
	o = g.boot(t, machine{spec: sh(`echo said aloud`), cmdline: "lab.echo"})
	if !o.Passed() || !strings.Contains(o.console, "said aloud") || string(o.Stdout) != "said aloud\n" {
		t.Errorf("with a host: %v, stdout %q", o.err, o.Stdout)
	}
}

// TestSerial has a machine without virtio-serial.
func TestSerial(t *testing.T) {
	g := bootable(t)
	o := g.boot(t, machine{spec: sh(`printf 'a\nb\r\n\001\021\023\377'; yes | head -c 100000; exit 9`), serial: true})
	want := "a\nb\r\n\001\021\023\377" + strings.Repeat("y\n", 50000)
	if o.err != nil || o.Exit != 9 || string(o.Stdout) != want {
		t.Errorf("exit %d, %v, %d bytes", o.Exit, o.err, len(o.Stdout))
	}
}

// TestNoACPI has a machine that cannot be powered off.
func TestNoACPI(t *testing.T) {
	g := bootable(t)
	o := g.pass(t, machine{spec: sh(`echo x`), cmdline: "acpi=off"})
	o.lines(t, "x")
}

// TestCgroup1 has the container's groups in version 1's hierarchies, and asks
// both versions for a device that a container must not use.
func TestCgroup1(t *testing.T) {
	g := bootable(t)
	script := `grep -h pids:/ /proc/self/cgroup | cut -d: -f2-; ls -d /sys/fs/cgroup/pids 2>/dev/null; cat /sys/fs/cgroup/pids/tasks 2>/dev/null | head -n 1
		mkdir /sys/fs/cgroup/pids/x 2>/dev/null || echo read-only
		mknod /disk b $(sed 's/:/ /' /sys/class/block/vda/dev); cat /disk; head -c 1 /dev/urandom | wc -c; echo x >/dev/null`
	for _, test := range []struct {
		cmdline string
		want    []string
	}{
		{"systemd.unified_cgroup_hierarchy=0", []string{"pids:/", "/sys/fs/cgroup/pids", "1", "read-only", "1"}},
		{"", []string{"read-only", "1"}},
	} {
		o := g.pass(t, machine{spec: sh(script), cmdline: test.cmdline})
		o.lines(t, test.want...)
		if got := string(o.Stderr); got != "cat: can't open '/disk': Operation not permitted\n" {
			t.Errorf("%q: stderr %q", test.cmdline, got)
		}
		if o.Notes != nil {
			t.Errorf("%q: notes %q", test.cmdline, o.Notes)
		}
	}
}

// TestContainerSettings has what differs from one container to the next: in the
// first boot Docker's filter, a user namespace and control groups of version 1, in the
// second none of them.
func TestContainerSettings(t *testing.T) {
	g := bootable(t)
	script := `calls; grep Seccomp: /proc/self/status; cat /proc/self/uid_map; id -u; stat -c '%u %g %a' /bin/busybox /bin/becomes
		grep -q '^cgroup /sys/fs/cgroup/pids cgroup ' /proc/mounts && echo version 1; grep -o '/sys/fs/cgroup cgroup2' /proc/mounts; echo x >/dev/null && head -c 3 /dev/zero | wc -c
		ls /dev/vda; grep -q . /proc/keys && echo shown; mkdir /sys/fs/cgroup/x && echo writable; touch /x && stat -c %u /x; unshare -U true; echo $?`
	confined := sh(script)
	confined.UserNS, confined.Cgroup = true, "1"
	o := g.pass(t, machine{spec: confined})
	if o.Notes != nil {
		t.Errorf("notes %q", o.Notes)
	}
	o.lines(t, "keyctl EPERM", "clone3 ENOSYS", "unshare EPERM", "vsock EPERM", "netlink EINVAL", "nothing ENOSYS", "Seccomp:	2",
		"         0     100000      65536", "0", "0 0 755", "0 0 4755", "version 1", "3", "0", "1")
	if c := o.Container; c == nil || c.Seccomp != "default" || !strings.HasPrefix(c.Filter, "sha256:") || !c.UserNS || c.Cgroup != "1" || len(c.Capabilities) != 14 {
		t.Errorf("container %+v", c)
	}
	free := sh(script)
	free.Seccomp, free.Cgroup, free.Devices, free.Unmasked, free.Writable = "unconfined", "2", true, true, true
	o = g.pass(t, machine{spec: free})
	o.lines(t, "keyctl ENOTSUP", "clone3 EINVAL", "unshare EINVAL", "vsock EINVAL", "netlink EINVAL", "nothing ENOSYS", "Seccomp:	0",
		"         0          0 4294967295", "0", "0 0 755", "0 0 4755", "/sys/fs/cgroup cgroup2", "3", "/dev/vda", "shown", "writable", "0", "0")
	if c := o.Container; c == nil || c.Seccomp != "unconfined" || c.Filter != "" || c.UserNS || c.Cgroup != "2" {
		t.Errorf("container %+v", c)
	}
}

// TestOldCalls has a guest with the system calls of Linux 3.13, the last of which is
// finit_module, 313 on x86-64: no getrandom, no seccomp(2), no bpf, no statx.
func TestOldCalls(t *testing.T) {
	g := bootable(t)
	spec := sh(`grep Seccomp: /proc/self/status; id -u; head -c 3 /dev/urandom | wc -c; logger said; cat /proc/self/comm | cat; calls`)
	spec.UserNS, spec.Cgroup, spec.Trace, spec.Epoch = true, "1", true, time.Unix(1500000000, 0)
	o := g.pass(t, machine{spec: spec, cmdline: "calls=313"})
	o.lines(t, "Seccomp:	2", "0", "3", "cat", "keyctl EPERM", "clone3 ENOSYS", "unshare EPERM", "vsock EPERM", "netlink EINVAL", "nothing ENOSYS")
	if !strings.Contains(string(o.Syslog), "said") {
		t.Errorf("syslog %q", o.Syslog)
	}
	if want := "getrandom("; !strings.Contains(string(o.Trace), want) || !strings.Contains(string(o.Trace), "ENOSYS") {
		t.Errorf("trace without %q and ENOSYS:\n%s", want, o.Trace)
	}
	if o.Notes != nil {
		t.Errorf("notes %q", o.Notes)
	}
	// Version 2's devices are kept away by a program, which takes bpf(2).
	o = g.pass(t, machine{spec: sh("echo x"), cmdline: "calls=313"})
	o.lines(t, "x")
	if len(o.Notes) != 1 || !strings.Contains(o.Notes[0], "the container can use any of the guest's devices: load the device filter: function not implemented (does the kernel have CONFIG_CGROUP_BPF, and is it Linux 4.15?)") {
		t.Errorf("notes %q", o.Notes)
	}
}
