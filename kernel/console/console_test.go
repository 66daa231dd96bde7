package console

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// summary prints reports for people and goldens.
func summary(reports []Report) string {
	var b strings.Builder
	for _, r := range reports {
		lines := strings.Split(strings.TrimSuffix(r.Text, "\n"), "\n")
		fatal := ""
		if r.Fatal {
			fatal = " (fatal)"
		}
		fmt.Fprintf(&b, "%s%s: %s\n\t%d lines\n\t%s\n\t%s\n", r.Kind, fatal, r.Title, len(lines), lines[0], lines[len(lines)-1])
	}
	return b.String()
}

// TestSamples scans what real kernels said.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	var got strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := Scan(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		bytewise, err := Scan(iotest.OneByteReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(whole, bytewise); diff != "" {
			t.Errorf("%s: differs when read byte by byte:\n%s", file, diff)
		}
		cause, _ := Cause(whole)
		fmt.Fprintf(&got, "== %s: %s\n%s", filepath.Base(file), cause.Title, summary(whole))
	}
	const golden = "testdata/samples.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("-want +got; go test -update writes it anew:\n%s", diff)
	}
}

// trace stands for the rest of an oops.
const trace = "CPU: 0 PID: 1 Comm: init Not tainted\nRIP: 0010:bad_thing+0x5/0x7\nCall Trace:\n dump_stack+0x1/0x2\n ? stale+0x1/0x2\n caller+0x3/0x4\n---[ end trace 0123456789abcdef ]---\n"

