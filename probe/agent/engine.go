//go:build linux

package agent

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lab/probe"
	"lab/probe/seccomp"
)

// Where an engine has its bundle (runtime-spec, bundle.md) and what it says. It
// is in memory: /run of the base is not what a system that just booted has.
const (
	engineDir  = "/run/lab"
	engineLog  = engineDir + "/log"    // what it complains of
	engineSays = engineDir + "/output" // what it prints
	enginePID  = engineDir + "/pid"
	engineSock = engineDir + "/syslog"
)

// beginEngine has the base's engine make the container and start it.
func (c *container) beginEngine(log *logSocket) (p pipes, err error) {
	e := engine{container: c, ended: map[int]unix.WaitStatus{}, options: bundleOptions}
	if cgroupDriver(c.spec) == systemd {
		e.options = append([]string{"--systemd-cgroup"}, bundleOptions...)
	}
	begin := e.beginBundle
	switch c.spec.Runtime {
	case "podman":
		e.options = append([]string{"--cgroup-manager", cgroupDriver(c.spec)}, podmanOptions...)
		begin, e.started = e.beginPodman, e.inspect
	case "docker":
		e.options, begin, e.started = []string{"--host", "unix://" + dockerSock}, e.beginDocker, e.inspect
	}
	if e.path, err = findEngine(c.spec.Runtime); err != nil {
		return p, err
	}
	if c.group.version() == "none" {
		return p, fmt.Errorf("%s runs no container without control groups, and there are none", c.spec.Runtime)
	}
	if err := c.checkCommand(); err != nil {
		return p, err
	}
	if c.spec.Init == "" {
		err = mountRun()
	}
	if err == nil {
		err = furnish()
	}
	if err != nil {
		return p, fmt.Errorf("prepare the base for %s: %w", c.spec.Runtime, err)
	}
	if c.told.Engine, err = e.version(); err != nil {
		return p, err
	}
	if log != nil {
		if err := bindLog(log.fd, engineSock); err != nil {
			return p, fmt.Errorf("make the syslog socket for %s: %w", c.spec.Runtime, err)
		}
	}
	if p, err = begin(); err != nil {
		c.kill()
		return p, e.missesBus(err)
	}
	if log := e.log(); log != "" {
		c.agent.note("%s says: %s", c.spec.Runtime, log)
	}
	c.exited, c.failed = make(chan unix.WaitStatus, 1), make(chan error, 1)
	go e.reap()
	return p, nil
}

// reap is the container's, and asks of one that failed whether it ran at all.
func (e *engine) reap() {
	defer e.agent.guard()
	status, ok := e.ended[e.pid]
	for !ok {
		var err error
		var child int
		if child, err = unix.Wait4(-1, &status, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return // no child is left
		}
		ok = child == e.pid
	}
	e.reaped.Store(true)
	e.exited <- status
	var failed error
	if e.started != nil && status.Exited() && status.ExitStatus() != 0 {
		failed = e.started()
	}
	e.failed <- failed
	e.container.reap()
}

// checkCommand finds the command in the container's root, and says of one that
// cannot be executed why not: engines let it fail as if it had run, with status 1.
func (c *container) checkCommand() error {
	checked := make(chan error, 1)
	go func() {
		defer c.agent.guard()
		// The thread has a root of its own, and ends with the goroutine.
		runtime.LockOSThread()
		checked <- c.enterAndCheck()
	}()
	return <-checked
}

func (c *container) enterAndCheck() error {
	err := unix.Unshare(unix.CLONE_FS)
	if err == nil {
		err = unix.Chroot(c.plan.Rootfs)
	}
	if err != nil {
		return fmt.Errorf("look for the command in the container: %w", err)
	}
	process := c.plan.Config.Process
	if unix.Chdir(process.Cwd) != nil { // it is yet to be made
		if err := unix.Chdir("/"); err != nil {
			return fmt.Errorf("look for the command in the container: %w", err)
		}
	}
	file, err := findCommand(process.Args[0], getenv(process.Env, "PATH"))
	if err != nil {
		return err
	}
	if i := interpreter(file); i != "" {
		if _, err := os.Stat(i); err != nil {
			return explainExec(file, unix.ENOENT)
		}
		return nil
	}
	program, err := elf.Open(file)
	if err != nil {
		return explainExec(file, unix.ENOEXEC)
	}
	return program.Close()
}

