//go:build linux

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"lab/probe"
	"lab/probe/wire"
)

// grace is how long the agent waits for what must happen soon: for killed
// processes to die, for their output to end.
const grace = 10 * time.Second

// setupLimit is how long a container may take to be set up, on a slow and busy
// machine. It is no part of the test's time: a kernel that hangs here has not
// failed the test, it has not run it.
const setupLimit = time.Minute

// runContainer runs the test's container to its end. The error is why it could
// not; how it ended is in Done.
func (a *agent) runContainer(spec probe.Spec) (wire.Done, error) {
	done := wire.Done{Exit: -1}
	name, err := findContainer(spec.Container)
	if err != nil {
		return done, err
	}
	config, err := readConfig(name)
	if err != nil {
		return done, err
	}
	last, err := capability.LastCap()
	if err != nil {
		return done, err
	}
	if spec.Terminal != nil {
		spec.MaxOutput = math.MaxInt64 // nobody keeps it
	}
	if spec.Guest {
		return a.runGuest(spec, name, config, last)
	}
	p, notes, err := makePlan(name, config, spec, last)
	if err != nil {
		return done, err
	}
	for _, n := range notes {
		a.note("%s", n)
	}
	if spec.UserNS {
		if !hasNamespace("user") {
			return done, errors.New("the test wants a user namespace, and the kernel has none (CONFIG_USER_NS)")
		}
		if err := shiftOwners(p.Rootfs, probe.UserNSBase); err != nil {
			return done, err
		}
	}
	if spec.Terminal != nil && spec.Terminal.TTY && !hasFilesystem("devpts") {
		return done, errors.New("the command wants a terminal, and the kernel has none (CONFIG_UNIX98_PTYS)")
	}
	if spec.Init != "" && !isCgroup2() {
		return done, fmt.Errorf("%s has not mounted version 2 of control groups on %s, and lab follows it with no other: leave out systemd.unified_cgroup_hierarchy=0", spec.Init, cgroupRoot)
	}
	version := spec.Cgroup
	// The parameter by which a host with systemd is told to use version 1.
	if version == "" && hasParameter(a.cmdline, "systemd.unified_cgroup_hierarchy=0") {
		version = "1"
	}
	group, err := newCgroup(groupName(name, spec), version)
	if err == nil && spec.Cgroup != "" && spec.Cgroup != group.version() {
		err = errors.New("the kernel has none (CONFIG_CGROUPS; version 2 since Linux 4.5; cgroup_no_v1= takes version 1 away)")
	}
	if err != nil && spec.Cgroup != "" {
		return done, fmt.Errorf("the test wants control groups of version %s: %w", spec.Cgroup, err)
	}
	if err != nil {
		a.note("the container has no control group: %v", err)
		group = cgroup{}
	}
	if !p.AllDevices && spec.Runtime == "" {
		if err := group.limitDevices(); err != nil {
			a.note("the container can use any of the guest's devices: %v", err)
		}
	}
	p.Terminal = spec.Terminal
	c := container{agent: a, spec: spec, plan: p, group: group}
	c.describe()
	return c.run()
}

// A container is one run of the test.
type container struct {
	agent *agent
	spec  probe.Spec
	plan  plan
	group cgroup

	told      wire.Container // by the engine, where it is not the agent that runs it
	pid       int
	exited    chan unix.WaitStatus
	failed    chan error  // after exited: what kept an engine from running the command; nil with the agent
	reaped    atomic.Bool // pid is nobody's any longer
	output    sync.WaitGroup
	mu        sync.Mutex
	truncated bool
	untraced  error // why the tracer did not get to the end
}

// describe tells the plan what the kernel and the control group are like.
func (c *container) describe() {
	c.plan.CgroupV2 = c.group.v2
	for i, dir := range c.group.dirs() {
		d := cgroupDir{Dir: dir}
		if !c.group.v2 {
			d.Controller = c.group.controllers[i]
		}
		c.plan.Cgroups = append(c.plan.Cgroups, d)
	}
	c.plan.CgroupNS = hasNamespace("cgroup")
	c.plan.UTSNS = hasNamespace("uts")
}

