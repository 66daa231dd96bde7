package origin

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lab/kernel/gdb"
)

// process is a Guest: a program of the host that is traced.
type process int

func (p process) Registers(context.Context) (r gdb.Registers, err error) {
	var u unix.PtraceRegs
	if err := unix.PtraceGetRegs(int(p), &u); err != nil {
		return r, err
	}
	r.General = [16]uint64{u.Rax, u.Rbx, u.Rcx, u.Rdx, u.Rsi, u.Rdi, u.Rbp, u.Rsp, u.R8, u.R9, u.R10, u.R11, u.R12, u.R13, u.R14, u.R15}
	r.RIP, r.Flags, r.FSBase, r.GSBase = u.Rip, uint32(u.Eflags), u.Fs_base, u.Gs_base
	return r, nil
}

func (p process) Memory(_ context.Context, addr uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := unix.PtracePeekData(int(p), uintptr(addr), b)
	return b, err
}

func (p process) Step(context.Context) error {
	if err := unix.PtraceSingleStep(int(p)); err != nil {
		return err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(p), &status, 0, nil); err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("it ended: %#x", status)
	}
	return nil
}

func (p process) Break(context.Context, uint64) error { return unix.ENOSYS }
func (p process) Clear(context.Context, uint64) error { return unix.ENOSYS }
func (p process) Continue(context.Context) error      { return unix.ENOSYS }

// recorded has a program's function call recorded; the program is told which error by
// the number of its arguments.
func recorded(t *testing.T, program string, number int, call uint64) *Walk {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(program, make([]string, number)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_, _ = unix.Wait4(cmd.Process.Pid, &status, 0, nil)
	}()
	p := process(cmd.Process.Pid)
	for range 1000 {
		r, err := p.Registers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.RIP == call {
			w, err := Record(t.Context(), p, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		if err := p.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the function was not called")
	return nil
}

// TestOrigin follows real programs, as a compiler makes them of the same source in
// different ways.
func TestOrigin(t *testing.T) {
	source, err := os.ReadFile("testdata/kernel.c")
	if err != nil {
		t.Fatal(err)
	}
	lineOf := map[string]int{}
	for i, line := range strings.Split(string(source), "\n") {
		if _, rest, ok := strings.Cut(line, "/* from "); ok {
			lineOf[rest[:1]] = i + 1
		}
	}
	for _, options := range []string{"-O0", "-O1", "-O2", "-Os", "-O2 -gdwarf-4", "-O2 -fomit-frame-pointer -fcf-protection=none"} {
		t.Run(options, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "kernel")
			args := append(strings.Fields(options), "-g", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie", "-nostdlib", "-static", "-o", program, "testdata/kernel.c")
			if strings.Contains(options, "-O2 -f") {
				args = append(args, "-D_start=__attribute__((optimize(\"no-omit-frame-pointer\")))_start")
			} else {
				args = append(args, "-fno-omit-frame-pointer")
			}
			if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
				t.Fatalf("gcc: %v\n%s(not installed? Run lab doctor --install)", err, out)
			}
			symbols, err := ReadSymbols(program)
			if err != nil {
				t.Fatal(err)
			}
			for number, test := range []struct {
				result  int32
				made    string // function
				callers string
			}{
				{-1, "refuse", "middle call"},
				{-12, "choose", "middle call"},
				{-22, "inlined", "wraps middle call"},
				{-5, "by_pointer", "points middle call"},
				{-4, "computes", "middle call"},
				{132, "acks", "middle call"},
				{-11, "loops", "middle call"},
				{-13, "", ""},
			} {
				w := recorded(t, program, number, symbols.Address("call"))
				if got := w.Result(); got != test.result {
					t.Fatalf("%d: the program returned %d", number, got)
				}
				o, line := w.OfResult(), lineOf[fmt.Sprint(number)]
				if number == 5 {
					var ok bool
					if o, ok = w.OfStore(0, 1<<63, -1); !ok {
						t.Errorf("%d: no store was found", number)
						continue
					}
					test.made, test.callers, line = "refuse", "acks middle call", lineOf["0"]
				}
				if test.made == "" {
					if o.Step >= 0 {
						t.Errorf("%d: %v, and it was in memory before", number, symbols.Places(w.Steps[o.Step].RIP))
					}
					continue
				}
				if o.Step < 0 {
					t.Errorf("%d: was there before", number)
					continue
				}
				at, chain := w.At(o.Step, symbols)
				var callers []string
				for _, p := range append(at[1:len(at):len(at)], chain...) {
					callers = append(callers, p.Function)
				}
				if options != "-O0" && at[0].Line > 0 {
					line = at[0].Line // a compiler that optimizes makes an error earlier or later
				}
				if at[0].Function != test.made || at[0].Line != line || filepath.Base(at[0].File) != "kernel.c" || strings.Join(callers, " ") != test.callers {
					t.Errorf("%d: %v called by %v, not %s at line %d called by %s", number, at[0], callers, test.made, line, test.callers)
				}
			}
		})
	}
}

func TestSymbols(t *testing.T) {
	file := filepath.Join(t.TempDir(), "System.map")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ffffffff81000100 t inner\nffffffff81000000 T _text\n0000000000000000 A fixed\nffffffff82000000 D data\nffffffff81000200 T last\n")
	s, err := ReadSymbols(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(s.Places(0xffffffff81000123)); got != "[inner+0x23]" {
		t.Errorf("the instruction is in %s", got)
	}
	if from, to := s.Extent("inner"); from != 0xffffffff81000100 || to != 0xffffffff81000200 {
		t.Errorf("inner is from %#x to %#x", from, to)
	}
	if s.Address("data", "nowhere") != 0 || s.Address("nowhere", "last") != 0xffffffff81000200 {
		t.Error("data is taken for a function, or a function not found")
	}
	for text, want := range map[string]string{"": "no functions", "x T y\n": "invalid syntax", "\x7fELF": "EOF", "1 D d\n": "no functions"} {
		write(text)
		if _, err := ReadSymbols(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzSymbols(f *testing.F) {
	f.Add([]byte("ffffffff81000100 t inner\n"))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := readMap(bytes.NewReader(data))
		if bytes.HasPrefix(data, []byte("\x7fELF")) {
			s, err = readELF(bytes.NewReader(data))
		}
		if err == nil && len(s.Places(0xffffffff81000123)) == 0 {
			t.Error("an instruction is nowhere")
		}
	})
}
