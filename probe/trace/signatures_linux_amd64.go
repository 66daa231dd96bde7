package trace

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// signatures are the kinds of the arguments of system calls (syscalls(2)); a call
// that is not here has six numbers in hexadecimal. The kinds:
//
//	i l u x m  a number: int, signed, unsigned, hexadecimal, a file's mode in octal
//	p D k      an address, the descriptor of a folder, a signal
//	s v e      a string, strings, an environment
//	w r        bytes that go in (as many as the next argument says) and come out (as the result says)
//	A a L      an address of a socket that goes in, that comes out, the length of one
//	h H        a struct msghdr that goes in, comes out
//	t P W      a struct stat, two descriptors, a status of a process, that come out
//
// and the names of sets.
var signatures = map[string]string{
	"read": "i r u", "write": "i w u", "open": "s open m", "close": "i", "stat": "s t", "fstat": "i t", "lstat": "s t",
	"poll": "p u i", "lseek": "i l i", "mmap": "p u prot map i x", "mprotect": "p u prot", "munmap": "p u", "brk": "p",
	"rt_sigaction": "k p p u", "rt_sigprocmask": "i p p u", "rt_sigreturn": "", "ioctl": "i ioctl x",
	"pread64": "i r u l", "pwrite64": "i w u l", "readv": "i p i", "writev": "i p i", "access": "s access", "pipe": "P",
	"select": "i p p p p", "sched_yield": "", "mremap": "p u u x p", "msync": "p u x", "mincore": "p u p", "madvise": "p u i",
	"shmget": "x u x", "shmat": "i p x", "shmctl": "i i p", "shmdt": "p", "dup": "i", "dup2": "i i", "pause": "", "nanosleep": "p p",
	"getitimer": "i p", "alarm": "u", "setitimer": "i p p", "getpid": "", "sendfile": "i i p u",
	"socket": "family socktype i", "connect": "i A u", "accept": "i a L", "sendto": "i w u msg A u", "recvfrom": "i r u msg a L",
	"sendmsg": "i h msg", "recvmsg": "i H msg", "sendmmsg": "i p u msg", "recvmmsg": "i p u msg p", "shutdown": "i i", "bind": "i A u",
	"listen": "i i", "getsockname": "i a L", "getpeername": "i a L", "socketpair": "family socktype i P",
	"setsockopt": "i i i p u", "getsockopt": "i i i p p", "clone": "clone p p p p", "clone3": "p u", "fork": "", "vfork": "", "execve": "s v e",
	"exit": "i", "wait4": "i W x p", "kill": "i k", "uname": "p", "semget": "x i x", "semop": "i p u", "semctl": "i i i x",
	"fcntl": "i fcntl x", "flock": "i x", "fsync": "i", "fdatasync": "i", "truncate": "s l", "ftruncate": "i l",
	"getdents": "i p u", "getcwd": "p u", "chdir": "s", "fchdir": "i", "rename": "s s", "mkdir": "s m", "rmdir": "s", "creat": "s m",
	"link": "s s", "unlink": "s", "symlink": "s s", "readlink": "s r u", "chmod": "s m", "fchmod": "i m", "chown": "s i i", "fchown": "i i i",
	"lchown": "s i i", "umask": "m", "gettimeofday": "p p", "getrlimit": "i p", "getrusage": "i p", "sysinfo": "p", "times": "p",
	"ptrace": "i i x x", "getuid": "", "syslog": "i p i", "getgid": "", "setuid": "i", "setgid": "i", "geteuid": "", "getegid": "",
	"setpgid": "i i", "getppid": "", "getpgrp": "", "setsid": "", "setreuid": "i i", "setregid": "i i", "getgroups": "i p", "setgroups": "i p",
	"setresuid": "i i i", "getresuid": "p p p", "setresgid": "i i i", "getresgid": "p p p", "getpgid": "i", "setfsuid": "i", "setfsgid": "i",
	"getsid": "i", "capget": "p p", "capset": "p p", "rt_sigpending": "p u", "rt_sigtimedwait": "p p p u", "rt_sigsuspend": "p u",
	"sigaltstack": "p p", "utime": "s p", "mknod": "s m x", "personality": "x", "statfs": "s p", "fstatfs": "i p", "getpriority": "i i",
	"setpriority": "i i i", "sched_setparam": "i p", "sched_getparam": "i p", "sched_setscheduler": "i i p", "sched_getscheduler": "i",
	"mlock": "p u", "munlock": "p u", "mlockall": "x", "munlockall": "", "vhangup": "", "pivot_root": "s s", "prctl": "i x x x x",
	"arch_prctl": "x p", "setrlimit": "i p", "chroot": "s", "sync": "", "mount": "s s s x p", "umount2": "s x", "swapon": "s x", "reboot": "x x x p",
	"sethostname": "s u", "setdomainname": "s u", "gettid": "", "readahead": "i l u", "setxattr": "s s p u x", "lsetxattr": "s s p u x",
	"fsetxattr": "i s p u x", "getxattr": "s s r u", "lgetxattr": "s s r u", "fgetxattr": "i s r u", "listxattr": "s p u", "llistxattr": "s p u",
	"flistxattr": "i p u", "removexattr": "s s", "lremovexattr": "s s", "fremovexattr": "i s", "tkill": "i k", "time": "p", "futex": "p x u p p x",
	"sched_setaffinity": "i u p", "sched_getaffinity": "i u p", "epoll_create": "i", "getdents64": "i p u", "set_tid_address": "p",
	"restart_syscall": "", "fadvise64": "i l u i", "timer_create": "i p p", "clock_settime": "i p", "clock_gettime": "i p", "clock_getres": "i p",
	"clock_nanosleep": "i x p p", "exit_group": "i", "epoll_wait": "i p i i", "epoll_ctl": "i i i p", "tgkill": "i i k", "utimes": "s p",
	"waitid": "i i p x p", "add_key": "s s p u i", "request_key": "s s s i", "keyctl": "i x x x x", "inotify_init": "", "inotify_add_watch": "i s x",
	"openat": "D s open m", "mkdirat": "D s m", "mknodat": "D s m x", "fchownat": "D s i i at", "newfstatat": "D s t at", "unlinkat": "D s at",
	"renameat": "D s D s", "linkat": "D s D s at", "symlinkat": "s D s", "readlinkat": "D s r u", "fchmodat": "D s m", "faccessat": "D s access",
	"pselect6": "i p p p p p", "ppoll": "p u p p u", "unshare": "clone", "set_robust_list": "p u", "get_robust_list": "i p p",
	"splice": "i p i p u x", "tee": "i i u x", "utimensat": "D s p at", "epoll_pwait": "i p i i p u", "signalfd": "i p u", "timerfd_create": "i x",
	"eventfd": "u", "fallocate": "i x l l", "timerfd_settime": "i x p p", "accept4": "i a L socktype", "signalfd4": "i p u x", "eventfd2": "u x",
	"epoll_create1": "x", "dup3": "i i open", "pipe2": "P open", "inotify_init1": "x", "preadv": "i p u u u", "pwritev": "i p u u u",
	"perf_event_open": "p i i i x", "prlimit64": "i i p p", "name_to_handle_at": "D s p p at", "syncfs": "i", "setns": "i clone",
	"getcpu": "p p p", "process_vm_readv": "i p u p u x", "kcmp": "i i i u u", "finit_module": "i s x", "renameat2": "D s D s x",
	"seccomp": "u x p", "getrandom": "p u x", "memfd_create": "s x", "bpf": "i p u", "execveat": "D s v e at", "membarrier": "i x i",
	"copy_file_range": "i p i p u x", "statx": "D s at x p", "rseq": "p x x x", "pidfd_send_signal": "i k p x", "pidfd_open": "i x",
	"close_range": "u u x", "openat2": "D s p u", "faccessat2": "D s access at", "epoll_pwait2": "i p i p p u", "fchmodat2": "D s m at",
}