// given is what the container has, for the result.
func (c *container) given() wire.Container {
	g := c.told
	g.Guest = c.plan.Guest
	g.Init = c.agent.init
	g.Seccomp, g.UserNS, g.Cgroup, g.SELinux = c.plan.SeccompName, c.plan.UserNS, c.group.version(), selinuxState(c.pid, c.spec)
	for _, k := range c.plan.Caps.list() {
		g.Capabilities = append(g.Capabilities, strings.ToUpper(k.String()))
	}
	if c.plan.Seccomp != nil {
		g.Filter = c.plan.Seccomp.Digest()
	}
	return g
}

func (c *container) run() (wire.Done, error) {
	done := wire.Done{Exit: -1}
	log, err := newLogSocket()
	if err != nil {
		c.agent.note("syslog is not captured: make its socket: %v", lacking(err, "CONFIG_UNIX"))
	}
	c.plan.Syslog = log != nil
	records := newAuditLog()
	c.told.Audit = records != nil
	begin := c.begin
	if c.spec.Runtime != "" {
		begin = c.beginEngine
	}
	pipes, err := begin(log)
	if err != nil {
		return done, err
	}

	start := time.Now()
	timeout := time.After(c.spec.Timeout)
	started, err := wire.JSON(wire.TypeStarted, c.given())
	if err == nil {
		err = c.agent.out.Write(started)
	}
	if err != nil {
		return done, err
	}
	c.agent.say("started %s", cut(fmt.Sprintf("%q", c.plan.Config.Process.Args), 200))
	if c.spec.Terminal != nil && c.spec.Runtime == "" {
		if err := c.attach(pipes.stdin); err != nil {
			c.kill()
			return done, err
		}
	}
	c.pump(pipes.stdout, wire.TypeStdout)
	c.pump(pipes.stderr, wire.TypeStderr)
	if log != nil {
		c.syslog(log)
	}
	if records != nil {
		c.audit(records)
	}

	var status unix.WaitStatus
	select {
	case status = <-c.exited:
	case <-timeout:
		done.TimedOut = true
		c.kill()
		select {
		case status = <-c.exited:
		case <-time.After(grace):
			err = fmt.Errorf("the command was killed after %s and did not die: %s", c.spec.Timeout, processState(c.pid))
		}
	}
	done.Duration = time.Since(start)
	if c.failed != nil && !done.TimedOut {
		err = <-c.failed
	}
	if err == nil {
		done.Exit, done.Signal = exitStatus(status)
	}
	// With its PID 1 a pid namespace is gone; without one this is what ends
	// the processes that the command left behind.
	c.kill()
	if log != nil {
		log.finish()
	}
	if records != nil {
		records.finish()
	}
	if !within(grace, c.output.Wait) {
		c.agent.note("the container's output did not end when its processes were killed")
	}
	c.mu.Lock()
	done.Truncated = c.truncated
	if err == nil {
		err = c.untraced
	}
	c.mu.Unlock()
	return done, err
}

// begin starts the container, and returns when it runs the command.
func (c *container) begin(log *logSocket) (pipes, error) {
	p, err := c.fork(log)
	if err == nil {
		err = c.trace(c.pid)
	}
	if err != nil {
		return p, err
	}
	stage := make(chan error, 1)
	go func() {
		defer c.agent.guard()
		stage <- c.prepare(p)
	}()
	select {
	case err = <-stage:
	case <-time.After(setupLimit):
		err = fmt.Errorf("the container was not set up within %s: %s", setupLimit, processState(c.pid))
	}
	if err != nil {
		c.kill()
	}
	return p, err
}

// pipes are the agent's ends.
type pipes struct {
	plan, reports  *os.File
	stdout, stderr int
	stdin          int // of an interactive command: a pipe, or the socket that its terminal comes through
}

