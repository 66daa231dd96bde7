//go:build linux

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// File descriptors that the agent gives to the stage, besides the command's
// own three.
const (
	planFD   = 3 // the plan, until end of file
	reportFD = 4 // reports back, until exec closes it
	logFD    = 5 // the socket for /dev/log
	stageFDs = 6
)

// A report is what the stage says to the agent, one JSON value each.
type report struct {
	Note  string `json:"note,omitempty"`
	Error string `json:"error,omitempty"` // the last word: there will be no container
	Exec  bool   `json:"exec,omitempty"`  // the last word before exec
}

// stage is the container's first process: in the namespaces that the agent
// made, it makes the container's surroundings and then execs the command, which
// so is the container's PID 1. It never returns.
func stage() {
	// Capabilities and users are the thread's, and execve keeps this one's.
	runtime.LockOSThread()
	for fd := planFD; fd < stageFDs; fd++ {
		unix.CloseOnExec(fd)
	}
	reports := json.NewEncoder(os.NewFile(reportFD, "report"))
	s := stager{report: func(r report) { _ = reports.Encode(r) }}
	defer func() {
		if p := recover(); p != nil {
			s.report(report{Error: fmt.Sprintf("the container's stage panicked: %v", p)})
			unix.Exit(1)
		}
	}()
	if err := s.run(); err != nil {
		s.report(report{Error: err.Error()})
	}
	unix.Exit(1)
}

type stager struct {
	plan
	report func(report)
}

func (s *stager) note(format string, args ...any) {
	s.report(report{Note: fmt.Sprintf(format, args...)})
}

// run returns only with an error.
func (s *stager) run() error {
	// The end of the plan also says that we are in our control group.
	data, err := io.ReadAll(os.NewFile(planFD, "plan"))
	if err == nil {
		err = json.Unmarshal(data, &s.plan)
	}
	if err != nil {
		return fmt.Errorf("read the container's plan: %w", err)
	}
	process := s.Config.Process
	if err := s.enter(); err != nil {
		return err
	}
	u, err := resolveUser(process.User, "/etc/passwd", "/etc/group")
	if err != nil {
		return err
	}
	if getenv(process.Env, "HOME") == "" {
		process.Env = append(process.Env, "HOME="+u.home)
	}
	if err := s.limits(); err != nil {
		return err
	}
	return s.exec(u)
}

// enter makes the container's surroundings and makes its root ours.
func (s *stager) enter() error {
	unix.Umask(0)
	if s.Guest != "" {
		return s.enterGuest()
	}
	if s.CgroupNS {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("make the cgroup namespace: %w", err)
		}
	}
	if s.UTSNS {
		if err := unix.Sethostname([]byte(s.Config.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", s.Config.Hostname, err)
		}
		if d := s.Config.Domainname; d != "" {
			if err := unix.Setdomainname([]byte(d)); err != nil {
				return fmt.Errorf("set domain name %q: %w", d, err)
			}
		}
	}
	// That there is no network at all has been said.
	if err := loopbackUp(); err != nil && !errors.Is(err, unix.ENOSYS) {
		s.note("bring up the loopback interface: %v", lacking(err, "CONFIG_INET"))
	}
	old, err := pivot(s.Rootfs)
	if err != nil {
		return err
	}
	// From here on absolute paths are the container's, so that no link in its
	// image leads out of it, and relative ones the agent's.
	if err := unix.Fchdir(old); err != nil {
		return fmt.Errorf("enter the old root: %w", err)
	}
	for _, m := range s.Config.Mounts {
		if err := s.mount(m); err != nil {
			return fmt.Errorf("mount %s in the container: %w", m.Destination, err)
		}
	}
	if err := s.makeDevices(s.Config.Linux.Devices); err != nil {
		return err
	}
	if s.AllDevices {
		if err := s.copyDevices("dev"); err != nil {
			return err
		}
	}
	if s.Syslog {
		if err := bindLog(logFD, "/dev/log"); err != nil {
			s.note("syslog is not captured: make /dev/log: %v", err)
		}
	}
	for key, value := range s.Config.Linux.Sysctl {
		if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0); err != nil {
			s.note("set sysctl %s: %v", key, err)
		}
	}
	if err := s.etcFiles(); err != nil {
		return err
	}
	// Made as by mkdir -p, with the mode that Docker gives it.
	if err := os.MkdirAll(s.Config.Process.Cwd, 0o755); err != nil {
		return fmt.Errorf("make working directory: %w", err)
	}
	if err := protect(s.Config.Linux.MaskedPaths, s.Config.Linux.ReadonlyPaths); err != nil {
		return err
	}
	if n := s.Config.Process.OOMScoreAdj; n != nil {
		if err := os.WriteFile("/proc/self/oom_score_adj", fmt.Append(nil, *n), 0); err != nil {
			s.note("set oom_score_adj: %v", err)
		}
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the container's root: %w", err)
	}
	if s.Config.Root != nil && s.Config.Root.Readonly {
		if err := remount("/", unix.MS_RDONLY); err != nil {
			return fmt.Errorf("make the container's root read-only: %w", err)
		}
	}
	return nil
}

