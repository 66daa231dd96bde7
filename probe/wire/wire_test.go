package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stream is what a Writer makes of frames.
func stream(t testing.TB, frames ...Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, f := range frames {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func readAll(r io.Reader) ([]Frame, error) {
	var frames []Frame
	for rd := NewReader(r); ; {
		f, err := rd.Read()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

func TestRoundTrip(t *testing.T) {
	want := []Frame{
		{TypeHello, []byte(`{"release":"6.1"}`)},
		{TypeStarted, []byte{}},
		{TypeStdout, bytes.Repeat([]byte{0xf5}, MaxPayload)},
		{TypeStderr, []byte(magic)},
		{TypeDone, []byte(`{}`)},
	}
	data := stream(t, want...)
	for _, prefix := range []string{"", "SeaBIOS (version 1.16)\r\n", "\xf5LA\xf5L", strings.Repeat("\xf5", MaxGarbage)} {
		got, err := readAll(iotest.OneByteReader(io.MultiReader(strings.NewReader(prefix), bytes.NewReader(data))))
		if err != nil {
			t.Fatalf("after %.20q: %v", prefix, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("after %.20q: %s", prefix, d)
		}
	}
}

func TestSequenceWraps(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	r := NewReader(&b)
	for i := range 1<<16 + 2 {
		if err := w.Write(Frame{Type: TypeStarted}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
}

func TestReaderSaysWhatIsWrong(t *testing.T) {
	good := stream(t, Frame{TypeHello, []byte("hello")}, Frame{TypeStdout, []byte("out")})
	second := len(good) - headerSize - len("out")
	change := func(at int, b byte) []byte {
		d := bytes.Clone(good)
		d[at] = b
		return d
	}
	for _, test := range []struct {
		name string
		data []byte
		want string
		eof  bool // the error is that of a stream that ends early
	}{
		{"only noise", []byte("Booting from ROM"), "without a frame", false},
		{"endless noise", bytes.Repeat([]byte("noise"), MaxGarbage), "no frame in the first 65536 bytes", false},
		{"version", change(4, 9), "version 9", false},
		{"type", change(5, 200), "type 200 is not defined", false},
		{"first number", change(6, 1), "it is number 1", false},
		{"length", change(10, 0xff), "payload of 16711685 bytes", false},
		{"checksum", change(headerSize, 'j'), "checksum", false},
		{"noise between frames", change(second, 'x'), "want the magic", false},
		{"lost frame", append(bytes.Clone(good), stream(t, Frame{Type: TypeDone})...), "it is number 0", false},
		{"ends in header", good[:second+3], "header ends after 3 of 16", true},
		{"ends in payload", good[:len(good)-1], "payload ends after 2 of 3", true},
		{"ends before payload", good[:second+headerSize], "payload ends after 0 of 3", true},
	} {
		_, err := readAll(bytes.NewReader(test.data))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", test.name, err, test.want)
		}
		if got := errors.Is(err, io.ErrUnexpectedEOF); got != test.eof {
			t.Errorf("%s: is io.ErrUnexpectedEOF: %v, want %v", test.name, got, test.eof)
		}
	}
}

func TestReaderStaysBroken(t *testing.T) {
	bad := stream(t, Frame{Type: TypeHello})
	bad[12]++
	r := NewReader(io.MultiReader(bytes.NewReader(bad), bytes.NewReader(stream(t, Frame{Type: TypeDone}))))
	_, first := r.Read()
	if _, second := r.Read(); first == nil || !errors.Is(second, first) {
		t.Errorf("errors %v, then %v; want the same twice", first, second)
	}
}

// oneWrite fails a test when a frame comes in more than one Write.
type oneWrite struct{ sizes []int }

func (w *oneWrite) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}

func TestWriterWritesOnce(t *testing.T) {
	var w oneWrite
	if err := NewWriter(&w).Write(Frame{TypeStdout, make([]byte, MaxPayload)}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{headerSize + MaxPayload}, w.sizes); d != "" {
		t.Error(d)
	}
}

func TestWriterRefuses(t *testing.T) {
	var w oneWrite
	if err := NewWriter(&w).Write(Frame{TypeStdout, make([]byte, MaxPayload+1)}); err == nil {
		t.Error("a payload over the limit was written")
	}
	if err := NewWriter(&w).Write(Frame{Type: 0}); err == nil {
		t.Error("a frame without a type was written")
	}
	if w.sizes != nil {
		t.Errorf("refused frames wrote %v bytes", w.sizes)
	}
}

type failing struct{ calls int }

func (f *failing) Write(p []byte) (int, error) { f.calls++; return 0, errors.New("port is gone") }

func TestWriterStopsAtError(t *testing.T) {
	var f failing
	w := NewWriter(&f)
	for range 2 {
		if err := w.Write(Frame{Type: TypeDone}); err == nil || !strings.Contains(err.Error(), "port is gone") {
			t.Errorf("error %v, want the port's", err)
		}
	}
	if f.calls != 1 {
		t.Errorf("%d writes after an error, want none", f.calls-1)
	}
}

func TestJSON(t *testing.T) {
	want := Done{Exit: 137, Signal: "SIGKILL", TimedOut: true, Duration: 3 * time.Second}
	f, err := JSON(TypeDone, want)
	if err != nil {
		t.Fatal(err)
	}
	var got Done
	if err := f.Decode(&got); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if err := (Frame{TypeDone, []byte("{")}).Decode(&got); err == nil || !strings.Contains(err.Error(), "decode done frame") {
		t.Errorf("error %v, want one that names the frame", err)
	}
}

// FuzzReader feeds the Reader anything. What it accepts must be exactly what a
// Writer makes of the frames it returned, but for noise at the start.
func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("noise"))
	f.Add(stream(f, Frame{TypeHello, []byte("{}")}, Frame{TypeDone, []byte("{}")}))
	f.Add(append([]byte("noise \xf5LA"), stream(f, Frame{TypeStdout, make([]byte, 300)})...))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames, err := readAll(bytes.NewReader(data))
		again := stream(t, frames...)
		if err == nil && !bytes.HasSuffix(data, again) {
			t.Errorf("accepted bytes that a Writer does not write")
		}
		if err != nil && !bytes.Contains(data, again) {
			t.Errorf("returned frames that are not in the stream")
		}
	})
}

// FuzzRoundTrip writes any frame and reads it back.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint8(1), []byte("x"), []byte("noise"))
	f.Add(uint8(7), []byte(magic), []byte("\xf5\xf5L"))
	f.Fuzz(func(t *testing.T, typ uint8, payload, noise []byte) {
		in := Frame{Type(typ), payload}
		var b bytes.Buffer
		err := NewWriter(&b).Write(in)
		if ok := in.Type.valid() && len(payload) <= MaxPayload; ok != (err == nil) {
			t.Fatalf("write %s of %d bytes: %v", in.Type, len(payload), err)
		}
		if err != nil || bytes.Contains(noise, []byte(magic)) || len(noise) > MaxGarbage {
			return
		}
		got, err := readAll(io.MultiReader(bytes.NewReader(noise), &b))
		if err != nil || len(got) != 1 || got[0].Type != in.Type || !bytes.Equal(got[0].Payload, payload) {
			t.Errorf("wrote %v after %q, read %v, %v", in, noise, got, err)
		}
	})
}

