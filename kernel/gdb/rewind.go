package gdb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Player plays a recorded run back.
type Player struct {
	Socket string // of the gdbstub, which has the guest stopped before its first instruction
	End    func() // ends the machine
}

// NewRewinder is a Guard of a recorded run with which gdb can go back as well: to the
// instruction before (reverse-stepi), and to where a breakpoint or a watchpoint was hit
// last (reverse-continue), and to all that gdb makes of the two.
//
// A machine cannot be led back, so another is played up to where gdb wants to be, which is
// told by the count of instructions, and takes the place of the one that was. QEMU has
// commands of its own for it, which load a snapshot; with a virtio port it never comes to
// the instruction then (7.2). The requests are bs and bc (GDB manual, "Packets").
//
// Start starts a player; its context is for starting only. Ended is called when the run that gdb sees is over, or gdb ends it.
func NewRewinder(ctx context.Context, path string, start func(context.Context) (Player, error), ended func()) (*Guard, error) {
	r := &rewinder{start: start, ended: ended}
	var err error
	if r.player, err = start(ctx); err != nil {
		return nil, err
	}
	g, err := listen(ctx, path, r.connect)
	if err != nil {
		r.player.End()
		return nil, err
	}
	g.closed = func() { r.player.End() }
	return g, nil
}

type rewinder struct {
	start func(context.Context) (Player, error)
	ended func()

	player Player // what gdb looks at

	// Of the connection:
	stub   *Stub
	hello  []string // what gdb asked, by which the stub knows what it can take
	points []string // breakpoints and watchpoints, as "1,ffffffff81000000,1"

	mu        sync.Mutex
	interrupt func() // what Ctrl-C does now
}

// Stop replies, with their signals (include/gdb/signals.def): of an interrupt, and of a
// breakpoint.
const (
	stopInterrupt = "T02"
	stopTrap      = "T05"
)

