package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the tracer is told of, and that nothing it traces outlives it (ptrace(2)).
const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
	unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

// syscallStop is the signal of a stop at a system call, with TRACESYSGOOD.
const syscallStop = unix.SIGTRAP | 0x80

// flushEvery is how long a line may wait to be written, so that a kernel that dies
// has told nearly all.
const flushEvery = 200 * time.Millisecond

// A Summary is what is to be said of a trace besides its lines.
type Summary struct {
	Truncated bool     // there was more than the limit; it was let run untraced
	Notes     []string // where the trace changed what the traced saw
}

// Follow traces the process pid and all that comes of it, and writes lines to w, no
// more than limit bytes. The trace begins with the process's next exec: until then it
// may prepare, unseen. Attached is called when the process can go there. Follow
// returns when nothing that it traces is left.
//
// It waits for every child of its process and its tracees die with it: it is to be
// alone in a process, one that may trace pid (CAP_SYS_PTRACE in the first user
// namespace, so that set-user-ID programs get what they get untraced). Mark may be nil.
func Follow(pid int, w io.Writer, limit int64, mark *Mark, attached func() error) (Summary, error) {
	// Every request must come from the thread that attached.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f := follower{root: pid, threads: map[int]*thread{}, early: map[int]bool{}, netlink: map[string]int{}, room: limit, mark: mark, out: bufio.NewWriterSize(w, 32<<10)}
	if err := f.seize(); err != nil {
		return f.summary, err
	}
	stop := make(chan struct{})
	var flusher sync.WaitGroup
	flusher.Go(func() {
		tick := time.NewTicker(flushEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f.mu.Lock()
				_ = f.out.Flush() // told at the end
				f.mu.Unlock()
			case <-stop:
				return
			}
		}
	})
	err := attached()
	if err == nil {
		err = f.loop()
	}
	close(stop)
	flusher.Wait()
	if flushErr := f.out.Flush(); err == nil && flushErr != nil {
		err = fmt.Errorf("write trace: %w", flushErr)
	}
	return f.summary, err
}

type follower struct {
	root    int
	begun   bool            // the first exec was seen
	called  bool            // and a system call of the command
	threads map[int]*thread // by thread number of the kernel
	early   map[int]bool    // those that ended before their parent announced them
	last    int             // number that was given last
	netlink map[string]int  // protocols of netlink sockets, by what /proc/PID/fd calls them
	room    int64
	mark    *Mark // what is to come, its N counted down
	summary Summary

	mu  sync.Mutex // of out
	out *bufio.Writer
}

// A thread is a traced one.
type thread struct {
	tid       int
	number    int  // in the trace; 0 for those from before its begin
	announced bool // by its parent, or it was there at first
	inside    bool // of a system call, which is
	call      call
}

// seize attaches to every thread that the process has: those that come after are
// attached by the kernel. It takes no stop (PTRACE_SEIZE, Linux 3.4).
func (f *follower) seize() error {
	for again := true; again; {
		again = false
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", f.root))
		if err != nil {
			return fmt.Errorf("trace process %d: %w", f.root, err)
		}
		for _, e := range entries {
			var tid int
			if _, err := fmt.Sscan(e.Name(), &tid); err != nil || f.threads[tid] != nil {
				continue
			}
			err := ptrace(unix.PTRACE_SEIZE, tid, 0, options)
			if errors.Is(err, unix.ESRCH) && tid != f.root {
				continue
			}
			// A thread of one that is attached is so already, and says EPERM.
			if err != nil && (tid == f.root || !errors.Is(err, unix.EPERM)) {
				return fmt.Errorf("trace process %d: attach to %d: %w", f.root, tid, err)
			}
			f.threads[tid] = &thread{tid: tid, announced: true}
			again = true
		}
	}
	return nil
}

func (f *follower) loop() error {
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return fmt.Errorf("trace: wait: %w", err)
		}
		t := f.thread(tid)
		if !status.Stopped() {
			f.ended(t, status)
			continue
		}
		request, signal := f.stopped(t, status)
		// One that was killed meanwhile is no longer there: its end follows.
		if err := ptrace(request, tid, 0, uintptr(signal)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("trace: resume: %w", err)
		}
	}
}

// thread is the one of a thread number, a new one if need be.
func (f *follower) thread(tid int) *thread {
	t := f.threads[tid]
	if t == nil {
		t = &thread{tid: tid}
		f.threads[tid] = t
	}
	if f.begun && t.number == 0 {
		f.last++
		t.number = f.last
	}
	return t
}

