package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// enterArg is what lab is called when it is to be the first process in a room.
const enterArg = "lab-enter"

// errNoNamespace is the error about a host that gives lab no namespaces.
var errNoNamespace = errors.New("this host does not let lab make namespaces")

// A roomEntry tells the first process in a room what to do.
type roomEntry struct {
	Mount string
	Steps []step
	Dir   string
	Env   []string
	Extra int // inherited files, from 3 on
	Args  []string
}

// enter starts this very program anew, in namespaces of its own; Dispatch goes on
// from there.
func (r *room) enter(ctx context.Context, steps []step, c child, inside []string) (*exec.Cmd, error) {
	data, err := json.Marshal(roomEntry{r.mount, steps, c.dir, lastOfEach(c.env), len(c.extra), inside})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{enterArg, string(data)}
	cmd.SysProcAttr = procAttr()
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if r.way == byUser {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return cmd, nil
}

// Dispatch goes into a room when this process was started to, and does not return
// then. main calls it before everything else.
func Dispatch() {
	if os.Args[0] != enterArg || len(os.Args) != 2 {
		return
	}
	status, err := enterRoom([]byte(os.Args[1]))
	if err != nil {
		fmt.Fprintln(os.Stderr, "enter:", err)
	}
	os.Exit(status)
}

// noEntry is the exit status for a room that cannot be made.
const noEntry = 125

func enterRoom(data []byte) (int, error) {
	var e roomEntry
	if err := json.Unmarshal(data, &e); err != nil {
		return noEntry, err
	}
	// Whoever started us may be gone already, and nobody would tell us.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return noEntry, fmt.Errorf("ask for a signal at lab's death: %w", err)
	}
	if err := makeRoom(e); err != nil {
		return noEntry, err
	}
	// What cannot be got back by any program: of this thread, and so of its children.
	runtime.LockOSThread()
	for c := uintptr(0); ; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // the last one
		} else if err != nil {
			return noEntry, fmt.Errorf("drop capabilities: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return noEntry, fmt.Errorf("drop privileges: %w", err)
	}
	return runInside(e)
}

// runInside starts the program and, as the first process has to, waits for
// everybody's children until it ends.
func runInside(e roomEntry) (int, error) {
	if err := os.Chdir(e.Dir); err != nil {
		return noEntry, err
	}
	os.Clearenv()
	for _, v := range e.Env {
		for i := range v {
			if v[i] == '=' {
				os.Setenv(v[:i], v[i+1:])
				break
			}
		}
	}
	path, err := exec.LookPath(e.Args[0])
	if err != nil {
		return noEntry, err
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i := range e.Extra {
		files = append(files, os.NewFile(uintptr(3+i), "inherited"))
	}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, unix.SIGTERM, unix.SIGINT)
	p, err := os.StartProcess(path, e.Args, &os.ProcAttr{Files: files, Env: e.Env})
	if err != nil {
		return noEntry, err
	}
	go func() {
		for s := range terminate {
			_ = p.Signal(s)
		}
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && pid != p.Pid:
		case err != nil:
			return noEntry, fmt.Errorf("wait: %w", err)
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

// makeRoom makes the room on a file system in memory, and makes it the root.
func makeRoom(e roomEntry) error {
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return fmt.Errorf("name the host: %w", err)
	}
	// Nothing of what follows is to be seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("room", e.Mount, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a file system in memory: %w", err)
	}
	for _, s := range e.Steps {
		if err := s.make(filepath.Join(e.Mount, s.To)); err != nil {
			return fmt.Errorf("make %s: %w", s.To, err)
		}
	}
	if err := unix.Mount("", e.Mount, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	if err := os.Chdir(e.Mount); err != nil {
		return err
	}
	// The old root goes on top of the new one, and away (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	return os.Chdir("/")
}

// make makes one thing of the room at the path to.
func (s step) make(to string) error {
	switch s.Kind {
	case stepLink:
		return os.Symlink(s.From, to)
	case stepRead, stepWrite:
		if err := bind(s.From, to); err != nil || s.Kind == stepWrite {
			return err
		}
		return readOnly(to)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	switch s.Kind {
	case stepTmp:
		return unix.Mount("tmp", to, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	case stepProc:
		if unix.Mount("proc", to, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") == nil {
			return nil
		}
		// Where parts of the host's are hidden, as in containers, only that can be had.
		return unix.Mount("/proc", to, "", unix.MS_BIND|unix.MS_REC, "")
	case stepDev:
		return makeDev(to)
	}
	return nil
}

func makeDev(dev string) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := bind(filepath.Join("/dev", name), filepath.Join(dev, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

// bind has a file or folder be seen at another path too.
func bind(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(to, 0o755)
	} else {
		err = os.WriteFile(to, nil, 0o644)
	}
	if err != nil {
		return err
	}
	return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

// readOnly makes a bound path read-only. The flags that it has from the host must
// be said again: in a user namespace they cannot be taken away (mount(2)).
func readOnly(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	for had, keep := range map[int64]uintptr{
		unix.ST_NOEXEC: unix.MS_NOEXEC, unix.ST_NOATIME: unix.MS_NOATIME,
		unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME,
	} {
		if st.Flags&had != 0 {
			flags |= keep
		}
	}
	return unix.Mount("", path, "", flags, "")
}

// syncAll has everything in the file system of a folder on the disk, which is
// quicker than file by file.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
