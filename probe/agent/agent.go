//go:build linux

// Package agent is what runs in the guest: its PID 1, and the stage that
// becomes the container's command.
//
// The kernel unpacks an initramfs whose /init is this binary. The agent mounts
// what it needs, loads the modules the initramfs brought, opens the channel to
// the host and says hello, mounts the disk's lab-root partition and makes it
// the root, runs the container of the test's spec, streams what it says,
// reports how it ended, and powers the machine off. Nothing it meets may leave
// the machine running: a panic of its own is reported and powers off as well.
//
// A machine on which two runs are to be the same byte by byte says lab.exact: the
// agent then waits for nothing of the host's, whose answers come when they come.
//
// A disk that boots by itself has nobody to report to. The kernel parameters of
// such an image say so:
//
//	lab.echo    the console gets the test's output too
//	lab.alone   there is no host: the consoles, screen and serial line alike, get
//	            everything, modules without their hardware are no news, the
//	            disk may be of any kind, and what is written to it stays
//	lab.stay    (with lab.alone) when the test is over, the machine stays on
//
// Where the test's spec says so, an init of the disk's base becomes PID 1 in the agent's
// place when the disk is the root, and the agent goes on as a service of it: hello is then
// said by that one. What it does after is the same.
//
// The agent asks for Linux 3.13 at least. What a kernel lacks of a container's
// surroundings (a namespace, cgroups, message queues) is said in the result,
// and the test runs without it.
//
// AppArmor profiles and SELinux labels of a runtime config are not applied, and
// of seccomp filters the one that the test's spec names. Where the kernel's SELinux
// is on, the test's policy is loaded, and the container has the agent's label.
package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lab/probe"
	"lab/probe/wire"
)

// stageArg is argv[0] of the process that becomes the container's command.
const stageArg = "lab-container"

// Dispatch makes the guest's processes of this binary what they are, and never
// returns in them: the agent as the guest's PID 1 (argv[0] "/init"), the
// stage that becomes the container's command, the tracer of it, docker's runtime, and
// the agent as a service of the base's init. In any other process it returns at once.
// main calls it before everything else.
func Dispatch() {
	switch {
	case os.Getpid() == 1 && os.Args[0] == "/init":
		begin((*agent).run)
	case os.Args[0] == stageArg:
		stage()
	case os.Args[0] == tracerArg:
		tracer()
	case os.Args[0] == dockerRuntime:
		runtimeProcess()
	case os.Args[0] == serviceAgent:
		begin((*agent).serve)
	}
}

// An agent is the state of the guest's PID 1, or of that one's service.
type agent struct {
	cmdline  string
	echo     bool         // lab.echo, lab.alone
	alone    bool         // lab.alone
	exact    bool         // lab.exact
	consoles []int        // file descriptors of /dev/console, or of all consoles
	channel  *channel     // nil when there is none
	out      *wire.Writer // on channel, or on nothing
	finished atomic.Bool

	init     string   // the base's init, by its own words, where that is PID 1
	handOver bool     // PID 1 is to be the base's init, and what there is to say its service's
	notes    []string // for that one
}

// begin is the agent, PID 1 or a service. It never returns.
func begin(run func(*agent) (wire.Done, error)) {
	// An urgent goroutine must not wait for the one that its thread has just preempted.
	runtime.GOMAXPROCS(max(4, runtime.NumCPU()))
	// Until /dev is there, the console is what the kernel has given us.
	a := &agent{out: wire.NewWriter(discard{}), consoles: []int{2}}
	defer a.guard()
	done, err := run(a)
	if err != nil {
		done.Error = err.Error()
	}
	a.finish(done)
}

// run does all but the end, as PID 1.
func (a *agent) run() (wire.Done, error) {
	failed := wire.Done{Exit: -1}
	// /dev first: before Linux 3.17 random bytes come from /dev/urandom only.
	if err := mountEarly(); err != nil {
		return failed, err
	}
	if err := a.look(); err != nil {
		return failed, err
	}
	notes := loadModules(probe.ModulesPath, a.alone)

	spec, err := readSpec()
	if err == nil {
		spec = spec.WithDefaults()
	}
	a.handOver = err == nil && spec.Init != ""
	var channelErr error
	if a.alone {
		a.useAllConsoles()
		for _, m := range missing() {
			a.say("note: this kernel has no %s", m)
		}
	} else {
		_, holdErr := os.Stat(probe.HoldPath)
		if hold := holdErr == nil; hold || !a.handOver {
			channelErr = a.connect(spec.MaxOutput, hold)
		}
	}
	for _, n := range notes {
		a.note("%s", n) // the reason, maybe, for having no channel
	}
	if err := errors.Join(channelErr, err); err != nil {
		return failed, err
	}
	err = a.findRoot(spec)
	if a.handOver {
		if err == nil {
			err = a.startInit(spec)
		}
		if channelErr := a.takeBack(spec); channelErr != nil {
			return failed, channelErr
		}
	}
	if err != nil {
		return failed, err
	}
	return a.runContainer(spec)
}