// fork starts the stage in its namespaces, where it waits for its plan.
func (c *container) fork(log *logSocket) (pipes, error) {
	var ends [4][2]int // reader, writer of: plan, reports, stdout, stderr
	for i := range ends {
		if err := unix.Pipe2(ends[i][:], unix.O_CLOEXEC); err != nil {
			return pipes{}, fmt.Errorf("make pipes for the container: %w", err)
		}
	}
	plan, reports, stdout, stderr := ends[0], ends[1], ends[2], ends[3]
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return pipes{}, fmt.Errorf("open /dev/null: %w", err)
	}
	input := [2]int{null, -1}
	if t := c.spec.Terminal; t != nil {
		if input, err = inputPair(t.TTY); err != nil {
			return pipes{}, fmt.Errorf("make the command's input: %w", lacking(err, "CONFIG_UNIX"))
		}
		defer unix.Close(input[0])
	}
	var flags uintptr
	for _, n := range namespaces {
		// The cgroup namespace is the stage's to make, when it is in its group.
		if n.name != "cgroup" && hasNamespace(n.name) && c.plan.Guest == "" {
			flags |= n.flag
		}
	}
	var files [stageFDs]uintptr
	files[0], files[1], files[2] = uintptr(input[0]), uintptr(stdout[1]), uintptr(stderr[1])
	files[planFD], files[reportFD], files[logFD] = uintptr(plan[0]), uintptr(reports[1]), uintptr(null)
	if log != nil {
		files[logFD] = uintptr(log.fd)
	}
	sys := &syscall.SysProcAttr{Cloneflags: flags}
	if c.plan.UserNS {
		// The kernel makes it before the others, which then belong to it.
		sys.Cloneflags |= unix.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: probe.UserNSBase, Size: probe.UserNSCount}}
		sys.GidMappings, sys.GidMappingsEnableSetgroups = sys.UidMappings, true
		sys.Credential = &syscall.Credential{}
		for _, fd := range []int{stdout[1], stderr[1]} {
			if err := unix.Fchown(fd, probe.UserNSBase, probe.UserNSBase); err != nil {
				return pipes{}, fmt.Errorf("give the output to the container: %w", err)
			}
		}
	}
	c.pid, err = syscall.ForkExec("/proc/self/exe", []string{stageArg}, &syscall.ProcAttr{
		Dir: "/", Files: files[:], Sys: sys,
		// A SIGURG of Go's scheduler could outlive exec and be the command's, which
		// does not notice it, but a trace does.
		Env: []string{"GODEBUG=asyncpreemptoff=1"},
	})
	if err != nil {
		return pipes{}, fmt.Errorf("start the container: %w", err)
	}
	for _, fd := range []int{null, stdout[1], stderr[1], plan[0], reports[1]} {
		_ = unix.Close(fd)
	}
	c.exited = make(chan unix.WaitStatus, 1)
	go c.reap()
	return pipes{os.NewFile(uintptr(plan[1]), "plan"), os.NewFile(uintptr(reports[0]), "reports"), stdout[0], stderr[0], input[1]}, nil
}

// reap waits for every child of PID 1, orphans included, and passes on how the
// container's first process ended.
func (c *container) reap() {
	defer c.agent.guard()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // no child is left
		}
		if pid == c.pid {
			c.reaped.Store(true)
			c.exited <- status
		}
	}
}

// prepare puts the stage into its control group, sends it its plan and returns
// when it has become the command, or with the reason why it has not.
func (c *container) prepare(p pipes) error {
	defer p.reports.Close()
	err := c.group.add(c.pid)
	if err == nil {
		err = json.NewEncoder(p.plan).Encode(c.plan)
	}
	if closeErr := p.plan.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("prepare the container: %w", err)
	}
	execed := false
	for d := json.NewDecoder(p.reports); ; {
		var r report
		switch err := d.Decode(&r); {
		case err == io.EOF && execed:
			return nil
		case err == io.EOF:
			return errors.New("the container's first process died before it was the command")
		case err != nil:
			return fmt.Errorf("prepare the container: %w", err)
		case r.Error != "":
			return errors.New(r.Error)
		case r.Note != "":
			c.agent.note("%s", r.Note)
		}
		execed = execed || r.Exec
	}
}