// mountRun gives the base the folders in memory of a system that just booted.
func mountRun() error {
	for dir, mode := range map[string]string{"/run": "mode=755", "/tmp": "mode=1777", "/dev/shm": "mode=1777"} {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, mode)
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return os.Mkdir(engineDir, 0o755)
}

// furnish gives the base what programs without a system around them lack, and engines
// miss: podman before 4.0 copies /etc/hosts.
func furnish() error {
	for _, dir := range []string{"/etc", "/var/tmp"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	hosts, err := os.OpenFile("/etc/hosts", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		_, err = hosts.WriteString("127.0.0.1 localhost\n")
		err = errors.Join(err, hosts.Close())
	}
	return err
}

// findEngine finds the engine in the base.
func findEngine(name string) (string, error) {
	for _, dir := range filepath.SplitList(defaultPath) {
		if file := filepath.Join(dir, name); executable(file) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("the base has no %s in %s: name an image that has it with --base, or run the container by lab itself", name, defaultPath)
}

// An engine runs its commands, one after the other.
type engine struct {
	*container
	path    string
	options []string                // of all its commands
	ended   map[int]unix.WaitStatus // those that ended besides the commands themselves
	// started, where not nil, says why the container was not, after it failed.
	started func() error
}

// bundleOptions are those of crun and runc.
var bundleOptions = []string{"--root", engineDir + "/state", "--log", engineLog}

// engineID is what the container is called by its engine.
const engineID = "lab"

// beginBundle has crun or runc run a bundle. Create and start are two commands
// (runtime-spec, "Lifecycle"), between which the container's first process is left
// behind and becomes a child of PID 1: how it ends, with which signal, is so told by
// the kernel, and by no exit status of the engine.
func (e *engine) beginBundle() (pipes, error) {
	if err := e.writeBundle(); err != nil {
		return pipes{}, err
	}
	p, err := e.create()
	if err != nil {
		return p, err
	}
	e.told.CgroupDriver = cgroupDriver(e.spec)
	if err := e.take(specs.State{Pid: e.pid, Bundle: engineDir}); err != nil {
		return p, err
	}
	_, err = e.ask("start", engineID)
	return p, err
}

// mountStore mounts the store that the disk has for the engine where the engine has its own,
// so that it finds the container's image there, and tells whether it did.
func (e *engine) mountStore(root string) (bool, error) {
	store := filepath.Join(filepath.Dir(e.plan.Rootfs), e.spec.Runtime)
	if _, err := os.Stat(store); err != nil {
		return false, nil // of an earlier version
	}
	if !stacks() {
		e.agent.note("the kernel has no overlayfs that stacks layers: %s is given the container's files without its own storage", e.spec.Runtime)
		return false, nil
	}
	err := os.MkdirAll(root, 0o710)
	if err == nil {
		err = unix.Mount(store, root, "", unix.MS_BIND, "")
	}
	if err != nil {
		return false, fmt.Errorf("mount the store of %s: %w", e.spec.Runtime, err)
	}
	return true, nil
}

// stacks tells whether the kernel has an overlayfs with several layers below the one that
// is written to: since 4.0 (Documentation/filesystems/overlayfs.txt, "Multiple lower layers").
func stacks() bool {
	major, _, _ := strings.Cut(release(), ".")
	n, err := strconv.Atoi(major)
	return err == nil && n >= 4 && hasFilesystem("overlay")
}

// outputs makes the pipes of the container's output, and gives the ends to write to.
func (e *engine) outputs() (p pipes, stdout, stderr int, err error) {
	var ends [2][2]int
	for i := range ends {
		if err := unix.Pipe2(ends[i][:], unix.O_CLOEXEC); err != nil {
			return p, 0, 0, fmt.Errorf("make pipes for the container: %w", err)
		}
		if e.plan.UserNS {
			if err := unix.Fchown(ends[i][1], probe.UserNSBase, probe.UserNSBase); err != nil {
				return p, 0, 0, fmt.Errorf("give the output to the container: %w", err)
			}
		}
	}
	p.stdout, p.stderr = ends[0][0], ends[1][0]
	return p, ends[0][1], ends[1][1], nil
}

// create makes the container, whose output goes to the pipes.
func (e *engine) create() (pipes, error) {
	p, stdout, stderr, err := e.outputs()
	if err != nil {
		return p, err
	}
	err = e.command(stdout, stderr, "create", "--bundle", engineDir, "--pid-file", enginePID, engineID)
	_ = unix.Close(stdout)
	_ = unix.Close(stderr)
	if err != nil {
		// Nothing of it is the test's.
		said := make([]byte, 16<<10)
		_ = unix.SetNonblock(p.stderr, true)
		n, _ := unix.Read(p.stderr, said)
		return p, e.explain(err, said[:max(n, 0)])
	}
	pid, err := os.ReadFile(enginePID)
	if err == nil {
		e.pid, err = strconv.Atoi(strings.TrimSpace(string(pid)))
	}
	if err != nil {
		return p, fmt.Errorf("find the container that %s made: %w", e.spec.Runtime, err)
	}
	return p, nil
}

// ask runs a command of the engine and gives what it prints.
func (e *engine) ask(args ...string) (string, error) {
	out, err := os.Create(engineSays)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", e.spec.Runtime, err)
	}
	defer out.Close()
	err = e.command(int(out.Fd()), int(out.Fd()), args...)
	said, readErr := os.ReadFile(engineSays)
	if err != nil {
		return "", e.explain(err, said)
	}
	return string(said), readErr
}

// version is what the engine calls itself.
func (e *engine) version() (string, error) {
	said, err := e.ask("--version")
	said, _, _ = strings.Cut(said, "\n")
	return said, err
}

// fork begins a command of the engine.
func (e *engine) fork(stdout, stderr int, args ...string) (pid int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", e.spec.Runtime, err)
	}
	defer null.Close()
	argv := slices.Concat([]string{e.path}, e.options, args)
	pid, err = syscall.ForkExec(e.path, argv, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + defaultPath, "HOME=/root"},
		Files: []uintptr{null.Fd(), uintptr(stdout), uintptr(stderr)},
	})
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", e.path, explainExec(e.path, err))
	}
	return pid, nil
}

