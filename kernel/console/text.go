package console

import (
	"strings"
)

// ended tells whether a message ends the report it stands in.
func ended(message string) bool {
	return strings.HasPrefix(message, "---[ end ") || strings.HasPrefix(message, "Rebooting in ")
}

// row is what stands around the sanitizers' reports.
const row = "=========="

// ruler tells whether a message is a line that stands above reports: a row,
// or the "cut here" of WARN and BUG.
func ruler(message string) bool {
	return strings.HasPrefix(message, row) || strings.HasPrefix(message, "------------[ cut here ]")
}

// inBody is what the lines of a report begin with from its call trace on;
// besides those, lines that begin with white space.
var inBody = lazy(`^(?:` + strings.Join([]string{
	`(?:R[A-Z0-9]{1,2}|E[A-Z]{2}|[C-GS]S|CR\d|DR\d|PKRU|CPU|EFLAGS): `, // registers
	`(?:pc|lr|sp|x\d\d?|pstate|head|anon flags|page_type) ?: ?`,
	`Code: `, `Call [Tt]race:`, `Modules linked in:`, `Hardware name:`, `Workqueue:`, `Stack:`, `Process `,
	`Tainted:`, `Not tainted`, `Last `, `Kernel Offset:`, `Kernel panic`, `note: `, `Sending NMI`, `NMI backtrace`,
	`rcu: `, `task:`, `Showing `, `---\[ end`, `Shutting down cpus`, `Rebooting in`, `Dumping ftrace`, `Memory Limit`,
	`The buggy `, `Allocated by`, `Freed by`, `Memory state`, `raw: `, `page`, `flags: `, `Read of size`, `Write of size`,
	`PGD `, `#PF`, `irq event`, `hardirqs `, `softirqs `, `Preemption disabled`, `INFO: lockdep`, `INFO: NMI`,
	`\[<[0-9a-f]`, `>`, `=+$`, `"echo`, `\? `, `<`, `\w+\+0x`,
}, "|") + `)`)

// body tells whether a message may be part of a report whose trace has begun.
func body(message string) bool {
	return message == "" || message[0] == ' ' || message[0] == '\t' || inBody().MatchString(message)
}

var (
	// RIP: 0010:crash_null+0x5/0x15 [crash]
	// RIP: 0010:[<ffffffff8135bd70>]  [<ffffffff8135bd70>] sysrq_handle_crash+0x10/0x20
	// IP: [<ffffffff8135bd70>] sysrq_handle_crash+0x10/0x20
	// EIP: 0060:[<c1234567>], EIP: foo+0x1/0x2, pc : foo+0x1/0x2
	ripLine = lazy(`^(?:RIP: 0010:|EIP: |IP: |pc : )(?:0060:)?(?:\[<[0-9a-f]+>\] *)*([A-Za-z_][\w.]*)\+0x`)

	// " foo+0x1/0x2 [mod]", " [<ffffffff81000000>] foo+0x1/0x2"; a "? " marks
	// what was only found lying on the stack.
	traceLine = lazy(`^ *(?:\[<[0-9a-f]+>\] *)?([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+`)

	accessLine = lazy(`^(Read|Write) of size \d+ at addr `)

	// Functions that report, or that wait, rather than being at fault.
	machinery = lazy(`^(?:_*dump_stack|show_stack|_*warn|report_|panic|print_|kasan_|_*kasan|_*asan_|die$|oops_|` +
		`_*schedule|schedule_|io_schedule|preempt_|_*might_|___might|_*cond_resched|dump_page|bad_page|lockdep_|lock_acquire|_*lock_acquire|` +
		`_*mutex_lock|rt_mutex|rwsem_|down_|down$|wait_for_|_*wait_for_|do_wait_for|bit_wait|_*wait_on_bit|out_of_line_wait|` +
		`_*raw_spin|msleep|native_|exc_|asm_|page_fault|rcu_|nmi_|trigger_|arch_|watchdog|sched_show|_*sysvec|apic_|smp_apic|_*irq_|hrtimer|_*hrtimer|` +
		`update_process_times|tick_|ret_from_|validate_chain)`)
)

// complete adds to a title what the report's text tells: the function it
// happened in, and for KASAN the kind of access. A function's suffixes that
// the compiler chose (.cold, .isra.0, .constprop.0) are left out.
func (p *pattern) complete(title, text string) string {
	rip, first, found := "", "", ""
	access := ""
	traced := false
	for raw := range strings.Lines(text) {
		m := strings.TrimRight(raw, "\n")
		if i := stamp().FindStringIndex(m); i != nil {
			m = m[i[1]:]
		}
		switch {
		case strings.HasPrefix(m, "Call Trace:"), strings.HasPrefix(m, "Call trace:"):
			traced = true
		case rip == "" && ripLine().MatchString(m):
			rip = function(ripLine().FindStringSubmatch(m)[1])
		case access == "" && accessLine().MatchString(m):
			access = accessLine().FindStringSubmatch(m)[1]
		case traced && traceLine().MatchString(m):
			f := function(traceLine().FindStringSubmatch(m)[1])
			if first == "" {
				first = f
			}
			if found == "" && !machinery().MatchString(f) {
				found = f
			}
		}
	}
	if found == "" {
		found = first
	}
	if p.kind == KindKASAN && access != "" {
		title = strings.Replace(title, " in ", " "+access+" in ", 1)
	}
	at := found
	if p.where == inRIP && rip != "" {
		at = rip
	}
	if p.where == nowhere || at == "" {
		return title
	}
	return title + " in " + at
}

func function(s string) string {
	name, _, _ := strings.Cut(s, ".")
	return name
}