// TestTitles: first lines, in the words of the kernel's format strings of many
// versions, and the titles they get.
func TestTitles(t *testing.T) {
	for _, c := range []struct{ kind, title, text string }{
		{KindPanic, "kernel panic: VFS: Unable to mount root fs on unknown-block(NUM,NUM)", "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"},
		{KindPanic, "kernel panic: Attempted to kill init!", "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009"},
		{KindPanic, "kernel panic: Fatal exception in interrupt", "Kernel panic - not syncing: Fatal exception in interrupt"},
		{KindPanic, "kernel panic: No working init found. Try passing init= option to kernel. See Linux Documentation/admin-guide/init.rst for guidance.", "Kernel panic - not syncing: No working init found.  Try passing init= option to kernel. See Linux Documentation/admin-guide/init.rst for guidance."},
		{KindPanic, "kernel panic: Requested init /nope failed (error -NUM).", "Kernel panic - not syncing: Requested init /nope failed (error -2)."},
		{KindPanic, "kernel panic: stack-protector: Kernel stack is corrupted in: do_one_initcall", "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: do_one_initcall+0x1d7/0x220"},
		{KindPanic, "kernel panic: lost its beginning", "---[ end Kernel panic - not syncing: lost its beginning ]---"},
		{KindPanic, "double fault in bad_thing", "traps: PANIC: double fault, error_code: 0x0\n" + trace},
		{KindPanic, "early exception", "PANIC: early exception 0x0e IP 10:ffffffff81000000 error 0 cr2 0x10"},
		{KindOops, "BUG: kernel NULL pointer dereference in bad_thing", "BUG: kernel NULL pointer dereference, address: 0000000000000010\nOops: 0002 [#1] PREEMPT SMP PTI\n" + trace},
		{KindOops, "BUG: kernel NULL pointer dereference in bad_thing", "BUG: unable to handle kernel NULL pointer dereference at           (null)\nIP: [<ffffffff8135bd70>] bad_thing+0x10/0x20\nPGD 0 \nOops: 0002 [#1] SMP \n"},
		{KindOops, "BUG: kernel NULL pointer dereference in bad_thing", "BUG: unable to handle kernel NULL pointer dereference at 0000000000000010\nRIP: 0010:[<ffffffff8135bd70>]  [<ffffffff8135bd70>] bad_thing+0x10/0x20\n"},
		{KindOops, "BUG: kernel NULL pointer dereference in bad_thing", "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010\nInternal error: Oops: 96000045 [#1] SMP\npc : bad_thing+0x10/0x20\nlr : other+0x1/0x2\n"},
		{KindOops, "BUG: unable to handle page fault in bad_thing", "BUG: unable to handle page fault for address: ffff888fffff0000\n" + trace},
		{KindOops, "BUG: unable to handle page fault in bad_thing", "BUG: unable to handle kernel paging request at ffff888fffff0000\n" + trace},
		{KindOops, "general protection fault in bad_thing", "general protection fault, probably for non-canonical address 0xdead00000000beef: 0000 [#1] PREEMPT SMP PTI\n" + trace},
		{KindOops, "general protection fault in bad_thing", "Oops: general protection fault, probably for non-canonical address 0xdffffc0000000000: 0000 [#1] SMP KASAN\n" + trace},
		{KindOops, "general protection fault in bad_thing", "general protection fault: 0000 [#1] SMP\n" + trace},
		{KindOops, "divide error in bad_thing", "divide error: 0000 [#3] SMP\n" + trace},
		{KindOops, "kernel stack overflow in bad_thing", "BUG: stack guard page was hit at 000000009fd073d4 (stack is 000000004d448603..0000000024ca10aa)\n" + trace},
		{KindOops, "kernel stack overflow in bad_thing", "BUG: IRQ stack guard page was hit at 000000009fd073d4 (stack is 000000004d448603..0000000024ca10aa)\n" + trace},
		{KindBug, "kernel BUG in bad_thing", "------------[ cut here ]------------\nkernel BUG at mm/slub.c:321!\ninvalid opcode: 0000 [#1] SMP\n" + trace},
		{KindBug, "BUG: scheduling while atomic in caller", "BUG: scheduling while atomic: init/78/0x00000003\n" + trace},
		{KindBug, "BUG: sleeping function called from invalid context in caller", "BUG: sleeping function called from invalid context at mm/slab.h:94\n" + trace},
		{KindBug, "BUG: Bad page state in caller", "BUG: Bad page state in process init  pfn:00029\n" + trace},
		{KindBug, "BUG: spinlock bad magic on CPU#NUM, init", "BUG: spinlock bad magic on CPU#0, init/1\n" + trace},
		{KindBug, "BUG: Bad rss-counter state mm:ADDR type:MM_FILEPAGES val:NUM", "BUG: Bad rss-counter state mm:00000000deadbeef type:MM_FILEPAGES val:1"},
		{KindWarning, "WARNING in bad_thing", "WARNING: CPU: 0 PID: 78 at drivers/misc/crash.c:15 bad_thing+0x5/0xc [crash]\n" + trace},
		{KindWarning, "WARNING in bad_thing", "WARNING: at fs/inode.c:12 bad_thing.isra.3+0x5/0xc()\n" + trace},
		{KindWarning, "WARNING in bad_thing", "WARNING: drivers/misc/crash.c:15 at bad_thing.constprop.0+0x5/0xc, CPU#0: init/78\n" + trace},
		{KindKASAN, "KASAN: use-after-free Read in bad_thing", "==================================================================\nBUG: KASAN: use-after-free in bad_thing+0x5c/0x80 [crash]\nRead of size 4 at addr ffff88800ba4a008 by task init/78\n" + trace},
		{KindKASAN, "KASAN: slab-out-of-bounds Write in bad_thing", "BUG: KASAN: slab-out-of-bounds in bad_thing+0x5c/0x80\nWrite of size 8 at addr ffff88800ba4a008 by task init/78\n"},
		{KindKASAN, "KASAN: double-free in kfree", "BUG: KASAN: double-free in kfree+0x90/0x2a0\n"},
		{KindKFENCE, "KFENCE: use-after-free read in bad_thing", "BUG: KFENCE: use-after-free read in bad_thing+0x5c/0x80\n"},
		{KindKFENCE, "KFENCE: memory corruption in bad_thing", "BUG: KFENCE: memory corruption in bad_thing+0x5c/0x80\n"},
		{KindKMSAN, "KMSAN: uninit-value in bad_thing", "BUG: KMSAN: uninit-value in bad_thing+0x5c/0x80\n"},
		{KindKCSAN, "KCSAN: data-race in bad_thing / other", "BUG: KCSAN: data-race in bad_thing / other\n"},
		{KindUBSAN, "UBSAN: array-index-out-of-bounds in fs/ext4/super.c", "UBSAN: array-index-out-of-bounds in fs/ext4/super.c:12:34\n"},
		{KindUBSAN, "UBSAN: Undefined behaviour in ../fs/super.c", "UBSAN: Undefined behaviour in ../fs/super.c:12:34\n"},
		{KindLockdep, "lockdep: possible circular locking dependency detected in caller", "======================================================\nWARNING: possible circular locking dependency detected\n6.1.0 Not tainted\n" + trace},
		{KindLockdep, "lockdep: possible recursive locking detected in caller", "[ INFO: possible recursive locking detected ]\n" + trace},
		{KindLockdep, "lockdep: inconsistent lock state in caller", "WARNING: inconsistent lock state\n" + trace},
		{KindLockdep, "lockdep: suspicious RCU usage in caller", "WARNING: suspicious RCU usage\n" + trace},
		{KindLockup, "BUG: soft lockup in bad_thing", "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [init:84]\n" + trace},
		{KindLockup, "BUG: soft lockup in bad_thing", "BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:1]\n" + trace},
		{KindLockup, "hard lockup in bad_thing", "NMI watchdog: Watchdog detected hard LOCKUP on cpu 1\n" + trace},
		{KindLockup, "hard lockup in bad_thing", "watchdog: CPU2: Watchdog detected hard LOCKUP on cpu 2\n" + trace},
		{KindLockup, "BUG: workqueue lockup", "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!"},
		{KindRCUStall, "INFO: rcu detected stall in bad_thing", "rcu: INFO: rcu_preempt self-detected stall on CPU\n" + trace},
		{KindRCUStall, "INFO: rcu detected stall in bad_thing", "INFO: rcu_sched detected stalls on CPUs/tasks: { 1} (detected by 0, t=2102 jiffies, g=1, c=0, q=7)\n" + trace},
		{KindRCUStall, "INFO: rcu detected stall", "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 23 jiffies s: 57 root: 0x2/."},
		{KindHung, "INFO: task hung in caller", "INFO: task kworker/u4:1:23 blocked for more than 120 seconds.\n      Not tainted 6.1.0 #1\n" + strings.Replace(trace, "dump_stack", "__schedule", 1)},
		{KindBoot, "boot: ZSTD-compressed data is corrupt", "Decompressing Linux... \n\nZSTD-compressed data is corrupt\n\n -- System halted"},
		{KindBoot, "boot: no bootable device", "SeaBIOS (version 1.16.2)\nNo bootable device.\n"},
	} {
		for name, text := range map[string]string{
			"plain":  "Linux version 6.1.0\n" + c.text,
			"time":   stamped("[    1.234567] ", "Linux version 6.1.0\n"+c.text),
			"caller": stamped("[    1.234567][    T1] ", "Linux version 6.1.0\n"+c.text),
			"spaced": stamped("[12345.234567] [C0] ", "Linux version 6.1.0\n"+c.text),
		} {
			if c.kind == KindBoot && name != "plain" {
				continue
			}
			got, err := Scan(strings.NewReader(text))
			if err != nil || len(got) != 1 {
				t.Errorf("%s %q: %d reports, %v: %s", name, c.text, len(got), err, summary(got))
				continue
			}
			if got[0].Kind != c.kind || got[0].Title != c.title || got[0].Fatal != (c.kind == KindPanic || c.kind == KindBoot) {
				t.Errorf("%s %q:\ngot  %s %q %v\nwant %s %q", name, c.text, got[0].Kind, got[0].Title, got[0].Fatal, c.kind, c.title)
			}
		}
	}
}