// announced deals with what a parent says of its child, whose own stops, and end, may
// have been told before.
func (f *follower) announced(tid int) {
	if f.early[tid] {
		delete(f.early, tid)
		return
	}
	f.thread(tid).announced = true
}

// stopped deals with a stop, and says how the thread goes on, with which signal.
func (f *follower) stopped(t *thread, status unix.WaitStatus) (request int, signal unix.Signal) {
	request = unix.PTRACE_CONT
	if f.begun && !f.summary.Truncated {
		request = unix.PTRACE_SYSCALL
	}
	signal = status.StopSignal()
	switch event := int(status >> 16); event {
	case unix.PTRACE_EVENT_STOP:
		switch signal {
		case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
			f.say(t, "--- stopped by %s ---", signalName(signal))
			return unix.PTRACE_LISTEN, 0 // stopped, as it were without us
		}
		return request, 0
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK, unix.PTRACE_EVENT_CLONE:
		if child, err := unix.PtraceGetEventMsg(t.tid); err == nil {
			f.announced(int(child))
		}
		return request, 0
	case unix.PTRACE_EVENT_EXEC:
		f.exec(t)
		if !f.summary.Truncated {
			request = unix.PTRACE_SYSCALL
		}
		return request, 0
	case 0:
		if signal == syscallStop {
			f.syscall(t)
			if f.summary.Truncated {
				request = unix.PTRACE_CONT
			}
			return request, 0
		}
		// Sent to what the process was before: Go's scheduler preempts with SIGURG
		// (os/signal), and runc is of Go. Nobody notices it who has not asked for it.
		if signal == unix.SIGURG && f.begun && !f.called {
			return request, 0
		}
		f.say(t, "--- %s ---", signalName(signal))
		return request, signal
	}
	return request, 0
}

// exec deals with a new program. Whichever thread called for it is the process's
// first and only one from now on, and has its thread number.
func (f *follower) exec(t *thread) {
	former, err := unix.PtraceGetEventMsg(t.tid)
	if old := f.threads[int(former)]; err == nil && old != nil && old != t {
		f.say(old, "+++ superseded by execve in pid %d +++", t.number)
		t.inside, t.call = old.inside, old.call
		delete(f.threads, int(former))
	}
	if !f.begun && t.tid == f.root {
		f.begun = true
		f.thread(t.tid)
		t.inside, t.call = true, firstExec(t.tid)
	}
}

// ended deals with the end of a thread.
func (f *follower) ended(t *thread, status unix.WaitStatus) {
	if t.inside {
		f.write(t.call.event(t.number, "?"))
	}
	switch {
	case status.Exited():
		f.say(t, "+++ exited with %d +++", status.ExitStatus())
	case status.CoreDump():
		f.say(t, "+++ killed by %s (core dumped) +++", signalName(status.Signal()))
	default:
		f.say(t, "+++ killed by %s +++", signalName(status.Signal()))
	}
	if !t.announced {
		f.early[t.tid] = true
	}
	delete(f.threads, t.tid)
}

// syscall deals with a stop at the beginning or at the end of a system call.
func (f *follower) syscall(t *thread) {
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(t.tid, &regs) != nil {
		return // killed
	}
	if !t.inside {
		f.called = true
		t.call = f.enter(t.tid, &regs)
		// Before Linux 4.8 a call that a filter refused has an end only. At
		// its beginning the result is ENOSYS always (arch/x86/entry).
		if t.inside = int64(regs.Rax) == -int64(unix.ENOSYS); t.inside {
			f.marked(t, &regs)
			return
		}
	}
	t.inside = false
	f.write(f.leave(t, &regs))
}

// marked tells who debugs the guest of the call that is marked.
func (f *follower) marked(t *thread, regs *unix.PtraceRegs) {
	if f.mark == nil || f.mark.PID != t.number || f.mark.Call != t.call.name {
		return
	}
	if f.mark.N--; f.mark.N > 0 {
		return
	}
	if err := tell(regs); err != nil {
		f.note(fmt.Sprintf("the call that is marked, %s, cannot be told of: %v", f.mark.Call, err))
	}
}

// told is what Mark describes.
type told struct {
	magic, names, size uint64
	regs               unix.PtraceRegs
}