// A set has names for bits, and for the values of the bits below mask, which are no
// flags: O_RDWR, AF_INET.
type set struct {
	prefix string
	mask   uint64
	values []value
	bits   []value
}

type value struct {
	n    uint64
	name string
}

func (s set) text(v uint64) string {
	var names []string
	if s.mask != 0 {
		low := v & s.mask
		v &^= s.mask
		name := ""
		for _, e := range s.values {
			if e.n == low {
				name = e.name
			}
		}
		switch {
		case name != "":
			names = append(names, s.prefix+name)
		case low != 0 || v == 0 || len(s.values) > 0:
			names = append(names, fmt.Sprintf("%#x", low))
		}
	}
	for _, e := range s.bits {
		if e.n != 0 && v&e.n == e.n {
			names = append(names, s.prefix+e.name)
			v &^= e.n
		}
	}
	if v != 0 {
		names = append(names, fmt.Sprintf("%#x", v))
	}
	if len(names) == 0 {
		return "0"
	}
	return strings.Join(names, "|")
}

// sets are the flags and numbers that have names, those with several bits first.
// ioctl's are of asm-generic/ioctls.h.
var sets = map[string]set{
	"open": {"O_", unix.O_ACCMODE, []value{{unix.O_RDONLY, "RDONLY"}, {unix.O_WRONLY, "WRONLY"}, {unix.O_RDWR, "RDWR"}}, []value{
		{unix.O_TMPFILE, "TMPFILE"}, {unix.O_SYNC, "SYNC"}, {unix.O_CREAT, "CREAT"}, {unix.O_EXCL, "EXCL"}, {unix.O_NOCTTY, "NOCTTY"}, {unix.O_TRUNC, "TRUNC"},
		{unix.O_APPEND, "APPEND"}, {unix.O_NONBLOCK, "NONBLOCK"}, {unix.O_DSYNC, "DSYNC"}, {unix.O_ASYNC, "ASYNC"}, {unix.O_DIRECT, "DIRECT"},
		{0x8000, "LARGEFILE"}, {unix.O_DIRECTORY, "DIRECTORY"}, {unix.O_NOFOLLOW, "NOFOLLOW"}, {unix.O_NOATIME, "NOATIME"}, {unix.O_CLOEXEC, "CLOEXEC"}, {unix.O_PATH, "PATH"}}},
	"prot": {"PROT_", 0xf, []value{{0, "NONE"}, {1, "READ"}, {2, "WRITE"}, {3, "READ|PROT_WRITE"}, {4, "EXEC"}, {5, "READ|PROT_EXEC"}, {6, "WRITE|PROT_EXEC"}, {7, "READ|PROT_WRITE|PROT_EXEC"}}, []value{
		{unix.PROT_GROWSDOWN, "GROWSDOWN"}}},
	"map": {"MAP_", 0xf, []value{{1, "SHARED"}, {2, "PRIVATE"}, {3, "SHARED_VALIDATE"}}, []value{{unix.MAP_FIXED, "FIXED"}, {unix.MAP_ANONYMOUS, "ANONYMOUS"}, {unix.MAP_GROWSDOWN, "GROWSDOWN"},
		{unix.MAP_DENYWRITE, "DENYWRITE"}, {unix.MAP_EXECUTABLE, "EXECUTABLE"}, {unix.MAP_LOCKED, "LOCKED"}, {unix.MAP_NORESERVE, "NORESERVE"}, {unix.MAP_POPULATE, "POPULATE"},
		{unix.MAP_NONBLOCK, "NONBLOCK"}, {unix.MAP_STACK, "STACK"}, {unix.MAP_HUGETLB, "HUGETLB"}, {unix.MAP_FIXED_NOREPLACE, "FIXED_NOREPLACE"}}},
	"clone": {"", 0, nil, []value{{unix.CLONE_VM, "CLONE_VM"}, {unix.CLONE_FS, "CLONE_FS"}, {unix.CLONE_FILES, "CLONE_FILES"}, {unix.CLONE_SIGHAND, "CLONE_SIGHAND"},
		{unix.CLONE_PTRACE, "CLONE_PTRACE"}, {unix.CLONE_VFORK, "CLONE_VFORK"}, {unix.CLONE_PARENT, "CLONE_PARENT"}, {unix.CLONE_THREAD, "CLONE_THREAD"}, {unix.CLONE_NEWNS, "CLONE_NEWNS"},
		{unix.CLONE_SYSVSEM, "CLONE_SYSVSEM"}, {unix.CLONE_SETTLS, "CLONE_SETTLS"}, {unix.CLONE_PARENT_SETTID, "CLONE_PARENT_SETTID"}, {unix.CLONE_CHILD_CLEARTID, "CLONE_CHILD_CLEARTID"},
		{unix.CLONE_CHILD_SETTID, "CLONE_CHILD_SETTID"}, {unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"}, {unix.CLONE_NEWUTS, "CLONE_NEWUTS"}, {unix.CLONE_NEWIPC, "CLONE_NEWIPC"},
		{unix.CLONE_NEWUSER, "CLONE_NEWUSER"}, {unix.CLONE_NEWPID, "CLONE_NEWPID"}, {unix.CLONE_NEWNET, "CLONE_NEWNET"}, {unix.CLONE_IO, "CLONE_IO"}, {uint64(unix.SIGCHLD), "SIGCHLD"}}},
	"access": {"", 7, []value{{0, "F_OK"}, {1, "X_OK"}, {2, "W_OK"}, {3, "W_OK|X_OK"}, {4, "R_OK"}, {5, "R_OK|X_OK"}, {6, "R_OK|W_OK"}, {7, "R_OK|W_OK|X_OK"}}, nil},
	"at": {"AT_", 0, nil, []value{{unix.AT_SYMLINK_NOFOLLOW, "SYMLINK_NOFOLLOW"}, {unix.AT_REMOVEDIR, "REMOVEDIR"}, {unix.AT_SYMLINK_FOLLOW, "SYMLINK_FOLLOW"},
		{unix.AT_NO_AUTOMOUNT, "NO_AUTOMOUNT"}, {unix.AT_EMPTY_PATH, "EMPTY_PATH"}, {unix.AT_STATX_FORCE_SYNC, "STATX_FORCE_SYNC"}, {unix.AT_STATX_DONT_SYNC, "STATX_DONT_SYNC"}}},
	"msg": {"MSG_", 0, nil, []value{{unix.MSG_OOB, "OOB"}, {unix.MSG_PEEK, "PEEK"}, {unix.MSG_DONTROUTE, "DONTROUTE"}, {unix.MSG_CTRUNC, "CTRUNC"}, {unix.MSG_TRUNC, "TRUNC"},
		{unix.MSG_DONTWAIT, "DONTWAIT"}, {unix.MSG_EOR, "EOR"}, {unix.MSG_WAITALL, "WAITALL"}, {unix.MSG_NOSIGNAL, "NOSIGNAL"}, {unix.MSG_MORE, "MORE"}, {unix.MSG_CMSG_CLOEXEC, "CMSG_CLOEXEC"}}},
	"family": {"AF_", 0xffff, []value{{unix.AF_UNSPEC, "UNSPEC"}, {unix.AF_UNIX, "UNIX"}, {unix.AF_INET, "INET"}, {unix.AF_INET6, "INET6"}, {unix.AF_NETLINK, "NETLINK"},
		{unix.AF_PACKET, "PACKET"}, {unix.AF_ALG, "ALG"}, {unix.AF_VSOCK, "VSOCK"}}, nil},
	"socktype": {"SOCK_", 0xf, []value{{unix.SOCK_STREAM, "STREAM"}, {unix.SOCK_DGRAM, "DGRAM"}, {unix.SOCK_RAW, "RAW"}, {unix.SOCK_SEQPACKET, "SEQPACKET"}}, []value{
		{unix.SOCK_CLOEXEC, "CLOEXEC"}, {unix.SOCK_NONBLOCK, "NONBLOCK"}}},
	"fcntl": {"F_", 0xffff, []value{{unix.F_DUPFD, "DUPFD"}, {unix.F_GETFD, "GETFD"}, {unix.F_SETFD, "SETFD"}, {unix.F_GETFL, "GETFL"}, {unix.F_SETFL, "SETFL"}, {unix.F_GETLK, "GETLK"},
		{unix.F_SETLK, "SETLK"}, {unix.F_SETLKW, "SETLKW"}, {unix.F_SETOWN, "SETOWN"}, {unix.F_DUPFD_CLOEXEC, "DUPFD_CLOEXEC"}, {unix.F_OFD_SETLK, "OFD_SETLK"}, {unix.F_ADD_SEALS, "ADD_SEALS"}, {unix.F_GET_SEALS, "GET_SEALS"}}, nil},
	"ioctl": {"", 0xffffffff, []value{{unix.TCGETS, "TCGETS"}, {unix.TCSETS, "TCSETS"}, {unix.TCSETSW, "TCSETSW"}, {unix.TIOCGWINSZ, "TIOCGWINSZ"}, {unix.TIOCSWINSZ, "TIOCSWINSZ"},
		{unix.TIOCGPGRP, "TIOCGPGRP"}, {unix.TIOCSPGRP, "TIOCSPGRP"}, {unix.TIOCSCTTY, "TIOCSCTTY"}, {unix.TIOCNOTTY, "TIOCNOTTY"}, {unix.TIOCGPTN, "TIOCGPTN"}, {unix.TIOCINQ, "FIONREAD"},
		{0x5421, "FIONBIO"}, {0x5451, "FIOCLEX"}, {unix.FICLONE, "FICLONE"}, {unix.SIOCGIFFLAGS, "SIOCGIFFLAGS"}, {unix.SIOCGIFINDEX, "SIOCGIFINDEX"}, {unix.BLKGETSIZE64, "BLKGETSIZE64"}}, nil},
}