func stamped(prefix, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(prefix + line)
	}
	return b.String()
}

// TestNoReport: what looks like a report and is none.
func TestNoReport(t *testing.T) {
	const linux = "[    0.000000] Linux version 6.1.0\n"
	for _, text := range []string{
		linux + "Kernel panic - not syncing: quoted by a test\n",
		linux + "test: Kernel panic - not syncing: quoted by a test\n",
		linux + "[    1.000000] systemd[1]: Kernel panic - not syncing: quoted\n",
		linux + "[    1.000000] init[1]: segfault at 0 ip 000000000040180e sp 00007ffee81ec070 error 6\n",
		linux + "[    1.000000] Command line: x=BUG: panic=-1\n",
		linux + "BUG: unable to handle kernel paging request at ffff888fffff0000\n",
		linux + "[    1.000000] traps: test[7] general protection fault ip:401000 sp:7ff error:0 in test\n",
		linux + "[    1.000000] rcu: RCU calculated value of scheduler-enlistment delay is 25 jiffies.\n",
		linux + "[    1.000000] WARNING: this module is old\n",
		"",
		"\n\r\n\x00\x00",
	} {
		if got, err := Scan(strings.NewReader(text)); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %s", text, err, summary(got))
		}
	}
}

// TestUserspaceBetween: lines of userspace are no part of a report, do not end
// it, and a line that userspace began does not hide the kernel's.
func TestUserspaceBetween(t *testing.T) {
	text := "[    0.000000] Linux version 6.1.0\r\n" +
		"50%\x1b[2K\r\x1b[1;31mfail\x1b[0m[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000010\r\n" +
		"[    1.000001] RIP: 0010:bad_thing+0x5/0x7\r\n" +
		"hello from the test\r\n" +
		"[    1.000002] Call \x00Trace:\r\n" +
		"[    1.000003]  caller+0x1/0x2\r\n" +
		"and again\r\n" +
		"[    1.000004]  start+0x1/0x2\r\n" +
		"[    1.000005] eth0: link up\r\n" +
		"[    1.000006] Kernel panic - not syncing: at once\r\n"
	got, err := Scan(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Report{
		{Kind: KindOops, Title: "BUG: kernel NULL pointer dereference in bad_thing", Text: "[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000010\n" +
			"[    1.000001] RIP: 0010:bad_thing+0x5/0x7\n[    1.000002] Call Trace:\n[    1.000003]  caller+0x1/0x2\n[    1.000004]  start+0x1/0x2\n"},
		{Kind: KindPanic, Title: "kernel panic: at once", Text: "[    1.000006] Kernel panic - not syncing: at once\n", Fatal: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestGap: a report ends when the kernel was silent for long.
func TestGap(t *testing.T) {
	got, _ := Scan(strings.NewReader("[    1.000000] BUG: odd\n[    1.100000] more\n[    9.000000] something else\n"))
	if len(got) != 1 || got[0].Text != "[    1.000000] BUG: odd\n[    1.100000] more\n" {
		t.Errorf("%s", summary(got))
	}
}

func TestBounds(t *testing.T) {
	var b bytes.Buffer
	for i := range maxReports + 20 {
		fmt.Fprintf(&b, "[%5d.000000] BUG: number %d\n", i, i)
		for range maxReportLines + 10 {
			b.WriteString("x" + strings.Repeat("y", 250) + "\n")
		}
	}
	fmt.Fprintf(&b, "[  999.000000] Kernel panic - not syncing: %s\n", strings.Repeat("long ", 100000))
	got, err := Scan(&b)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != maxReports+1 {
		t.Errorf("%d reports", len(got))
	}
	last := got[len(got)-1]
	if !last.Fatal || len(last.Title) > maxTitle+40 || len(last.Text) > maxLine+1 {
		t.Errorf("the last one: %d bytes of title, %d of text", len(last.Title), len(last.Text))
	}
	for _, r := range got {
		if len(r.Text) > maxReportBytes+maxLine+1 {
			t.Errorf("%q has %d bytes", r.Title, len(r.Text))
		}
	}
}

func TestScanError(t *testing.T) {
	why := errors.New("disk gone")
	got, err := Scan(io.MultiReader(strings.NewReader("BUG: odd"), iotest.ErrReader(why)))
	if !errors.Is(err, why) || len(got) != 1 {
		t.Errorf("%v, %s", err, summary(got))
	}
}

func TestCause(t *testing.T) {
	oops, warn, hung := Report{Kind: KindOops, Title: "o"}, Report{Kind: KindWarning, Title: "w"}, Report{Kind: KindHung, Title: "h"}
	panics := func(s string) Report { return Report{Kind: KindPanic, Title: "kernel panic: " + s, Fatal: true} }
	for _, c := range []struct {
		in   []Report
		want string
	}{
		{nil, ""},
		{[]Report{warn, oops}, "w"},
		{[]Report{warn, oops, hung, panics("Fatal exception in interrupt")}, "o"},
		{[]Report{warn, panics("Attempted to kill init!")}, "kernel panic: Attempted to kill init!"},
		{[]Report{warn, hung, panics("hung_task: blocked tasks")}, "h"},
		{[]Report{oops, panics("VFS: Unable to mount root fs")}, "kernel panic: VFS: Unable to mount root fs"},
	} {
		if got, ok := Cause(c.in); got.Title != c.want || ok != (len(c.in) > 0) {
			t.Errorf("%v: got %q, want %q", c.in, got.Title, c.want)
		}
	}
}

// TestLogBytes: head, a line that counts what is missing, tail.
func TestLogBytes(t *testing.T) {
	for _, size := range []int{1, 7, 4096, 100000} {
		l := NewLog(0)
		var all []byte
		for i := 0; len(all) < 20000; i++ {
			all = fmt.Appendf(all, "line %d\n", i)
		}
		for i := 0; i < len(all); i += size {
			l.Write(all[i:min(i+size, len(all))])
			if i+size == 4096 && !bytes.Equal(l.Bytes(), all[:4096]) {
				t.Error("what fits is not whole")
			}
		}
		want := append([]byte(nil), all[:minLog/2]...)
		want = append(want, droppedLine(int64(len(all)-minLog))...)
		want = append(want, all[len(all)-minLog/2:]...)
		if got := l.Bytes(); !bytes.Equal(got, want) {
			t.Errorf("in writes of %d: %s", size, cmp.Diff(string(want), string(got)))
		}
	}
}

// TestLogDead: the channel closes with the panic's last line, or after a
// pause, or at the end; and nothing else closes it.
func TestLogDead(t *testing.T) {
	isDead := func(l *Log) bool {
		select {
		case <-l.Dead():
			return true
		default:
			return false
		}
	}
	const first, last = "[    1.000000] Kernel panic - not syncing: so\n[    1.000001] CPU: 0\n", "[    1.100000] ---[ end Kernel panic - not syncing: so ]---\n"

	l := NewLog(1 << 20)
	l.grace = time.Hour
	io.WriteString(l, "[    0.900000] BUG: odd\n"+first)
	if isDead(l) {
		t.Error("dead before the report's end")
	}
	if r := l.Reports(); len(r) != 2 || !r[1].Fatal {
		t.Errorf("while it arrives: %s", summary(r))
	}
	io.WriteString(l, last)
	if !isDead(l) {
		t.Error("not dead after the report's end")
	}

	l = NewLog(1 << 20)
	l.grace = time.Millisecond
	io.WriteString(l, first)
	<-l.Dead()
	io.WriteString(l, last)
	if r := l.Reports(); len(r) != 1 {
		t.Errorf("after a pause: %s", summary(r))
	}

	l = NewLog(1 << 20)
	l.grace = time.Hour
	io.WriteString(l, "[    1.000000] Kernel panic - not syncing: so")
	l.Close()
	if !isDead(l) || len(l.Reports()) != 1 {
		t.Errorf("at the end: %s", summary(l.Reports()))
	}
	l.Close()
	io.WriteString(l, "more")

	l = NewLog(1 << 20)
	io.WriteString(l, "[    1.000000] BUG: odd\n")
	l.Close()
	if isDead(l) {
		t.Error("dead of a bug")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext":            "plain\ttext",
		"\x1b[1;31mred\x1b[0m!":  "red!",
		"\x1b]0;title\x07text":   "text",
		"\x1b]0;title\x1b\\text": "text",
		"\x1b]unfinished":        "unfinished",
		"\x1b[12":                "",
		"\x1b[1\x01x":            "x",
		"a\x00b\x7fc\x08":        "abc",
		"\xff\xfe":               "\ufffd\ufffd",
		"ä\u0085":                "ä\ufffd",
		"\x1bcx\x1b":             "x",
	} {
		if got := Clean([]byte(in)); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}