// connect serves gdb until it leaves.
func (r *rewinder) connect(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stub, err := Dial(ctx, r.player.Socket)
	if err != nil {
		return err
	}
	r.stub, r.hello, r.points = stub, nil, nil
	defer func() { r.stub.Close() }()
	user := newStub(conn) // a packet is a packet, either way
	requests := make(chan string)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer conn.Close()
	reading.Go(func() {
		defer close(requests)
		defer cancel() // gdb is gone: there is nothing to go on for
		for {
			request, err := r.request(user)
			if err != nil {
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				return
			}
		}
	})
	for request := range requests {
		reply, err := r.answer(ctx, user, request)
		if err == nil {
			err = user.send(reply)
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, io.EOF): // gdb has left, or the guest
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// request reads what gdb asks for next.
func (r *rewinder) request(user *Stub) (string, error) {
	for {
		c, err := user.in.ReadByte()
		if err != nil {
			return "", err
		}
		switch c {
		case 0x03:
			r.mu.Lock()
			if r.interrupt != nil {
				r.interrupt()
			}
			r.mu.Unlock()
		case '$':
			data, err := user.data()
			if err != nil {
				return "", err
			}
			request := string(data)
			_, err = user.conn.Write([]byte{'+'})
			return request, err
		}
	}
}

// during has Ctrl-C do something as long as what is done takes.
func (r *rewinder) during(interrupt func(), what func() (string, error)) (string, error) {
	set := func(f func()) {
		r.mu.Lock()
		r.interrupt = f
		r.mu.Unlock()
	}
	set(interrupt)
	defer set(nil)
	return what()
}

// answer is what a request of gdb's gets.
func (r *rewinder) answer(ctx context.Context, user *Stub, request string) (string, error) {
	switch {
	case request == "k":
		r.ended()
		return "", io.EOF
	case strings.HasPrefix(request, "vKill"):
		r.ended()
		return "OK", nil
	case strings.HasPrefix(request, "D"):
		return "OK", nil // and stay here, for the next
	case request == "bs" || request == "bc":
		back, cancel := context.WithCancel(ctx)
		defer cancel()
		return r.during(cancel, func() (string, error) {
			reply, err := r.back(back, user, request == "bs")
			if back.Err() != nil && ctx.Err() == nil {
				return stopInterrupt + "thread:01;", nil // gdb stays where it was
			}
			return reply, err
		})
	case strings.HasPrefix(request, "qSupported"):
		r.hello = append(r.hello, request)
		reply, err := r.stub.relay(ctx, request, ignore)
		// Each packet is acknowledged here, and QEMU knows to go back only while it plays.
		features := slices.DeleteFunc(strings.Split(reply, ";"), func(f string) bool {
			return f == "QStartNoAckMode+" || strings.HasPrefix(f, "Reverse")
		})
		return strings.Join(append(features, "ReverseStep+", "ReverseContinue+"), ";"), err
	case strings.HasPrefix(request, "qXfer:features"):
		r.hello = append(r.hello, request)
	case strings.HasPrefix(request, "Z"), strings.HasPrefix(request, "z"):
		reply, err := r.stub.relay(ctx, request, ignore)
		if point := request[1:]; reply == "OK" {
			r.points = slices.DeleteFunc(r.points, func(p string) bool { return p == point })
			if request[0] == 'Z' {
				r.points = append(r.points, point)
			}
		}
		return reply, err
	case resumes.MatchString(request):
		return r.during(r.stub.interrupt, func() (string, error) {
			reply, err := r.stub.relay(ctx, request, user.send)
			if (err != nil || ended(reply)) && ctx.Err() == nil {
				r.ended()
			}
			return reply, err
		})
	}
	return r.stub.relay(ctx, request, user.send)
}

// resumes are the requests that have the guest run.
var resumes = regexp.MustCompile(`^(vCont;|[cCsS])`)

func ended(reply string) bool { return strings.HasPrefix(reply, "W") || strings.HasPrefix(reply, "X") }

// back leads gdb to the instruction before, or to where a point was hit last.
func (r *rewinder) back(ctx context.Context, user *Stub, step bool) (string, error) {
	here, err := r.stub.count(ctx)
	if err != nil {
		return "", err
	}
	if here == 0 {
		return stopTrap + "thread:01;replaylog:begin;", nil
	}
	found := hit{at: here - 1}
	if !step {
		if err := user.tell(fmt.Sprintf("playing %d instructions again, for what was hit last\n", here)); err != nil {
			return "", err
		}
		if found, err = r.last(ctx, here); err != nil {
			return "", err
		}
	}
	if err := user.tell(fmt.Sprintf("playing the run again, up to instruction %d\n", found.at)); err != nil {
		return "", err
	}
	player, stub, err := r.again(ctx)
	if err != nil {
		return "", err
	}
	reply := stopTrap + "thread:01;"
	if err = stub.until(ctx, found.at); err == nil {
		err = stub.set(ctx, r.points)
	}
	if err != nil {
		stub.Close()
		player.End()
		return "", err
	}
	r.stub.Close()
	r.player.End()
	r.player, r.stub = player, stub
	switch {
	case found.at == 0 && !step:
		reply += "replaylog:begin;"
	case found.watch != "":
		reply += found.watch + ";"
	}
	return reply, nil
}

// A hit is where a run stopped at a point.
type hit struct {
	at    int64  // instructions that were executed before
	watch string // of a watchpoint, "watch:ffff888000000000"
}

// last finds the last hit before the instruction here; without one it is the run's begin.
func (r *rewinder) last(ctx context.Context, here int64) (found hit, err error) {
	player, stub, err := r.again(ctx)
	if err != nil {
		return found, err
	}
	defer player.End()
	defer stub.Close()
	if err := stub.set(ctx, r.points); err != nil {
		return found, err
	}
	// A watchpoint stops behind the instruction that writes, which has to be undone: it
	// may be the one before.
	if err := stub.limit(ctx, here+1); err != nil {
		return found, err
	}
	for request := "c"; ; {
		reply, err := stub.relay(ctx, request, ignore)
		if err != nil && ctx.Err() != nil {
			return found, err
		}
		if err != nil || ended(reply) {
			return found, nil // here is the recording's end
		}
		at, err := stub.count(ctx)
		if err != nil {
			return found, err
		}
		watch := watched.FindString(reply)
		switch {
		case watch != "" && at <= here:
			found = hit{at - 1, watch}
		case at >= here:
			return found, nil
		case watch == "" && request == "c":
			found = hit{at: at}
		}
		// A breakpoint is not seen by a single step, which leads off it.
		if request == "c" && watch == "" {
			request = "s"
		} else {
			request = "c"
		}
	}
}

// watched is what a stop reply says of a watchpoint: of one for writing, reading or both.
var watched = regexp.MustCompile(`[ra]?watch:[0-9a-f]+`)

// again starts a player, whose stub can take what the present one can.
func (r *rewinder) again(ctx context.Context) (Player, *Stub, error) {
	player, err := r.start(ctx)
	if err != nil {
		return Player{}, nil, fmt.Errorf("play the recording again: %w", err)
	}
	stub, err := Dial(ctx, player.Socket)
	if err == nil {
		for _, request := range r.hello {
			if _, err = stub.relay(ctx, request, ignore); err != nil {
				stub.Close()
				break
			}
		}
	}
	if err != nil {
		player.End()
		return Player{}, nil, err
	}
	return player, stub, nil
}

// set sets points.
func (s *Stub) set(ctx context.Context, points []string) error {
	for _, p := range points {
		reply, err := s.relay(ctx, "Z"+p, ignore)
		if err == nil && reply != "OK" {
			err = fmt.Errorf("the stub says %.20q", reply)
		}
		if err != nil {
			return fmt.Errorf("set breakpoint %s again: %w", p, err)
		}
	}
	return nil
}

// until plays up to a count of instructions.
func (s *Stub) until(ctx context.Context, count int64) error {
	if count == 0 {
		return nil
	}
	if err := s.limit(ctx, count); err != nil {
		return err
	}
	reply, err := s.relay(ctx, "c", ignore)
	if err != nil {
		return fmt.Errorf("play up to instruction %d: %w", count, err)
	}
	at, err := s.count(ctx)
	if err == nil && at != count {
		err = fmt.Errorf("play up to instruction %d: the guest stopped at %d (%.20s)", count, at, reply)
	}
	return err
}

// limit has the guest stop when it has executed so many instructions.
func (s *Stub) limit(ctx context.Context, count int64) error {
	said, err := s.monitor(ctx, fmt.Sprintf("replay_break %d", count))
	if err == nil && said != "" {
		err = fmt.Errorf("stop at instruction %d: QEMU's monitor says %.200q", count, said)
	}
	return err
}

var counted = regexp.MustCompile(`instruction count = ([0-9]{1,18})\b`)

// count is how many instructions the guest has executed.
func (s *Stub) count(ctx context.Context) (int64, error) {
	said, err := s.monitor(ctx, "info replay")
	if err != nil {
		return 0, err
	}
	m := counted.FindStringSubmatch(said)
	if m == nil {
		return 0, fmt.Errorf("count instructions: QEMU's monitor says %.200q", said)
	}
	return strconv.ParseInt(m[1], 10, 64)
}

// monitor runs a command of QEMU's monitor, and returns what it prints.
func (s *Stub) monitor(ctx context.Context, command string) (string, error) {
	var said []byte
	reply, err := s.relay(ctx, "qRcmd,"+hex.EncodeToString([]byte(command)), func(packet string) (err error) {
		said, err = hex.AppendDecode(said, []byte(packet[1:]))
		return err
	})
	if err == nil && reply != "OK" {
		err = fmt.Errorf("the stub says %.20q", reply)
	}
	if err != nil {
		return "", fmt.Errorf("run %q in QEMU's monitor: %w", command, err)
	}
	return string(said), nil
}

// relay sends a request, and returns what is answered. Heard gets the packets of text
// that come before (O).
func (s *Stub) relay(ctx context.Context, request string, heard func(packet string) error) (string, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.send(request); err != nil {
		return "", err
	}
	for {
		data, err := s.read()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return "", err
		}
		if _, err := s.conn.Write([]byte{'+'}); err != nil {
			return "", err
		}
		reply := string(data)
		switch {
		case strings.HasPrefix(reply, "F"):
			return "", errFile
		case !strings.HasPrefix(reply, "O") || reply == "OK":
			return reply, nil
		}
		if err := heard(reply); err != nil {
			return "", err
		}
	}
}

func ignore(string) error { return nil }

// send sends a packet.
func (s *Stub) send(data string) error {
	_, err := s.conn.Write(packet(data))
	return err
}

// tell has gdb print something.
func (s *Stub) tell(text string) error {
	return s.send("O" + hex.EncodeToString([]byte(text)))
}

// interrupt has the guest stop.
func (s *Stub) interrupt() {
	_, _ = s.conn.Write([]byte{0x03}) // what failed fails where its answer is awaited
}
