package gdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnswers: what a stub may send goes through as it is, and nothing of the rest.
func TestAnswers(t *testing.T) {
	for _, c := range []struct{ sent, passes, refused string }{
		{"+$OK#9a-$S05#b8", "+$OK#9a-$S05#b8", ""},
		{"$#00", "$#00", ""},
		{"$0* #7a$}F#C3", "$0* #7a$}F#C3", ""}, // }F is an f
		{"$S05", "", ""},
		{"$OK#9a$Fopen,1000/8,601,1b6#00", "$OK#9a", "no packet|whose sum"},
		{"+" + string(packet("Fopen,1000/8,601,1b6")) + "$OK#9a", "+", "a file of yours"},
		{"$a$F#46", "", "no packet"},
		{"$a*#xx$F#46", "", "no packet"},
		{"%Stop:S05#00", "", "where a packet begins"},
		{"$OK#00", "", "whose sum is 9a"},
		{"$" + strings.Repeat("0", maxPacket), "", "no packet"},
	} {
		var out bytes.Buffer
		err := answers(&out, strings.NewReader(c.sent))
		if out.String() != c.passes {
			t.Errorf("%.40q: %q passes", c.sent, out.String())
		}
		if c.refused == "" {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%.40q: %v", c.sent, err)
			}
			continue
		}
		said := false
		for _, want := range strings.Split(c.refused, "|") {
			said = said || err != nil && strings.Contains(err.Error(), want)
		}
		if !errors.Is(err, errRefused) || !said {
			t.Errorf("%.40q: %v", c.sent, err)
		}
	}
}

// FuzzAnswers: whatever a stub sends, what gdb gets is whole packets, none of them a
// request, as our own reader sees them.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("+$OK#9a-$S05#b8$a*#xx$F#46"))
	f.Add(packet("Fopen,1000/8,601,1b6"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		var out bytes.Buffer
		_ = answers(&out, bytes.NewReader(sent))
		if !bytes.HasPrefix(sent, out.Bytes()) {
			t.Fatalf("%q became %q", sent, out.Bytes())
		}
		for i, c := range out.Bytes() {
			if c == '$' && i+1 < out.Len() && out.Bytes()[i+1] == 'F' {
				t.Fatalf("%q has a request", out.Bytes())
			}
		}
	})
}

// TestGuard has gdb itself talk to a stub that asks it for a file: it makes the file,
// unless there is a Guard.
func TestGuard(t *testing.T) {
	if _, err := exec.LookPath("gdb"); err != nil {
		t.Fatal("gdb is not installed: run lab doctor --install")
	}
	for _, guarded := range []bool{false, true} {
		dir := t.TempDir()
		socket, file := filepath.Join(dir, "stub"), filepath.Join(dir, "file")
		stub, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- asksForAFile(stub, file) }()
		var g *Guard
		if guarded {
			path := filepath.Join(dir, "guard")
			if g, err = NewGuard(t.Context(), path, socket); err != nil {
				t.Fatal(err)
			}
			socket = path
		}
		cmd := exec.CommandContext(t.Context(), "gdb", "-nx", "-batch", "-ex", "set architecture i386:x86-64", "-ex", "target remote "+socket, "-ex", "continue")
		out, _ := cmd.CombinedOutput() // its status says nothing
		stub.Close()
		if err := <-done; err != nil {
			t.Errorf("stub: %v\n%s", err, out)
		}
		if _, err := os.Stat(file); (err == nil) == guarded {
			t.Errorf("with a guard %v: %v\n%s", guarded, err, out)
		}
		if !guarded {
			continue
		}
		if err := g.Close(); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "a file of yours") {
			t.Error(err)
		}
		if _, err := os.Stat(socket); err == nil {
			t.Error("the socket is still there")
		}
	}
}

// asksForAFile is a stub for one connection, of a machine that asks gdb to make a file
// when it is told to go on.
func asksForAFile(listener net.Listener, file string) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	s := newStub(conn) // a packet is a packet, either way
	for {
		request, err := s.read()
		if err != nil {
			return nil // gdb is done
		}
		answer := ""
		switch ask := string(request); {
		case strings.HasPrefix(ask, "qSupported"):
			answer = "PacketSize=1000"
		case ask == "?", strings.HasPrefix(ask, "F"):
			answer = "S05"
		case ask == "g":
			answer = strings.Repeat("0", 2*560)
		case strings.HasPrefix(ask, "m"):
			var from, n int
			if _, err := fmt.Sscanf(ask, "m%x,%x", &from, &n); err != nil {
				return err
			}
			memory := make([]byte, 1<<13)
			copy(memory[0x1000:], file)
			answer = fmt.Sprintf("%x", memory[min(from, len(memory)):min(from+n, len(memory))])
		case ask == "c":
			answer = fmt.Sprintf("Fopen,1000/%x,601,1b6", len(file)+1) // O_WRONLY|O_CREAT|O_TRUNC
		}
		if _, err := conn.Write(append([]byte{'+'}, packet(answer)...)); err != nil {
			return nil
		}
	}
}
