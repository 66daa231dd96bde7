package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lab/probe/wire"
)

// A guest is the other end of a session's port.
type guest struct {
	net.Conn
	t *testing.T
	w *wire.Writer
}

// ports makes n ports and their guests.
func ports(t *testing.T, n int) ([]io.ReadWriteCloser, []*guest) {
	t.Helper()
	var hosts []io.ReadWriteCloser
	var guests []*guest
	for range n {
		h, g := net.Pipe()
		t.Cleanup(func() { h.Close(); g.Close() })
		hosts = append(hosts, h)
		guests = append(guests, &guest{g, t, wire.NewWriter(g)})
	}
	return hosts, guests
}

func (g *guest) say(typ wire.Type, v any) {
	g.t.Helper()
	f := wire.Frame{Type: typ}
	switch v := v.(type) {
	case nil:
	case string:
		f.Payload = []byte(v)
	default:
		var err error
		if f, err = wire.JSON(typ, v); err != nil {
			g.t.Error(err)
		}
	}
	if err := g.w.Write(f); err != nil {
		g.t.Errorf("%s: %v", typ, err)
	}
}

// session accepts a guest that says hello.
func session(t *testing.T, hello wire.Hello) (*Session, *guest) {
	t.Helper()
	hosts, guests := ports(t, 1)
	go guests[0].say(wire.TypeHello, hello)
	s, err := Accept(t.Context(), hosts)
	if err != nil {
		t.Fatal(err)
	}
	return s, guests[0]
}

func TestRun(t *testing.T) {
	s, g := session(t, wire.Hello{Release: "6.1", Missing: []string{"cgroup namespaces"}})
	if s.Hello.Release != "6.1" {
		t.Errorf("hello %+v", s.Hello)
	}
	acked := make(chan wire.Frame)
	go func() {
		g.say(wire.TypeNote, "note")
		g.say(wire.TypeStarted, wire.Container{Capabilities: []string{"KILL"}, Seccomp: strings.Repeat("x", 300), Cgroup: "2"})
		g.say(wire.TypeStdout, "out ")
		g.say(wire.TypeStderr, "err")
		g.say(wire.TypeStdout, "put")
		g.say(wire.TypeSyslog, "<38>one")
		g.say(wire.TypeTrace, "1 getpid() = 1\n")
		g.say(wire.TypeSyslog, "<38>two")
		g.say(wire.TypeDone, wire.Done{Exit: 3, Duration: time.Second, Truncated: true})
		f, err := wire.NewReader(g).Read()
		if err != nil {
			t.Error(err)
		}
		acked <- f
	}()
	got, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Result{
		Exit: 3, Stdout: []byte("out put"), Stderr: []byte("err"), Syslog: []byte("<38>one\n<38>two\n"), Trace: []byte("1 getpid() = 1\n"), Truncated: true, Started: true,
		Complete: true, Notes: []string{"the kernel lacks cgroup namespaces", "note"}, Release: "6.1", Duration: time.Second,
		Container: &Container{Capabilities: []string{"KILL"}, Seccomp: strings.Repeat("x", 255) + "…", Cgroup: "2"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if f := <-acked; f.Type != wire.TypeAck {
		t.Errorf("the guest was told %s, want ack", f.Type)
	}
}

// TestGuestDies has a guest that is silent from some point on.
func TestGuestDies(t *testing.T) {
	s, g := session(t, wire.Hello{})
	go func() {
		g.say(wire.TypeStarted, nil)
		g.say(wire.TypeStdout, "last words")
		g.Close()
	}()
	got, err := s.Run(t.Context())
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "ended before the test was done") {
		t.Errorf("error %v", err)
	}
	if string(got.Stdout) != "last words" || !got.Started || got.Complete || got.Exit != -1 || got.Passed() {
		t.Errorf("%+v", got)
	}
}

func TestRunRefuses(t *testing.T) {
	for want, say := range map[string]func(g *guest){
		"sent hello in the middle": func(g *guest) { g.say(wire.TypeHello, wire.Hello{}) },
		"without having started":   func(g *guest) { g.say(wire.TypeDone, wire.Done{}) },
		"exit status 300":          func(g *guest) { g.say(wire.TypeStarted, nil); g.say(wire.TypeDone, wire.Done{Exit: 300}) },
		"decode started frame":     func(g *guest) { g.say(wire.TypeStarted, "{") },
		"decode done frame":        func(g *guest) { g.say(wire.TypeDone, "{") },
		"want the magic":           func(g *guest) { _, _ = g.Write(make([]byte, 100)) },
	} {
		s, g := session(t, wire.Hello{})
		go say(g)
		if r, err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) || r.Complete {
			t.Errorf("error %v, complete %v; want %q", err, r.Complete, want)
		}
	}
}

