package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"lab/probe/trace"
	"lab/probe/wire"
)

// A Session is a guest whose agent has said hello.
type Session struct {
	Hello wire.Hello // what the agent said of itself and of its kernel
	Port  int        // which of the machine's ports it said it on
	// Silent has Run send the guest nothing, not even its ack: it comes when the host is
	// ready, and the guest is to do the same each time.
	Silent bool
	// Talk connects an interactive command; nil where it is none.
	Talk *Talk

	port io.ReadWriteCloser
	r    *wire.Reader
	w    *wire.Writer
}

// Accept waits for the agent's hello on whichever port has it first: then the
// kernel has booted. It fails when all ports ended without one, naming what
// each had instead, and when ctx is done, with ctx's cause.
//
// The ports stay the caller's, who closes them (by ending the machine) when
// the session is over; that also ends their readers. Until then whatever the
// other ports say is read and thrown away, so that no guest blocks on them.
func Accept(ctx context.Context, ports []io.ReadWriteCloser) (*Session, error) {
	type greeting struct {
		s   *Session
		err error
	}
	greetings := make(chan greeting, len(ports)) // room for all: no reader waits for us
	for i, p := range ports {
		go func() {
			s, err := readHello(p)
			if err != nil {
				err = fmt.Errorf("port %d: %w", i, err)
			} else {
				s.Port = i
			}
			greetings <- greeting{s, err}
			if err != nil {
				_, _ = io.Copy(io.Discard, p) // until it is closed
			}
		}()
	}
	if len(ports) == 0 {
		return nil, errors.New("wait for the agent: the machine has no port")
	}
	var errs []error
	for range ports {
		select {
		case g := <-greetings:
			if g.err == nil {
				return g.s, nil
			}
			errs = append(errs, g.err)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the agent: %w", errors.Join(append(errs, context.Cause(ctx))...))
		}
	}
	return nil, fmt.Errorf("wait for the agent: %w", errors.Join(errs...))
}

func readHello(p io.ReadWriteCloser) (*Session, error) {
	r := wire.NewReader(p)
	f, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it ended without a word")
	}
	if err != nil {
		return nil, err
	}
	if f.Type != wire.TypeHello {
		return nil, fmt.Errorf("the first frame is %s, want hello", f.Type)
	}
	s := &Session{port: p, r: r, w: wire.NewWriter(p)}
	return s, f.Decode(&s.Hello)
}

