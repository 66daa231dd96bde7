package calls

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// timing are the calls whose number depends on the time and on other threads.
var timing = []string{
	"futex", "sched_yield", "nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "time", "restart_syscall",
	"rt_sigreturn", "tgkill", "epoll_wait", "epoll_pwait", "madvise",
}

// numbers are the calls whose result, when they go well, is an address, a process or
// a descriptor, or another number that says nothing.
var numbers = []string{
	"brk", "mmap", "mremap", "shmat", "getpid", "gettid", "getppid", "getpgrp", "getpgid", "getsid", "setsid", "set_tid_address",
	"fork", "vfork", "clone", "clone3", "wait4", "waitid", "times",
	"open", "openat", "openat2", "creat", "socket", "accept", "accept4", "dup", "dup2", "dup3", "fcntl", "epoll_create", "epoll_create1",
	"eventfd", "eventfd2", "timerfd_create", "signalfd4", "memfd_create", "inotify_init", "inotify_init1", "pidfd_open",
}

// random are the calls that write what is different in every run, or in every kernel.
var random = []string{"getrandom", "uname", "sysinfo", "getrusage", "sched_getaffinity", "clock_getres", "statfs", "fstatfs"}

// reading are the calls that read from their first argument, a descriptor: all else
// in them is the kernel's answer.
var reading = []string{"read", "pread64", "readv", "preadv", "preadv2", "recvfrom", "recvmsg", "recvmmsg", "getdents", "getdents64", "getsockname", "getpeername", "getsockopt"}

// looking are the calls that the kernel answers behind the first string.
var looking = []string{
	"stat", "lstat", "newfstatat", "fstatat64", "statx", "statfs", "readlink", "readlinkat",
	"getxattr", "lgetxattr", "listxattr", "llistxattr",
}

// sending are the calls in which also a structure is the program's.
var sending = []string{"sendto", "sendmsg", "sendmmsg", "write", "writev", "pwrite64", "connect", "bind", "execve", "execveat", "setsockopt"}

// passing are the files of /proc and /dev that read differently each time, or with
// each kernel.
var passing = regexp.MustCompile(`^/dev/u?random$|^/proc/(self/|thread-self/|[0-9]+/)?(stat|statm|status|maps|smaps|sched|schedstat|uptime|loadavg|meminfo|version|cpuinfo|interrupts|vmstat|sys/kernel/random/.*)$|^/sys/devices/system/cpu/`)

// words stand for what changes from run to run.
var words = []struct {
	is     *regexp.Regexp
	called string
}{
	{regexp.MustCompile(`\b0x[0-9a-f]+\b`), "ADDRESS"},
	{regexp.MustCompile(`\b(st_ino|st_dev|st_[amc]time(?:_nsec)?|stx_ino|stx_mnt_id|stx_[abmc]time|d_ino|d_off|tv_sec|tv_u?sec|tv_nsec|nl_pid|nlmsg_pid|nlmsg_seq|si_pid|si_[us]time|pid|seq)=(makedev\([^)]*\)|\{[^}]*\}|-?[0-9]+)( /\* [^*]* \*/)?`), "$1=N"},
	{regexp.MustCompile(`\[[0-9]+(, [0-9]+)*\]`), "[N]"},
	{regexp.MustCompile(`/proc/[0-9]+\b`), "/proc/N"},
	{regexp.MustCompile(`\b[0-9]{2}:[0-9]{2}:[0-9]{2}\b`), "TIME"},
	{regexp.MustCompile(`\b([A-Za-z_.-]+)\[[0-9]+\]`), "$1[PID]"},
}

var (
	descriptor = regexp.MustCompile(`^[0-9]+\b`)
	mapped     = regexp.MustCompile(`, [0-9]+, (\S+)$`) // mmap's descriptor
	structure  = regexp.MustCompile(`[\[{].*[\]}]`)
	quoted     = regexp.MustCompile(`"(\\.|[^"\\])*"`)
)

// describe gives the arguments with words for what changes from run to run: for a
// descriptor what it was opened as, where that was seen.
func (p *process) describe(l line) string {
	args := l.args
	if n := descriptor.FindString(args); n != "" {
		args = "<" + p.paths[n] + ">" + args[len(n):]
	}
	if l.name == "mmap" {
		args = mapped.ReplaceAllString(args, ", FD, $1")
	}
	for _, w := range words {
		args = w.is.ReplaceAllString(args, w.called)
	}
	return args
}

// given is of the arguments what the program gave.
func given(name, args string) string {
	switch {
	case slices.Contains(random, name) && !slices.Contains(looking, name):
		return ""
	case slices.Contains(reading, name):
		first, _, _ := strings.Cut(args, ", ")
		return first
	case slices.Contains(looking, name):
		if at := quoted.FindStringIndex(args); at != nil {
			return args[:at[1]]
		}
		first, _, _ := strings.Cut(args, ", ")
		return first
	case slices.Contains(sending, name):
		return args
	}
	return structure.ReplaceAllString(args, "{}")
}

// answer is the result, and the arguments with what the kernel wrote into them.
func (p *process) answer(l line, args string) string {
	failed := strings.HasPrefix(l.result, "-1 ")
	if failed {
		return l.result // what the kernel wrote into the arguments means nothing
	}
	fd := descriptor.FindString(l.args)
	switch {
	case slices.Contains(random, l.name), slices.Contains(reading, l.name) && passing.MatchString(p.paths[fd]):
		return "ok"
	case slices.Contains(numbers, l.name):
		return "ok " + args
	}
	result := l.result
	for _, w := range words {
		result = w.is.ReplaceAllString(result, w.called)
	}
	return result + " " + args
}

// follow keeps what descriptors are.
func (p *process) follow(l line) {
	n, _, _ := strings.Cut(l.result, " ")
	if _, err := strconv.ParseUint(n, 10, 31); err != nil || len(n) > 9 {
		return
	}
	switch l.name {
	case "open", "openat", "openat2", "creat":
		p.paths[n] = firstString(l.args)
	case "socket":
		p.paths[n] = "socket " + l.args
	case "close":
		delete(p.paths, l.args)
	case "dup", "dup2", "dup3":
		p.paths[n] = p.paths[descriptor.FindString(l.args)]
	}
}

// firstString is the first string of arguments, as it is written, without its quotes.
func firstString(args string) string {
	return strings.Trim(quoted.FindString(args), `"`)
}