// findRoot makes the disk the root, at the time and under the policy that the test has.
func (a *agent) findRoot(spec probe.Spec) error {
	if err := setClock(spec.Epoch); err != nil {
		return err
	}
	limit := diskLimit
	if a.alone {
		limit = anyDiskLimit
	}
	if err := a.startSELinux(spec); err != nil {
		return err
	}
	device, err := mountDisk(limit)
	if err == nil && a.alone {
		a.say("the image's disk is %s, the kernel Linux %s", device, release())
	}
	return err
}

// look finds out what the kernel was told, and where its console is.
func (a *agent) look() error {
	if fd, err := unix.Open("/dev/console", unix.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err == nil {
		a.consoles = []int{fd}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read the kernel command line: %w", err)
	}
	a.cmdline = strings.TrimSpace(string(cmdline))
	a.alone = hasParameter(a.cmdline, "lab.alone")
	a.exact = hasParameter(a.cmdline, "lab.exact")
	a.echo = a.alone || hasParameter(a.cmdline, "lab.echo")
	return nil
}

// setClock sets the clock, unless to the zero time.
func setClock(to time.Time) error {
	if to.IsZero() {
		return nil
	}
	ts := unix.NsecToTimespec(to.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock to %s: %w", to.Format(time.RFC3339), err)
	}
	return nil
}

// readSpec reads the test's spec from the initramfs.
func readSpec() (probe.Spec, error) {
	f, err := os.Open(probe.SpecPath)
	if err != nil {
		return probe.Spec{}, fmt.Errorf("read the test's spec: %w", err)
	}
	defer f.Close()
	return probe.ParseSpec(f)
}

// connect opens the channel and says hello on it. With lab.echo the host may be
// a bare QEMU with nobody at the other end, and the console is enough. With hold
// it waits to be woken, and then says hello anew.
func (a *agent) connect(maxOutput int64, hold bool) error {
	c, err := openChannel()
	if err != nil {
		if a.echo {
			a.say("no channel to the host, the console is all there is: %v", err)
			return nil
		}
		return fmt.Errorf("open a channel to the host: %w", err)
	}
	hello := wire.Hello{
		Agent:     version(),
		Release:   release(),
		Cmdline:   a.cmdline,
		Missing:   missing(),
		MaxOutput: maxOutput,
		Held:      hold,
	}
	if err := a.greet(c, hello); err != nil || !hold || a.channel == nil {
		return err
	}
	if err := awaitWake(c); err != nil {
		return err
	}
	if a.handOver { // the port has one user at a time
		a.channel, a.out = nil, wire.NewWriter(discard{})
		return unix.Close(c.fd)
	}
	hello.Held = false
	return a.greet(c, hello)
}

// greet says hello, and with it begins the stream of frames.
func (a *agent) greet(c *channel, h wire.Hello) error {
	hello, err := wire.JSON(wire.TypeHello, h)
	if err != nil {
		return err
	}
	w := wire.NewWriter(c)
	said := make(chan error, 1)
	go func() {
		defer a.guard()
		said <- w.Write(hello)
	}()
	// A port that nobody has opened on the host blocks its writers for ever.
	var patience <-chan time.Time
	if a.echo {
		patience = time.After(3 * time.Second)
	}
	select {
	case err := <-said:
		if err != nil {
			return fmt.Errorf("say hello on %s: %w", c.path, err)
		}
		a.channel, a.out = c, w
		return nil
	case <-patience:
		a.say("nobody listens on %s, the console is all there is", c.path)
		return nil
	}
}

// note tells the host something that belongs into the result.
func (a *agent) note(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	a.say("note: %s", s)
	if a.handOver {
		a.notes = append(a.notes, s)
	}
	_ = a.out.Write(wire.Frame{Type: wire.TypeNote, Payload: []byte(cut(s, 4<<10))})
}

// say prints one line on the console. A console that does not take it has
// nobody to tell.
func (a *agent) say(format string, args ...any) {
	a.print([]byte("lab: " + strings.TrimSpace(fmt.Sprintf(format, args...)) + "\n"))
}

func (a *agent) print(b []byte) {
	for _, fd := range a.consoles {
		_, _ = writeAll(fd, b)
	}
}

// guard, deferred in every goroutine of the agent, reports a panic and ends the
// guest, where the Go runtime would end PID 1 and with it the kernel.
func (a *agent) guard() {
	if p := recover(); p != nil {
		a.finish(wire.Done{Exit: -1, Error: cut(fmt.Sprintf("the agent panicked: %v\n%s", p, debug.Stack()), 16<<10)})
	}
}

// finish tells host and console how the test ended and powers off. The first
// call wins; it never returns.
func (a *agent) finish(d wire.Done) {
	if a.finished.Swap(true) {
		select {}
	}
	switch {
	case d.Error != "":
		a.say("error: %s", d.Error)
	case d.TimedOut:
		a.say("test timed out after %s", d.Duration.Round(time.Millisecond))
	case d.Signal != "":
		a.say("test ended by %s", d.Signal)
	}
	if d.Truncated && a.alone {
		a.say("note: the test said more than is shown")
	}
	a.say("test exited with status %d", d.Exit)
	if f, err := wire.JSON(wire.TypeDone, d); err != nil {
		a.say("error: %v", err)
	} else if err := a.out.Write(f); err != nil {
		a.say("error: %v", err)
	} else if a.channel != nil && !a.exact { // a write to a port ends when the host has it
		patience := 5 * time.Second
		if a.echo {
			patience = time.Second // a bare QEMU answers nothing
		}
		a.channel.awaitAck(patience)
	}
	if a.alone {
		a.leave(d.Error != "")
	}
	powerOff(a.alone)
}

// version is the version control revision that this binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return info.Main.Version
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// namespaces are the kinds a container is given, by their names in
// /proc/PID/ns (namespaces(7)). Mount namespaces cannot be configured out.
var namespaces = []struct {
	name string
	flag uintptr
	with string // what kernels have them
}{
	{"mnt", unix.CLONE_NEWNS, ""},
	{"pid", unix.CLONE_NEWPID, "CONFIG_PID_NS"},
	{"uts", unix.CLONE_NEWUTS, "CONFIG_UTS_NS"},
	{"ipc", unix.CLONE_NEWIPC, "CONFIG_IPC_NS"},
	{"net", unix.CLONE_NEWNET, "CONFIG_NET_NS"},
	{"cgroup", unix.CLONE_NEWCGROUP, "CONFIG_CGROUPS, since Linux 4.6"},
}

// hasNamespace looks in /proc, because clone before Linux 4.6 ignores
// CLONE_NEWCGROUP without a word.
func hasNamespace(name string) bool {
	_, err := os.Lstat("/proc/self/ns/" + name)
	return err == nil
}

// missing names what this kernel lacks of what a container has elsewhere.
func missing() []string {
	var m []string
	for _, n := range namespaces {
		if !hasNamespace(n.name) {
			m = append(m, fmt.Sprintf("%s namespaces (%s)", n.name, n.with))
		}
	}
	if _, err := os.Stat("/proc/cgroups"); errors.Is(err, fs.ErrNotExist) {
		m = append(m, "control groups (CONFIG_CGROUPS)")
	}
	for _, fs := range []struct{ name, with string }{{"mqueue", "CONFIG_POSIX_MQUEUE"}, {"devpts", "CONFIG_UNIX98_PTYS"}} {
		if !hasFilesystem(fs.name) {
			m = append(m, fmt.Sprintf("the %s file system (%s)", fs.name, fs.with))
		}
	}
	if _, err := os.Lstat("/proc/net"); err != nil {
		m = append(m, "networking (CONFIG_NET)")
	}
	return m
}

// lacking says by which option of its configuration a kernel has what it did not
// know, where that is what err says.
func lacking(err error, option string) error {
	for _, unknown := range []error{unix.ENOSYS, unix.ENODEV, unix.EAFNOSUPPORT} {
		if errors.Is(err, unknown) {
			return fmt.Errorf("%w (does the kernel have %s?)", err, option)
		}
	}
	return err
}

// hasFilesystem says whether the kernel has a kind of file system (proc(5)); one
// that does not tell is taken to have it.
func hasFilesystem(name string) bool {
	list, err := os.ReadFile("/proc/filesystems")
	return err != nil || strings.Contains(string(list), "\t"+name+"\n")
}

// hasParameter says whether a kernel command line has the word name. Values in
// quotes may hold spaces (admin-guide/kernel-parameters).
func hasParameter(cmdline, name string) bool {
	quoted := false
	words := strings.FieldsFunc(cmdline, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	})
	for _, w := range words {
		if w == name {
			return true
		}
	}
	return false
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// discard is a channel without a host.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