func TestMade(t *testing.T) {
	c := Container{
		Engine: "podman version 4.3.1", Runtime: "crun version 1.8.1", Seccomp: "default", Profile: "sha256:165019aad6524793ab0c",
		Cgroup: "2", CgroupDriver: "cgroupfs", StorageDriver: "vfs", Capabilities: []string{"CHOWN", "KILL"},
	}
	for _, test := range []struct {
		change func(*Container)
		want   string
	}{
		{func(*Container) {}, "podman version 4.3.1 with crun version 1.8.1; seccomp default 165019aad652; control groups 2 by cgroupfs; storage vfs; capabilities CHOWN, KILL"},
		{func(c *Container) {
			c.Runtime, c.Seccomp, c.Profile, c.StorageDriver, c.Capabilities = "", "unconfined", "", "", make([]string, 41)
		}, "podman version 4.3.1; seccomp unconfined; control groups 2 by cgroupfs; capabilities: 41"},
		{func(c *Container) { c.Capabilities = nil }, "podman version 4.3.1 with crun version 1.8.1; seccomp default 165019aad652; control groups 2 by cgroupfs; storage vfs; capabilities none"},
		{func(c *Container) { c.Engine = "" }, ""},
		{func(c *Container) { c.Engine, c.Runtime, c.Init, c.Capabilities = "", "", "systemd 252", nil }, "lab under systemd 252; seccomp default 165019aad652; control groups 2 by cgroupfs; storage vfs; capabilities none"},
	} {
		k := c
		test.change(&k)
		if got := k.Made(); got != test.want {
			t.Errorf("%s\nwant %s", got, test.want)
		}
	}
}
