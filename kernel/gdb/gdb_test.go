package gdb

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

// answered is a stub whose other end says what is given, whatever it is asked.
func answered(t testing.TB, says string) *Stub {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	go func() {
		_, _ = theirs.Write([]byte(says))
		if !strings.Contains(says, "#") {
			theirs.Close()
		}
	}()
	return newStub(ours)
}

func TestPackets(t *testing.T) {
	if got := string(packet("m1000,8")); got != "$m1000,8#92" {
		t.Errorf("a request is %s", got)
	}
	for name, c := range map[string]struct{ says, want, err string }{
		"plain":             {says: "+$OK#9a", want: "OK"},
		"escaped":           {says: "+$a}\x03b#43", want: "a#b"},
		"a run":             {says: "+$0* #7a", want: "0000"},
		"error":             {says: "+$E22#a9", err: "says E22"},
		"unknown":           {says: "+$#00", err: "does not know"},
		"wrong sum":         {says: "+$OK#9b", err: "whose sum is 9a"},
		"not acknowledged":  {says: "-", err: "could not read"},
		"noise":             {says: "+x", err: "where a packet begins"},
		"ends":              {says: "+$O", err: "QEMU ended"},
		"a run of nothing":  {says: "+$0*\x1f#00", err: "a run of"},
		"more than may be":  {says: "+$" + strings.Repeat("0", maxPacket+1), err: "more than"},
		"a run beyond that": {says: "+$" + strings.Repeat("0", maxPacket-1) + "*~#00", err: "more than"},
	} {
		reply, err := answered(t, c.says).ask(t.Context(), "?")
		if c.err == "" && (err != nil || string(reply) != c.want) {
			t.Errorf("%s: %q, %v", name, reply, err)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %s", name, err, c.err)
		}
	}
}

func TestAskEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := answered(t, "+#")
	go cancel()
	if _, err := s.ask(ctx, "c"); err == nil {
		t.Error("it was answered")
	}
}

func TestRegistersTooFew(t *testing.T) {
	if _, err := registers([]byte("00112233")); err == nil || !strings.Contains(err.Error(), "8 digits") {
		t.Errorf("%v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"+$OK#9a", "$0* #7a", "$}\x03#00", "+$T05thread:01;#d7"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		theirs.Close()
		s := newStub(ours)
		s.in.Reset(bytes.NewReader(data))
		for {
			reply, err := s.read()
			if err != nil {
				return
			}
			_, _ = registers(reply)
			if len(reply) > maxPacket {
				t.Fatalf("%d bytes", len(reply))
			}
		}
	})
}
