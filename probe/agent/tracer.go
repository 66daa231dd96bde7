//go:build linux

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"lab/probe/trace"
	"lab/probe/wire"
)

// tracerArg is argv[0] of the process that traces the container; argv[1] is the
// container's first process, and argv[2] the JSON of a *trace.Mark.
const tracerArg = "lab-tracer"

// File descriptors that the agent gives to the tracer.
const (
	traceFD = 3 // the lines
	toldFD  = 4 // told, one JSON value each
)

// A told is what the tracer says to the agent: once that it has attached, and at the
// end how it went. A tracer that ends without that took the container with it.
type told struct {
	Attached bool          `json:"attached,omitempty"`
	Ended    bool          `json:"ended,omitempty"`
	Summary  trace.Summary `json:"summary"`
	Error    string        `json:"error,omitempty"`
}

// tracer is a process of its own, because a tracer waits for every child, and PID 1
// has others. It never returns.
func tracer() {
	for fd := traceFD; fd <= toldFD; fd++ {
		unix.CloseOnExec(fd)
	}
	say := json.NewEncoder(os.NewFile(toldFD, "told"))
	end := told{Ended: true}
	defer func() {
		if p := recover(); p != nil {
			end.Error = fmt.Sprintf("the tracer panicked: %v", p)
		}
		_ = say.Encode(end)
		unix.Exit(0)
	}()
	var mark *trace.Mark
	pid, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = json.Unmarshal([]byte(os.Args[2]), &mark)
	}
	if err == nil {
		end.Summary, err = trace.Follow(pid, os.NewFile(traceFD, "trace"), trace.MaxBytes, mark, func() error { return say.Encode(told{Attached: true}) })
	}
	if err != nil {
		end.Error = err.Error()
	}
}

// trace starts the tracer, where the test wants one, and returns when it has attached
// to the container's first process, which is yet to become the command.
func (c *container) trace(pid int) error {
	if !c.spec.Trace {
		return nil
	}
	var ends [2][2]int // reader, writer of: the lines, what is told
	for i := range ends {
		if err := unix.Pipe2(ends[i][:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("make pipes for the tracer: %w", err)
		}
	}
	mark, err := json.Marshal(c.spec.Mark)
	if err != nil {
		return fmt.Errorf("start the tracer: %w", err)
	}
	files := []uintptr{0, 1, 2, uintptr(ends[0][1]), uintptr(ends[1][1])}
	_, err = syscall.ForkExec("/proc/self/exe", []string{tracerArg, strconv.Itoa(pid), string(mark)}, &syscall.ProcAttr{Dir: "/", Files: files})
	for _, end := range ends {
		_ = unix.Close(end[1])
	}
	if err != nil {
		return fmt.Errorf("start the tracer: %w", err)
	}
	c.pumpLimited(ends[0][0], wire.TypeTrace, trace.MaxBytes)
	says := os.NewFile(uintptr(ends[1][0]), "told")
	d := json.NewDecoder(says)
	var first told
	if err := d.Decode(&first); err != nil {
		return fmt.Errorf("trace the container: the tracer died: %w", err)
	}
	if !first.Attached {
		return fmt.Errorf("trace the container: %s", first.Error)
	}
	c.output.Go(func() {
		defer c.agent.guard()
		defer says.Close()
		var last told
		err := d.Decode(&last)
		switch {
		case err != nil:
			err = fmt.Errorf("trace the container: the tracer died, and the container with it: %w", err)
		case last.Error != "":
			err = errors.New(last.Error)
		}
		for _, n := range last.Summary.Notes {
			c.agent.note("%s", n)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.untraced = err
		c.truncated = c.truncated || last.Summary.Truncated
	})
	return nil
}
