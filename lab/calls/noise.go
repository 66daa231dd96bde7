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

// writing are the calls that give a descriptor what the program says.
var writing = []string{"sendto", "sendmsg", "sendmmsg", "write", "writev", "pwrite64", "pwritev", "pwritev2"}

// sending are the calls in which also a structure is the program's.
var sending = append([]string{"connect", "bind", "execve", "execveat", "setsockopt"}, writing...)

// onFiles are other calls whose first argument is a descriptor.
var onFiles = []string{
	"fstat", "newfstatat", "fstatfs", "statx", "lseek", "ftruncate", "fallocate", "fsync", "fchmod", "fchown", "fchdir", "flock", "fcntl", "ioctl",
	"fgetxattr", "fsetxattr", "connect", "bind", "listen", "accept", "accept4", "shutdown", "setsockopt",
}

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
	message    = regexp.MustCompile(`\btype=([A-Z][A-Z0-9_]*)`)
	refused    = regexp.MustCompile(`\berror=(-[A-Z][A-Z0-9]*)`)
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
	if l.Name == "mmap" {
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

// wentWell begins the kind of an answer that is no error.
const wentWell = "ok "

// answer is the result, and the arguments with what the kernel wrote into them.
func (p *process) answer(l line, args string) reply {
	if l.Errno != "" {
		return reply{l.Errno, l.Errno} // what the kernel wrote into the arguments means nothing
	}
	kind := wentWell + refusal(l)
	fd := descriptor.FindString(l.args)
	switch {
	case slices.Contains(random, l.Name), slices.Contains(reading, l.Name) && passing.MatchString(p.paths[fd]):
		return reply{"ok", kind}
	case slices.Contains(numbers, l.Name):
		return reply{"ok " + args, kind}
	}
	result := l.Result + " " + l.Text
	for _, w := range words {
		result = w.is.ReplaceAllString(result, w.called)
	}
	return reply{result + " " + args, kind}
}

// refusal is the error in a message that was received: netlink's, in an
// acknowledgement.
func refusal(l line) string {
	if m := refused.FindStringSubmatch(l.args); m != nil && slices.Contains(reading, l.Name) {
		return m[1]
	}
	return ""
}

// short is an answer as a sentence has it.
func short(l line) string {
	if l.Errno != "" {
		return l.Errno
	}
	if why := refusal(l); why != "" {
		return l.Result + " with error=" + why
	}
	return l.Result
}

// about is what a call is about: the type of the message, or the file that is named,
// or that the descriptor was opened as.
func (p *process) about(l line) string {
	says := slices.Contains(writing, l.Name) || slices.Contains(reading, l.Name)
	if says {
		for _, m := range message.FindAllStringSubmatch(l.args, -1) {
			if m[1] != "NLMSG_ERROR" {
				return m[1]
			}
		}
	}
	for _, arg := range l.Args {
		if name := firstString(arg); name != "" && arg[0] == '"' && !says {
			return name
		}
	}
	if says || slices.Contains(onFiles, l.Name) {
		return p.paths[descriptor.FindString(l.args)]
	}
	return ""
}

// acknowledged is the error with which a message was acknowledged that the first call
// sent, where one of those behind it received that.
func acknowledged(calls []call) string {
	if !strings.HasPrefix(calls[0].name, "send") || !strings.HasPrefix(calls[0].kind, wentWell) {
		return ""
	}
	for _, c := range calls[1:] {
		if c.descriptor != calls[0].descriptor {
			continue
		}
		if why := strings.TrimPrefix(c.kind, wentWell); strings.HasPrefix(why, "-") {
			return why
		}
		if c.name == "close" || strings.HasPrefix(c.name, "send") {
			break
		}
	}
	return ""
}

// follow keeps what descriptors are.
func (p *process) follow(l line) {
	n, _, _ := strings.Cut(l.Result, " ")
	if _, err := strconv.ParseUint(n, 10, 31); err != nil || len(n) > 9 {
		return
	}
	switch l.Name {
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