// command runs a command of the engine to its end.
func (e *engine) command(stdout, stderr int, args ...string) error {
	pid, err := e.fork(stdout, stderr, args...)
	if err != nil {
		return err
	}
	late := time.AfterFunc(setupLimit, func() { _ = unix.Kill(pid, unix.SIGKILL) })
	for {
		var status unix.WaitStatus
		child, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for %s: %w", e.path, err)
		case child != pid:
			e.ended[child] = status
		case !late.Stop():
			return fmt.Errorf("%s %s was not done within %s", filepath.Base(e.path), args[0], setupLimit)
		case status.Signaled():
			return fmt.Errorf("%s %s was ended by %s", filepath.Base(e.path), args[0], unix.SignalName(status.Signal()))
		case status.ExitStatus() != 0:
			return fmt.Errorf("%s %s failed with status %d", filepath.Base(e.path), args[0], status.ExitStatus())
		default:
			return nil
		}
	}
}

// explain adds to a command's failure what the engine said of it.
func (e *engine) explain(err error, said []byte) error {
	text := strings.TrimSpace(string(said))
	if text == "" {
		text = e.log()
	}
	if text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, cut(text, 4<<10))
}

// log is what the engine complained of so far.
func (e *engine) log() string {
	log, _ := os.ReadFile(engineLog)
	return strings.TrimSpace(string(log))
}

// writeBundle writes the config.json that has an engine make the container that
// the agent would: in it, nothing is left to the engine's defaults.
func (c *container) writeBundle() error {
	config, err := c.engineConfig()
	if err != nil {
		return err
	}
	data, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(filepath.Join(engineDir, "config.json"), data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the bundle for %s: %w", c.spec.Runtime, err)
	}
	return nil
}