// TestLimits has a guest that says more than it may.
func TestLimits(t *testing.T) {
	s, g := session(t, wire.Hello{MaxOutput: 10, Release: strings.Repeat("r", 1000)})
	go func() {
		g.say(wire.TypeStarted, nil)
		for range 300 {
			g.say(wire.TypeNote, strings.Repeat("n", 8<<10))
			g.say(wire.TypeStdout, "1234567")
			g.say(wire.TypeSyslog, "1234567")
		}
		g.say(wire.TypeDone, wire.Done{})
	}()
	got, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Stdout) != "1234567123" || string(got.Syslog) != "1234567\n12" || !got.Truncated || len(got.Notes) != maxNotes+1 || len(got.Notes[0]) > maxNoteBytes+3 || len(got.Release) > 260 {
		t.Errorf("stdout %q, syslog %q, %d notes", got.Stdout, got.Syslog, len(got.Notes))
	}
	if c := newCollector(wire.Hello{MaxOutput: 1 << 60}); c.limit != LimitMaxOutput {
		t.Errorf("a guest may send %d bytes", c.limit)
	}
	if c := newCollector(wire.Hello{}); c.limit != DefaultMaxOutput {
		t.Errorf("a guest that names no limit may send %d bytes", c.limit)
	}
}

func TestRunCanceled(t *testing.T) {
	s, g := session(t, wire.Hello{})
	cause := errors.New("the test's time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		g.say(wire.TypeStarted, nil)
		g.say(wire.TypeStdout, "so far")
		cancel(cause)
	}()
	if _, err := s.Run(ctx); !errors.Is(err, cause) {
		t.Errorf("error %v, want the cause", err)
	}
	// The guest must not block on a host that listens no longer.
	for range 3 {
		g.say(wire.TypeStdout, "more")
	}
}

// TestAcceptSecondPort has noise on one port, and hello on the other.
func TestAcceptSecondPort(t *testing.T) {
	hosts, guests := ports(t, 2)
	go func() {
		_, _ = guests[0].Write(bytes.Repeat([]byte("noise"), wire.MaxGarbage))
		_, _ = guests[1].Write([]byte("some noise\r\n"))
		guests[1].say(wire.TypeHello, wire.Hello{Release: "3.14"})
	}()
	s, err := Accept(t.Context(), hosts)
	if err != nil || s.Hello.Release != "3.14" {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestAcceptFails(t *testing.T) {
	hosts, guests := ports(t, 3)
	go func() {
		guests[0].Close()
		guests[1].say(wire.TypeStarted, nil)
		guests[1].Close()
		_, _ = guests[2].Write([]byte("noise"))
		guests[2].Close()
	}()
	_, err := Accept(t.Context(), hosts)
	for _, want := range []string{"port 0: it ended without a word", "port 1: the first frame is started", "port 2: read frame 0: the stream ends after 5 bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, err := Accept(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "has no port") {
		t.Errorf("without ports: %v", err)
	}
}

func TestAcceptCanceled(t *testing.T) {
	hosts, _ := ports(t, 2)
	cause := errors.New("the boot's time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := Accept(ctx, hosts); !errors.Is(err, cause) {
		t.Errorf("error %v, want the cause", err)
	}
}

// TestWake: a held guest is heard twice, on the port that it is woken on.
func TestWake(t *testing.T) {
	hosts, guests := ports(t, 2)
	at := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	go guests[1].say(wire.TypeHello, wire.Hello{Held: true})
	s, err := Accept(t.Context(), hosts)
	if err != nil || !s.Hello.Held || s.Port != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := Wake(hosts[s.Port], at); err != nil {
		t.Fatal(err)
	}
	f, err := wire.NewReader(guests[1]).Read()
	var w wire.Wake
	if err != nil || f.Type != wire.TypeWake || f.Decode(&w) != nil {
		t.Fatalf("%+v, %v", f, err)
	}
	if !w.Time.Equal(at) || len(w.Entropy) != entropy || bytes.Equal(w.Entropy, make([]byte, entropy)) {
		t.Errorf("%+v", w)
	}
}
