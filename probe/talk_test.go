package probe

import (
	"bytes"
	"strings"
	"testing"

	"lab/probe/wire"
)

// TestTalk has an interactive command: what it says is passed on, it is sent its
// input to the end, and the ack comes in the same stream.
func TestTalk(t *testing.T) {
	s, g := session(t, wire.Hello{})
	var out, errs bytes.Buffer
	ready := 0
	s.Talk = &Talk{In: strings.NewReader("typed"), Out: &out, Err: &errs, Ready: func(Container) { ready++ }}
	heard := make(chan string)
	go func() {
		defer close(heard)
		r := wire.NewReader(g)
		g.say(wire.TypeStarted, nil)
		for {
			f, err := r.Read()
			if err != nil {
				t.Error(err)
				return
			}
			heard <- f.Type.String() + " " + string(f.Payload)
			switch {
			case f.Type == wire.TypeAck:
				return
			case len(f.Payload) == 0: // the end of the input
				g.say(wire.TypeStdout, "out")
				g.say(wire.TypeStderr, "err")
				g.say(wire.TypeDone, wire.Done{Exit: 7})
			}
		}
	}()
	all := make(chan string)
	go func() {
		var list []string
		for h := range heard {
			list = append(list, h)
		}
		all <- strings.Join(list, ",")
	}()
	got, err := s.Run(t.Context())
	if err != nil || got.Exit != 7 || len(got.Stdout) > 0 || ready != 1 {
		t.Errorf("%+v, %v; ready %d times", got, err, ready)
	}
	if out.String() != "out" || errs.String() != "err" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	if h := <-all; h != "stdin typed,stdin ,ack " {
		t.Errorf("the guest heard %q", h)
	}
}