func (c *container) engineConfig() (specs.Spec, error) {
	config := c.plan.Config
	process, linux := *config.Process, *config.Linux
	root := specs.Root{Path: c.plan.Rootfs, Readonly: config.Root != nil && config.Root.Readonly}
	u, err := resolveUser(process.User, root.Path+"/etc/passwd", root.Path+"/etc/group")
	if err != nil {
		return config, err
	}
	process.User = specs.User{UID: uint32(u.uid), GID: uint32(u.gid), Umask: process.User.Umask}
	for _, g := range u.groups {
		process.User.AdditionalGids = append(process.User.AdditionalGids, uint32(g))
	}
	if getenv(process.Env, "HOME") == "" {
		process.Env = append(slices.Clone(process.Env), "HOME="+u.home)
	}
	process.Capabilities = c.plan.capabilities(u.uid == 0)

	linux.Namespaces = c.engineNamespaces()
	if c.plan.UserNS {
		linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: probe.UserNSBase, Size: probe.UserNSCount}}
		linux.GIDMappings = linux.UIDMappings
	}
	if !c.plan.UTSNS {
		config.Hostname, config.Domainname = "", ""
	}
	mounts := []specs.Mount{}
	for _, m := range config.Mounts {
		if m.Type != "bind" && m.Type != "cgroup" && !hasFilesystem(m.Type) {
			c.agent.note("%s is not mounted: the kernel has no %s file system", m.Destination, m.Type)
			continue
		}
		mounts = append(mounts, m)
	}
	if c.plan.Syslog {
		mounts = append(mounts, specs.Mount{Destination: "/dev/log", Type: "bind", Source: engineSock, Options: []string{"bind", "rw"}})
	}
	linux.CgroupsPath = "/" + c.group.name
	if cgroupDriver(c.spec) == systemd { // slice, prefix and name of a scope (runc, docs/systemd.md)
		linux.CgroupsPath = c.group.name + ":lab:" + engineID
	}
	if c.plan.AllDevices {
		linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
		if linux.Devices, err = guestDevices("/dev"); err != nil {
			return config, err
		}
	}
	if c.plan.Seccomp != nil {
		var profile []byte
		if c.spec.SeccompProfile != "" {
			profile = []byte(c.spec.SeccompProfile)
		}
		if linux.Seccomp, err = seccomp.Resolve(profile, process.Capabilities.Bounding); err != nil {
			return config, err
		}
	}
	config.Root, config.Process, config.Linux, config.Mounts = &root, &process, &linux, mounts
	return config, nil
}

// capabilities are the plan's as a config.json has them, by setCaps' rules.
func (p *plan) capabilities(root bool) *specs.LinuxCapabilities {
	ambient := p.Ambient & p.Caps
	permitted := ambient
	if root {
		permitted = p.Caps
	}
	return &specs.LinuxCapabilities{
		Bounding: p.Caps.names(), Permitted: permitted.names(), Effective: permitted.names(),
		Inheritable: (p.Inheritable&p.Caps | ambient).names(), Ambient: ambient.names(),
	}
}

// names are the capabilities as profiles and configs call them, as CAP_CHOWN.
func (s capSet) names() []string {
	var names []string
	for _, c := range s.list() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}

// engineNamespaces are those that the agent would make.
func (c *container) engineNamespaces() []specs.LinuxNamespace {
	types := map[string]specs.LinuxNamespaceType{"mnt": specs.MountNamespace, "net": specs.NetworkNamespace}
	var list []specs.LinuxNamespace
	for _, n := range namespaces {
		if !hasNamespace(n.name) {
			continue
		}
		t, other := types[n.name]
		if !other {
			t = specs.LinuxNamespaceType(n.name)
		}
		list = append(list, specs.LinuxNamespace{Type: t})
	}
	if c.plan.UserNS {
		list = append(list, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	return list
}

// guestDevices are all device nodes below the guest's dev but for the console,
// which is the machine's, and those that every container has.
func guestDevices(dev string) ([]specs.LinuxDevice, error) {
	var list []specs.LinuxDevice
	err := filepath.WalkDir(dev, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeDevice == 0 {
			return err
		}
		name := strings.TrimPrefix(path, dev+"/")
		for _, own := range defaultDevices {
			if name == own.name {
				return nil
			}
		}
		if name == "console" || name == "ptmx" || strings.HasPrefix(name, "pts/") {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		kind := "b"
		if st.Mode&unix.S_IFMT == unix.S_IFCHR {
			kind = "c"
		}
		mode := os.FileMode(st.Mode & 0o777)
		list = append(list, specs.LinuxDevice{
			Path: "/dev/" + name, Type: kind, FileMode: &mode,
			Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), UID: &st.Uid, GID: &st.Gid,
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the guest's devices: %w", err)
	}
	return list, nil
}
