package console

import (
	"regexp"
	"strings"
	"sync"
)

// lazy compiles an expression when it is first used. This package is part of the
// binary that is PID 1 in guests, which uses none of them: to compile them all
// would cost every boot some milliseconds, tens of them under emulation.
func lazy(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// pattern knows the first line of a kind of report. The texts are those of the
// kernel's format strings; the sources are named beside them.
type pattern struct {
	kind    string
	has     string                // a part of every such line: cheaper than the expression
	re      func() *regexp.Regexp // on the message, without its stamp
	title   string                // with $1 … from re; "" for the message itself, normalised
	where   place                 // what completes the title
	fatal   bool
	follows bool // goes on with an open report rather than beginning one
	ends    bool // the report is this line alone
	ruled   bool // ends at a row of '='
}

// place says where the function is found that a title ends with.
type place int

const (
	nowhere place = iota
	inRIP         // the instruction pointer, else the call trace
	inTrace       // the call trace
)

var patterns = []pattern{
	// kernel/panic.c
	{kind: KindPanic, has: "Kernel panic - not syncing", re: lazy(`^Kernel panic - not syncing[^:]{0,40}: ?(.*)`), title: "kernel panic: $1", fatal: true},
	{kind: KindPanic, has: "end Kernel panic", re: lazy(`^---\[ end Kernel panic - not syncing: ?(.*?)(?: \]---)?$`), title: "kernel panic: $1", fatal: true, ends: true},
	// arch/x86/kernel/traps.c, arch/x86/mm/extable.c, arch/x86/kernel/doublefault_32.c
	{kind: KindPanic, has: "PANIC: double fault", re: lazy(`^(?:traps: )?PANIC: double fault`), title: "double fault", where: inRIP, fatal: true},
	{kind: KindPanic, has: "PANIC: early exception", re: lazy(`^PANIC: early exception`), title: "early exception", where: inRIP, fatal: true, ends: true},
	// arch/x86/boot/compressed/misc.c and error.c, lib/decompress_*.c
	{kind: KindBoot, has: "-- System halted", re: lazy(`^ *-- System halted`), title: "boot: $last", fatal: true, ends: true},
	{kind: KindBoot, has: "ecompression failed", re: lazy(`^Decompression failed`), title: "boot: decompression failed", fatal: true, ends: true},
	// SeaBIOS src/boot.c
	{kind: KindBoot, has: "No bootable device", re: lazy(`^No bootable device`), title: "boot: no bootable device", fatal: true, ends: true},

	// mm/kasan/report.c, mm/kfence/report.c, mm/kmsan/report.c, kernel/kcsan/report.c
	{kind: KindKASAN, has: "BUG: KASAN: ", re: lazy(`^BUG: KASAN: (.{1,80}?) in ([^ +]+)`), title: "KASAN: $1 in $2", ruled: true},
	{kind: KindKASAN, has: "BUG: KASAN: ", re: lazy(`^BUG: KASAN: (.{1,80})`), title: "KASAN: $1", ruled: true},
	{kind: KindKFENCE, has: "BUG: KFENCE: ", re: lazy(`^BUG: KFENCE: (.{1,80}?) in ([^ +]+)`), title: "KFENCE: $1 in $2", ruled: true},
	{kind: KindKFENCE, has: "BUG: KFENCE: ", re: lazy(`^BUG: KFENCE: (.{1,80})`), title: "KFENCE: $1", ruled: true},
	{kind: KindKMSAN, has: "BUG: KMSAN: ", re: lazy(`^BUG: KMSAN: (.{1,80}?) in ([^ +]+)`), title: "KMSAN: $1 in $2", ruled: true},
	{kind: KindKCSAN, has: "BUG: KCSAN: ", re: lazy(`^BUG: KCSAN: (.{1,80}?) in (.{1,200})`), title: "KCSAN: $1 in $2", ruled: true},
	// lib/ubsan.c
	{kind: KindUBSAN, has: "UBSAN: ", re: lazy(`^UBSAN: (.{1,80}?) in ([^ :]+)(?::\d+)*`), title: "UBSAN: $1 in $2", ruled: true},

	// kernel/locking/lockdep.c, kernel/rcu/update.c; up to 4.10 in the form "[ INFO: … ]"
	{kind: KindLockdep, has: "detected", re: lazy(`^(?:WARNING: |\[ (?:INFO|BUG): )((?:possible (?:circular|recursive|irq)|inconsistent|bad unlock|held lock).{0,80}?detected!?)`), title: "lockdep: $1", where: inTrace},
	{kind: KindLockdep, has: "lock", re: lazy(`^(?:WARNING: |\[ (?:INFO|BUG): )(inconsistent lock state|possible irq lock inversion.{0,60}|[A-Z]{4,10}-safe -> .{0,60}|held lock freed!|lock held when returning.{0,40}|.{0,40} still has locks held!?)`), title: "lockdep: $1", where: inTrace},
	{kind: KindLockdep, has: "suspicious", re: lazy(`^(?:WARNING: |\[ INFO: )suspicious RCU usage`), title: "lockdep: suspicious RCU usage", where: inTrace},

	// kernel/watchdog.c, kernel/watchdog_hld.c, kernel/workqueue.c
	{kind: KindLockup, has: "soft lockup", re: lazy(`^(?:NMI )?(?:watchdog: )?BUG: soft lockup`), title: "BUG: soft lockup", where: inRIP},
	{kind: KindLockup, has: "hard LOCKUP", re: lazy(`^(?:NMI )?(?:watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP`), title: "hard lockup", where: inRIP},
	{kind: KindLockup, has: "workqueue lockup", re: lazy(`^BUG: workqueue lockup`), title: "BUG: workqueue lockup"},
	// kernel/rcu/tree_stall.h; before 4.20 without "rcu: ", before 3.19 with a list in braces
	{kind: KindRCUStall, has: "stall", re: lazy(`^(?:rcu: )?INFO: [a-z_]{1,40} (?:self-)?detected (?:expedited )?stalls? on`), title: "INFO: rcu detected stall", where: inRIP},
	// kernel/hung_task.c
	{kind: KindHung, has: "blocked for more than", re: lazy(`^INFO: task .{1,80} blocked (?:in I/O wait )?for more than \d+ seconds`), title: "INFO: task hung", where: inTrace},

	// arch/x86/mm/fault.c: the first form since 5.1, the second before
	{kind: KindOops, has: "NULL pointer dereference", re: lazy(`^(?:BUG: kernel|BUG: unable to handle kernel|Unable to handle kernel) NULL pointer dereference`), title: "BUG: kernel NULL pointer dereference", where: inRIP},
	{kind: KindOops, has: "nable to handle", re: lazy(`^(?:BUG: u|U)nable to handle (?:page fault for address|kernel (?:paging|access|execute))`), title: "BUG: unable to handle page fault", where: inRIP},
	{kind: KindOops, has: "stack guard page", re: lazy(`^(?:BUG: )(?:[A-Z#]{1,10} )?stack guard page was hit`), title: "kernel stack overflow", where: inRIP},
	{kind: KindOops, has: "NX-protected page", re: lazy(`^kernel tried to execute NX-protected page`), title: "BUG: execution of an NX-protected page", where: inRIP},
	// arch/x86/kernel/dumpstack.c, __die: name, error code, counter; arm64's says "Internal error: "
	{kind: KindOops, has: " [#", re: lazy(`^(?:Internal error: |Oops: )*([A-Za-z][A-Za-z0-9 _-]{1,60}?)(?:, probably for [^:]{1,60})?: (?:0x)?[0-9a-f]{4,16} \[#\d+\]`), title: "$1", where: inRIP, follows: true},
	// lib/bug.c
	{kind: KindBug, has: "kernel BUG at", re: lazy(`^kernel BUG at ([^ ]+?):\d+!`), title: "kernel BUG", where: inRIP},
	// kernel/panic.c, __warn: since 6.18 "WARNING: file:line at function, CPU#0: comm/pid"
	{kind: KindWarning, has: "WARNING: ", re: lazy(`^WARNING: (?:CPU: \d+ PID: \d+ )?at [^ ]+:\d+ ([^ +]+)`), title: "WARNING in $1"},
	{kind: KindWarning, has: "WARNING: ", re: lazy(`^WARNING: [^ ]+:\d+ at ([^ +,]+)`), title: "WARNING in $1"},

	// kernel/sched/core.c
	{kind: KindBug, has: "while atomic", re: lazy(`^BUG: scheduling while atomic`), title: "BUG: scheduling while atomic", where: inTrace},
	{kind: KindBug, has: "sleeping function", re: lazy(`^BUG: sleeping function called from invalid context`), title: "BUG: sleeping function called from invalid context", where: inTrace},
	// mm/page_alloc.c
	{kind: KindBug, has: "Bad page state", re: lazy(`^BUG: Bad page state`), title: "BUG: Bad page state", where: inTrace},
	{kind: KindBug, has: "BUG: ", re: lazy(`^BUG: (.*)`)},
}

// match finds the pattern that a message begins a report with, and the title
// so far. last is the line before, for those that only say that all is over.
func match(message, last string) (*pattern, string) {
	for i := range patterns {
		p := &patterns[i]
		if !strings.Contains(message, p.has) {
			continue
		}
		m := p.re().FindStringSubmatchIndex(message)
		if m == nil {
			continue
		}
		if p.title == "" {
			return p, normalise(message)
		}
		title := strings.ReplaceAll(p.title, "$last", strings.ReplaceAll(last, "$", ""))
		return p, normalise(string(p.re().ExpandString(nil, title, message, m)))
	}
	return nil, ""
}

var (
	exitcode = lazy(` ?exitcode=0x[0-9a-f]+`)
	pointer  = lazy(`\b(?:0x[0-9a-fA-F]+|[0-9a-f]{8,16})\b`)
	taskPID  = lazy(`\b([A-Za-z][\w.-]*)/\d+\b`)
	offset   = lazy(`\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?`)
	suffix   = lazy(`\.(?:isra|constprop|part|cold)(?:\.\d+)*\b`)
	number   = lazy(`\b\d+\b`)
	blanks   = lazy(`\s+`)
)

const maxTitle = 160

// normalise takes out of a title what differs from one boot to the next.
func normalise(s string) string {
	s = exitcode().ReplaceAllString(s, "")
	s = offset().ReplaceAllString(s, "")
	s = suffix().ReplaceAllString(s, "")
	s = pointer().ReplaceAllString(s, "ADDR")
	s = taskPID().ReplaceAllString(s, "$1")
	s = number().ReplaceAllString(s, "NUM")
	s = strings.TrimSpace(blanks().ReplaceAllString(s, " "))
	if len(s) > maxTitle {
		s = strings.ToValidUTF8(s[:maxTitle], "")
	}
	return s
}

// consequences are the panics that only follow from a report before them, and
// the kinds that those are of.
var consequences = []struct{ title, kinds string }{
	{"Fatal exception", "oops bug kasan"},                 // oops_end
	{"Attempted to kill init", "oops bug kasan"},          // an oops in PID 1
	{"Attempted to kill the idle task", "oops bug kasan"}, //
	{"panic_on_warn set", "warning kasan kfence ubsan kmsan kcsan lockdep bug"},
	{"panic_on_oops", "oops bug"},
	{"softlockup: hung tasks", "lockup"},
	{"hard LOCKUP", "lockup"},
	{"Hard LOCKUP", "lockup"},
	{"hung_task: blocked tasks", "hung"},
	{"RCU Stall", "rcu-stall"},
}

// follows tells whether a fatal report only follows from an earlier one.
func follows(fatal, earlier Report) bool {
	for _, c := range consequences {
		if strings.Contains(fatal.Title, c.title) {
			return strings.Contains(" "+c.kinds+" ", " "+earlier.Kind+" ")
		}
	}
	return false
}
