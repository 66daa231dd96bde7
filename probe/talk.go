package probe

import (
	"io"

	"lab/probe/wire"
)

// A Talk is the host's end of an interactive command. What the guest sends is passed
// on as it is: a terminal obeys the guest.
type Talk struct {
	In       io.Reader
	Out, Err io.Writer
	Sizes    <-chan wire.Window // sizes that the terminal takes; nil without one
	Ready    func(Container)    // called once, when the command runs, with what it was given; then In is read
}

// take deals with the frames that are no part of a result.
func (t *Talk) take(w *wire.Writer, f wire.Frame) (bool, error) {
	var err error
	switch f.Type {
	case wire.TypeStdout:
		_, err = t.Out.Write(f.Payload)
	case wire.TypeStderr:
		_, err = t.Err.Write(f.Payload)
	case wire.TypeStarted:
		if t.Ready != nil {
			ready := t.Ready
			t.Ready = nil
			var k Container
			if len(f.Payload) > 0 {
				if err := f.Decode(&k); err != nil {
					return false, err
				}
			}
			ready(k)
			go t.feed(w)
			go t.resize(w)
		}
		return false, nil
	default:
		return false, nil
	}
	return true, err
}

// feed sends the input until it or the guest ends.
func (t *Talk) feed(w *wire.Writer) {
	buf := make([]byte, 16<<10)
	for {
		n, err := t.In.Read(buf)
		if n > 0 && w.Write(wire.Frame{Type: wire.TypeStdin, Payload: buf[:n]}) != nil {
			return
		}
		if err != nil {
			_ = w.Write(wire.Frame{Type: wire.TypeStdin}) // a guest that is gone needs no end
			return
		}
	}
}

func (t *Talk) resize(w *wire.Writer) {
	if t.Sizes == nil {
		return
	}
	for size := range t.Sizes {
		f, err := wire.JSON(wire.TypeResize, size)
		if err != nil || w.Write(f) != nil {
			return
		}
	}
}