// tell writes what a debugger waits for.
func tell(regs *unix.PtraceRegs) error {
	names, err := kernelFunctions()
	if err != nil {
		return err
	}
	const size = unsafe.Sizeof(told{})
	at := uintptr(MarkAddr)
	hint := *(*unsafe.Pointer)(unsafe.Pointer(&at)) // to nothing of Go's
	page, err := unix.MmapPtr(-1, 0, hint, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE)
	if err != nil {
		return fmt.Errorf("map memory at %#x: %w", uint64(MarkAddr), err)
	}
	defer func() { _ = unix.MunmapPtr(page, size) }()
	if uintptr(page) != MarkAddr { // a kernel before 4.17, to which the address is a hint
		return fmt.Errorf("map memory at %#x: the kernel has it elsewhere", uint64(MarkAddr))
	}
	t := (*told)(page)
	t.regs, t.size = *regs, uint64(len(names))
	if len(names) > 0 {
		t.names = uint64(uintptr(unsafe.Pointer(&names[0])))
	}
	atomic.StoreUint64(&t.magic, MarkMagic)
	runtime.KeepAlive(names)
	return nil
}

// kernelFunctions are the lines of /proc/kallsyms that are of functions; none where
// there is no such file.
func kernelFunctions() ([]byte, error) {
	all, err := os.ReadFile("/proc/kallsyms")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var functions []byte
	for line := range bytes.Lines(all) {
		if fields := bytes.Fields(line); len(fields) > 2 && bytes.ContainsAny(fields[1], "tTwW") {
			functions = append(functions, line...)
		}
	}
	return functions, err
}

func (f *follower) say(t *thread, format string, args ...any) {
	f.write(Event{PID: t.number, Said: fmt.Sprintf(format, args...)})
}

// write writes an event's line, if it is of the trace and there is room for it.
func (f *follower) write(e Event) {
	if e.PID == 0 || f.summary.Truncated {
		return
	}
	line := e.String() + "\n"
	if int64(len(line)) > f.room {
		f.summary.Truncated = true
		return
	}
	f.room -= int64(len(line))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, _ = f.out.WriteString(line) // the writer keeps its error for Flush
}

// note adds a remark, once.
func (f *follower) note(s string) {
	for _, n := range f.summary.Notes {
		if n == s {
			return
		}
	}
	f.summary.Notes = append(f.summary.Notes, s)
}

func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("SIGRT_%d", int(s)-32) // as strace: 32 is SIGRT_0, to the kernel
}

// ptrace is the system call, for the requests that unix has not.
func ptrace(request, tid int, addr, data uintptr) error {
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); e != 0 {
		return e
	}
	return nil
}

// read reads memory of a thread, as much of n bytes as there is.
func read(tid int, addr uint64, n int) []byte {
	if addr == 0 || n <= 0 || addr+uint64(n) < addr {
		return nil
	}
	buf := make([]byte, n)
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(n)}}
	// One piece a page: of a piece all is read, or nothing.
	var remote []unix.RemoteIovec
	for at, end := addr, addr+uint64(n); at < end; {
		size := min(end-at, 4096-at%4096)
		remote = append(remote, unix.RemoteIovec{Base: uintptr(at), Len: int(size)})
		at += size
	}
	got, err := unix.ProcessVMReadv(tid, local, remote, 0)
	if errors.Is(err, unix.ENOSYS) { // without CONFIG_CROSS_MEMORY_ATTACH
		got, err = unix.PtracePeekData(tid, uintptr(addr), buf)
	}
	if err != nil {
		return nil
	}
	return buf[:got]
}

// firstExec is the call that the trace begins with, whose beginning was not seen: the
// kernel keeps what it was called with (getauxval(3), AT_EXECFN; proc(5)).
func firstExec(pid int) call {
	const execFn = 31 // AT_EXECFN
	c := call{name: "execve"}
	auxv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	name := "NULL"
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if word(auxv) == execFn {
			name = stringAt(pid, word(auxv[8:]))
		}
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	var argv []string
	for _, a := range strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00") {
		if len(argv) == maxVector {
			argv = append(argv, "...")
			break
		}
		argv = append(argv, quote([]byte(a[:min(len(a), maxString)]), len(a) > maxString))
	}
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	c.args = []string{name, "[" + strings.Join(argv, ", ") + "]", fmt.Sprintf("[/* %d vars */]", strings.Count(string(environ), "\x00"))}
	return c
}