// pump sends what comes out of the pipe fd until it ends, and no more than
// MaxOutput of it.
func (c *container) pump(fd int, t wire.Type) { c.pumpLimited(fd, t, c.spec.MaxOutput) }

func (c *container) pumpLimited(fd int, t wire.Type, room int64) {
	c.output.Go(func() {
		defer c.agent.guard()
		urgent()
		buf := make([]byte, 16<<10)
		for {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n == 0 {
				return
			}
			room = c.send(t, buf[:n], room)
		}
	})
}

// urgent makes the calling goroutine run as soon as it has something to do, before the
// process that gave it that (sched(7), SCHED_FIFO): what a test said before it brought
// the kernel down is on its way then. Its thread is its own, and ends with it; a kernel
// that refuses is one on which last words may be lost.
func urgent() {
	runtime.LockOSThread()
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
}

// syslog sends what comes to /dev/log until log is finished.
func (c *container) syslog(log *logSocket) {
	c.output.Go(func() {
		defer c.agent.guard()
		urgent()
		room := c.spec.MaxOutput
		log.receive(make([]byte, 16<<10), func(m []byte) {
			room = c.send(wire.TypeSyslog, m, room-1) // the host adds a newline
		})
	})
}

// send sends p, or what there is room for, and returns the room that is left.
// A write error is the channel's end: there is nobody to tell, and the command
// runs on so that the console has its result.
func (c *container) send(t wire.Type, p []byte, room int64) int64 {
	if int64(len(p)) > room {
		p = p[:max(room, 0)]
		c.mu.Lock()
		c.truncated = true
		c.mu.Unlock()
	}
	if len(p) == 0 {
		return room
	}
	if c.agent.echo && t != wire.TypeSyslog && t != wire.TypeAudit && t != wire.TypeTrace {
		c.agent.print(p)
	}
	_ = c.agent.out.Write(wire.Frame{Type: t, Payload: p})
	return room - int64(len(p))
}

// kill ends every process of the container; of the guest, but for its PID 1, where the
// command is in no container.
func (c *container) kill() {
	if c.plan.Guest != "" {
		_ = unix.Kill(-1, unix.SIGKILL)
		return
	}
	if c.pid > 0 && !c.reaped.Load() {
		_ = unix.Kill(c.pid, unix.SIGKILL)
	}
	gone := c.group.kill()
	if c.group.version() == "none" && !hasNamespace("pid") && c.spec.Runtime == "" {
		gone = killAll(strangers) // nothing else keeps them together
	}
	if !gone {
		c.agent.note("some of the container's processes could not be killed")
	}
}

// exitStatus is a wait status as shells tell it.
func exitStatus(s unix.WaitStatus) (int, string) {
	if s.Signaled() {
		name := unix.SignalName(s.Signal())
		if name == "" {
			name = fmt.Sprintf("signal %d", int(s.Signal()))
		}
		return 128 + int(s.Signal()), name
	}
	return s.ExitStatus(), ""
}

// processState says what a process that does not die is doing.
func processState(pid int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "process %d", pid)
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if s, ok := strings.CutPrefix(line, "State:"); ok {
			fmt.Fprintf(&b, ", state %s", strings.TrimSpace(s))
		}
	}
	if stack, err := os.ReadFile(fmt.Sprintf("/proc/%d/stack", pid)); err == nil {
		fmt.Fprintf(&b, "\n%s", cut(string(stack), 4<<10))
	}
	return b.String()
}

// within runs wait and says whether it returned within limit.
func within(limit time.Duration, wait func()) bool {
	done := make(chan struct{})
	go func() {
		wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}
