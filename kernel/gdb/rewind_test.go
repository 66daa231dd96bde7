package gdb

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ROM is a firmware of 64 KiB, the last of the first MiB (f000:0000), where an x86 CPU
// begins at f000:fff0. It counts the word at 0x600 up to 100 and ends the machine by
// isa-debug-exit.
func rom() []byte {
	r := make([]byte, 1<<16)
	copy(r[0xfff0:], "\xea\x00\x00\x00\xf0") // ljmp $0xf000,$0
	copy(r, "\xfc"+                          // cld
		"\x31\xc0\x8e\xc0\x8c\xc8\x8e\xd8"+ // es = 0, ds = cs
		"\xbe\x00\x01\xbf\x00\x7c\xb9\x20\x00\xf3\xa4"+ // copy 32 bytes from 0x100 to 0:7c00
		"\x31\xc0\x8e\xd8\xea\x00\x7c\x00\x00") // ds = 0; ljmp $0,$0x7c00
	copy(r[0x100:], "\xb9\x64\x00"+ // 7c00: mov $100,%cx
		"\xff\x06\x00\x06"+ // 7c03: incw 0x600
		"\xe2\xfa"+ // 7c07: loop 7c03
		"\xa3\x02\x06"+ // 7c09: mov %ax,0x602
		"\xe6\xf4"+ // 7c0c: out %al,$0xf4
		"\xeb\xfe")
	return r
}

// machine starts QEMU with the ROM in dir.
func machine(ctx context.Context, t *testing.T, dir, mode string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{
		"-machine", "pc", "-m", "16", "-nodefaults", "-display", "none", "-bios", filepath.Join(dir, "rom"),
		"-icount", "shift=auto,rr=" + mode + ",rrfile=" + filepath.Join(dir, "log"), "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
	}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestRewinder has gdb go back in a run that QEMU plays back.
func TestRewinder(t *testing.T) {
	for _, tool := range []string{"gdb", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not installed: run lab doctor --install", tool)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rom"), rom(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := machine(t.Context(), t, dir, "record").Wait(); err == nil || err.Error() != "exit status 1" { // 2 * 0 + 1
		t.Fatalf("record: %v", err)
	}
	players := 0
	start := func(starting context.Context) (Player, error) {
		socket := filepath.Join(t.TempDir(), "stub")
		ctx, cancel := context.WithCancel(t.Context())
		cmd := machine(ctx, t, dir, "replay", "-S", "-gdb", "unix:"+socket+",server=on,wait=off")
		players++
		end := func() { cancel(); _ = cmd.Wait() }
		for starting.Err() == nil {
			if conn, err := net.Dial("unix", socket); err == nil {
				conn.Close()
				return Player{Socket: socket, End: end}, nil
			}
			time.Sleep(time.Millisecond)
		}
		end()
		return Player{}, starting.Err()
	}
	var path string
	rewinder := func() (*Guard, chan struct{}) {
		t.Helper()
		over := make(chan struct{})
		path = filepath.Join(t.TempDir(), "gdb")
		g, err := NewRewinder(t.Context(), path, start, func() { close(over) })
		if err != nil {
			t.Fatal(err)
		}
		return g, over
	}
	g, over := rewinder()
	debug := func(commands ...string) string {
		args := []string{"-nx", "-batch", "-ex", "set architecture i386:x86-64", "-ex", "target remote " + path}
		for _, c := range commands {
			args = append(args, "-ex", c)
		}
		out, _ := exec.CommandContext(t.Context(), "gdb", args...).CombinedOutput() // its status says nothing
		return string(out)
	}
	inOrder := func(out string, want ...string) {
		t.Helper()
		rest := out
		for _, w := range want {
			_, after, ok := strings.Cut(rest, w)
			if !ok {
				t.Fatalf("no %q behind what came before in:\n%s", w, out)
			}
			rest = after
		}
	}
	// Forwards to the end of the loop, and back to the instruction before; to the last
	// time round, by a breakpoint, and to the time before that; to the last that wrote
	// the word, and who wrote it before; and to the beginning.
	inOrder(debug("hbreak *0x7c09", "continue", "reverse-stepi", "x/i $pc", "monitor info replay", "delete",
		"hbreak *0x7c03", "reverse-continue", "x/hd 0x600", "reverse-continue", "x/hd 0x600", "delete",
		"watch *(short *) 0x600", "reverse-continue", "reverse-continue", "x/i $pc", "continue", "delete",
		"reverse-continue", "monitor info replay", "detach"),
		"Breakpoint 1, 0x0000000000007c09", "up to instruction 245", "0x7c07", "instruction count = 245",
		"playing 245 instructions again", "up to instruction 244", "Breakpoint 2, 0x0000000000007c03", "0x600:\t99",
		"Breakpoint 2, 0x0000000000007c03", "0x600:\t98",
		"watchpoint 3", "Old value = 98", "New value = 97", "Old value = 97", "New value = 96", "0x7c03", "Old value = 96", "New value = 97",
		"reverse-execution history", "instruction count = 0")
	select {
	case <-over:
		t.Error("the run was over before it was")
	default:
	}
	// Another gdb goes on there, and on to the end.
	before := players
	inOrder(debug("monitor info replay", "continue"), "instruction count = 0")
	<-over
	if players != before {
		t.Errorf("%d machines were started to go forwards", players-before)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	g, over = rewinder()
	inOrder(debug("monitor info replay", "kill"), "instruction count = 0", "killed")
	<-over
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