// Run collects what the guest says until its done frame, which it answers with
// an ack, unless it is Silent. A guest that falls silent before that (its kernel died, its machine
// was ended) is an error, and so is anything that is not the protocol; the
// Result then holds what came before. When ctx is done, Run returns at once
// with ctx's cause: to have all that a dying guest sent, end its machine
// rather than ctx, and Run sees the end of the stream after the last frame.
//
// A Session runs once.
func (s *Session) Run(ctx context.Context) (Result, error) {
	c := newCollector(s.Hello)
	type read struct {
		frame wire.Frame
		err   error
	}
	frames := make(chan read)
	go func() {
		for {
			f, err := s.r.Read()
			select {
			case frames <- read{f, err}:
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
			if err != nil || f.Type == wire.TypeDone {
				_, _ = io.Copy(io.Discard, s.port) // until it is closed: the guest must not block
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return c.result, fmt.Errorf("run the test: %w", context.Cause(ctx))
		case r := <-frames:
			if errors.Is(r.err, io.EOF) {
				return c.result, fmt.Errorf("run the test: the guest's stream ended before the test was done: %w", io.ErrUnexpectedEOF)
			}
			if r.err != nil {
				return c.result, fmt.Errorf("run the test: %w", r.err)
			}
			if s.Talk != nil {
				if taken, err := s.Talk.take(s.w, r.frame); err != nil {
					return c.result, fmt.Errorf("run the command: %w", err)
				} else if taken {
					continue
				}
			}
			if err := c.add(r.frame); err != nil {
				return c.result, fmt.Errorf("run the test: %w", err)
			}
			if c.result.Complete {
				if !s.Silent {
					s.acknowledge()
				}
				return c.result, nil
			}
		}
	}
}

// acknowledge tells the guest that it may power off. A guest that is gone
// already, or does not read, is no harm: it waits for the ack a while only.
func (s *Session) acknowledge() {
	go func() { _ = s.w.Write(wire.Frame{Type: wire.TypeAck}) }()
}

// Wake has a held guest go on, with as much entropy as its kernel can use, at the
// time that it is to be; Accept then hears it say hello again. A guest that does
// not read is no error here: it will not say hello.
func Wake(port io.Writer, at time.Time) error {
	w := wire.Wake{Entropy: make([]byte, entropy), Time: at}
	_, _ = rand.Read(w.Entropy) // never fails
	f, err := wire.JSON(wire.TypeWake, w)
	if err != nil {
		return err
	}
	go func() { _ = wire.NewWriter(port).Write(f) }()
	return nil
}

// entropy is the size, in bytes, of the input pool of kernels before Linux 5.18
// (drivers/char/random.c); later ones are sated with 32.
const entropy = 512

// Bounds on what a guest can make the host keep, besides its output.
const (
	maxNotes     = 256
	maxNoteBytes = 4 << 10
	maxText      = 64 << 10
)

// A collector turns frames into a Result.
type collector struct {
	result Result
	limit  int64
}

func newCollector(h wire.Hello) *collector {
	c := &collector{limit: h.MaxOutput}
	if c.limit <= 0 {
		c.limit = DefaultMaxOutput
	}
	c.limit = min(c.limit, LimitMaxOutput)
	c.result.Exit = -1
	c.result.Release = clip(h.Release, 256)
	for _, m := range h.Missing {
		c.note("the kernel lacks " + m)
	}
	return c
}

func (c *collector) add(f wire.Frame) error {
	r := &c.result
	switch f.Type {
	case wire.TypeStarted:
		r.Started = true
		if len(f.Payload) > 0 {
			return c.started(f)
		}
	case wire.TypeStdout:
		r.Stdout = c.append(r.Stdout, f.Payload)
	case wire.TypeStderr:
		r.Stderr = c.append(r.Stderr, f.Payload)
	case wire.TypeSyslog:
		r.Syslog = c.append(r.Syslog, append(f.Payload, '\n'))
	case wire.TypeAudit:
		r.Audit = c.append(r.Audit, append(f.Payload, '\n'))
	case wire.TypeTrace:
		r.Trace = c.appendTo(r.Trace, f.Payload, trace.MaxBytes)
	case wire.TypeNote:
		c.note(string(f.Payload))
	case wire.TypeDone:
		return c.done(f)
	default:
		return fmt.Errorf("the guest sent %s in the middle of a test", f.Type)
	}
	return nil
}

func (c *collector) started(f wire.Frame) error {
	var k Container
	if err := f.Decode(&k); err != nil {
		return err
	}
	k.Capabilities = k.Capabilities[:min(len(k.Capabilities), 64)]
	for i, s := range k.Capabilities {
		k.Capabilities[i] = clip(s, 64)
	}
	k.Seccomp, k.Filter, k.Cgroup = clip(k.Seccomp, maxSeccompName), clip(k.Filter, 128), clip(k.Cgroup, 16)
	k.Engine, k.Runtime, k.Guest = clip(k.Engine, 256), clip(k.Runtime, 256), clip(k.Guest, 256)
	k.Init = clip(k.Init, 256)
	k.SeccompMode, k.Profile = clip(k.SeccompMode, 16), clip(k.Profile, 128)
	k.CgroupDriver, k.StorageDriver = clip(k.CgroupDriver, 64), clip(k.StorageDriver, 64)
	if s := k.SELinux; s != nil {
		s.Mode, s.Policy, s.Label = clip(s.Mode, 16), clip(s.Policy, 128), clip(s.Label, 4<<10)
	}
	c.result.Container = &k
	return nil
}

func (c *collector) done(f wire.Frame) error {
	var d wire.Done
	if err := f.Decode(&d); err != nil {
		return err
	}
	r := &c.result
	if d.Exit < -1 || d.Exit > 255 || d.Duration < 0 || d.Duration > 10*365*24*time.Hour {
		return fmt.Errorf("the guest reports exit status %d after %s", d.Exit, d.Duration)
	}
	if d.Error == "" && !r.Started {
		return errors.New("the guest is done without having started the test")
	}
	r.Exit, r.Signal, r.TimedOut = d.Exit, clip(d.Signal, 32), d.TimedOut
	r.Truncated = r.Truncated || d.Truncated
	r.Error, r.Duration = clip(d.Error, maxText), d.Duration
	r.Complete = true
	return nil
}

// append adds as much of p to b as the limit of output has room for.
func (c *collector) append(b, p []byte) []byte { return c.appendTo(b, p, c.limit) }

func (c *collector) appendTo(b, p []byte, limit int64) []byte {
	if room := limit - int64(len(b)); int64(len(p)) > room {
		p = p[:room]
		c.result.Truncated = true
	}
	return append(b, p...)
}

func (c *collector) note(s string) {
	switch n := len(c.result.Notes); {
	case n < maxNotes:
		c.result.Notes = append(c.result.Notes, clip(s, maxNoteBytes))
	case n == maxNotes:
		c.result.Notes = append(c.result.Notes, "there were more notes")
	}
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