// etcFiles writes the files that a container's engine provides when the image
// has none, or empty ones. resolv.conf is not among them: there is no network.
func (s *stager) etcFiles() error {
	host := s.Config.Hostname
	for path, content := range map[string]string{
		"/etc/hostname": host + "\n",
		"/etc/hosts":    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" + host + "\n",
	} {
		if st, err := os.Lstat(path); err == nil && (st.Size() > 0 || !st.Mode().IsRegular()) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
	}
	return nil
}

// limits sets what the command inherits besides its user.
func (s *stager) limits() error {
	process := s.Config.Process
	for _, r := range process.Rlimits {
		n, ok := rlimits[r.Type]
		if !ok {
			return fmt.Errorf("set resource limit: %q is unknown", r.Type)
		}
		if err := unix.Setrlimit(n, &unix.Rlimit{Cur: r.Soft, Max: r.Hard}); err != nil {
			return fmt.Errorf("set resource limit %s to %d:%d: %w", r.Type, r.Soft, r.Hard, err)
		}
	}
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("make a session: %w", err)
	}
	// Keys must not be those of the agent; a kernel without keys has none.
	_, _ = unix.KeyctlJoinSessionKeyring("lab")
	umask := 0o022
	if m := process.User.Umask; m != nil {
		umask = int(*m)
	}
	unix.Umask(umask)
	if s.Terminal != nil {
		if !s.Terminal.TTY {
			return nil
		}
		return takeTerminal(s.Terminal.Window)
	}
	if null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		if err := unix.Dup3(null, 0, 0); err != nil {
			return fmt.Errorf("set standard input: %w", err)
		}
	}
	return nil
}

// exec becomes the user, and then the command.
func (s *stager) exec(u identity) error {
	process := s.Config.Process
	for fd := 1; fd <= 2; fd++ {
		// So that the user can open /dev/stdout and /dev/stderr.
		if err := unix.Fchown(fd, u.uid, u.gid); err != nil {
			return fmt.Errorf("give the output to user %d: %w", u.uid, err)
		}
	}
	// As runc does it: it takes CAP_SYS_ADMIN, or no_new_privs.
	if s.Seccomp != nil && !process.NoNewPrivileges {
		if err := loadFilter(*s.Seccomp); err != nil {
			return err
		}
	}
	if err := limitCaps(s.Caps); err != nil {
		return fmt.Errorf("limit capabilities: %w", lacking(err, "CONFIG_MULTIUSER"))
	}
	if err := become(u); err != nil {
		return lacking(err, "CONFIG_MULTIUSER")
	}
	if err := unix.Chdir(process.Cwd); err != nil {
		return fmt.Errorf("enter working directory %s: %w", process.Cwd, err)
	}
	if err := setCaps(s.Caps, s.Inheritable, s.Ambient, u.uid == 0); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if process.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	path, err := findCommand(process.Args[0], getenv(process.Env, "PATH"))
	if err != nil {
		return err
	}
	if s.Seccomp != nil && process.NoNewPrivileges {
		if err := loadFilter(*s.Seccomp); err != nil {
			return err
		}
	}
	s.report(report{Exec: true})
	return explainExec(path, syscall.Exec(path, process.Args, process.Env))
}

// rlimits are the resource limits by their names (getrlimit(2)).
var rlimits = map[string]int{
	"RLIMIT_AS":         unix.RLIMIT_AS,
	"RLIMIT_CORE":       unix.RLIMIT_CORE,
	"RLIMIT_CPU":        unix.RLIMIT_CPU,
	"RLIMIT_DATA":       unix.RLIMIT_DATA,
	"RLIMIT_FSIZE":      unix.RLIMIT_FSIZE,
	"RLIMIT_LOCKS":      unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK":    unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE":   unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE":       unix.RLIMIT_NICE,
	"RLIMIT_NOFILE":     unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC":      unix.RLIMIT_NPROC,
	"RLIMIT_RSS":        unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO":     unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME":     unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_STACK":      unix.RLIMIT_STACK,
}

// loopbackUp brings the interface lo up (netdevice(7)); the kernel then gives
// it 127.0.0.1 and ::1.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
