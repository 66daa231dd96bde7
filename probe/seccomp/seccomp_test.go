package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var (
	dockerCaps = []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	adminCaps = append([]string{"CAP_SYS_ADMIN", "CAP_BPF"}, dockerCaps...)
)

// A call is what a filter sees.
type call struct {
	audit, number uint32
	args          [6]uint64
}

// vm runs a program of classic BPF.
type vm struct{ *bpf.VM }

func newVM(t testing.TB, raw []bpf.RawInstruction) vm {
	t.Helper()
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program has instructions that are none")
	}
	machine, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm{machine}
}

func (m vm) answer(t testing.TB, c call) uint32 {
	t.Helper()
	// The kernel's words are the machine's, those of a packet are big-endian.
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], c.number)
	binary.BigEndian.PutUint32(data[offAudit:], c.audit)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(a>>32))
	}
	ret, err := m.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(ret)
}

func compiled(t testing.TB, profile []byte, caps []string) vm {
	t.Helper()
	f, err := Compile(profile, caps)
	if err != nil {
		t.Fatal(err)
	}
	return newVM(t, f.Program)
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// each calls f with every system call of all three tables and a few that are none,
// with arguments around those that the profile compares with.
func each(s *specs.LinuxSeccomp, f func(call)) {
	values := make([][]uint64, 6)
	for _, c := range s.Syscalls {
		for _, a := range c.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				values[a.Index] = append(values[a.Index], v-1, v, v+1, v^1<<32, v^1<<63, uint64(uint32(v)))
			}
		}
	}
	for i := range values {
		slices.Sort(values[i])
		values[i] = slices.Compact(values[i])
	}
	for _, abi := range abis {
		for n := range uint32(560) {
			c := call{audit: abi.audit, number: abi.first + n}
			f(c)
			for i := range c.args {
				for _, v := range values[i] {
					if c.args[i] = v; abi.name == specs.ArchX86 {
						c.args[i] = uint64(uint32(v)) // the kernel extends them with zeroes
					}
					f(c)
				}
				if len(values[i]) > 0 {
					c.args[i] = values[i][int(n)%len(values[i])]
				}
			}
		}
	}
}

// meets says whether a call has an argument, as the manual page has the operators
// (seccomp_rule_add(3)).
func meets(c call, a specs.LinuxSeccompArg, narrow bool) bool {
	v, w := c.args[a.Index], a.Value
	if a.Op == specs.OpMaskedEqual {
		v, w = v&a.Value, a.ValueTwo&a.Value
	}
	if narrow {
		v, w = uint64(uint32(v)), uint64(uint32(w))
	}
	switch a.Op {
	case specs.OpNotEqual:
		return v != w
	case specs.OpLessThan:
		return v < w
	case specs.OpLessEqual:
		return v <= w
	case specs.OpGreaterThan:
		return v > w
	case specs.OpGreaterEqual:
		return v >= w
	}
	return v == w
}

// reference answers calls as a profile does that is read rule by rule.
func reference(s *specs.LinuxSeccomp) func(call) uint32 {
	type read struct {
		specs.LinuxSyscall
		numbers     map[uint32]bool
		multiplexed map[[2]uint32]bool // by number and first argument
		answer      uint32
	}
	var tables [3][]read
	var last [3]uint32
	for i, a := range abis {
		for _, rule := range s.Syscalls {
			r := read{LinuxSyscall: rule, numbers: map[uint32]bool{}, multiplexed: map[[2]uint32]bool{}}
			r.answer, _ = answer(rule.Action, rule.ErrnoRet)
			for _, name := range rule.Names {
				if n, ok := a.number(name); ok {
					r.numbers[n] = true
					last[i] = max(last[i], n)
				}
				if m, ok := multiplexed[name]; ok && a.name == specs.ArchX86 && len(rule.Args) == 0 {
					n, _ := a.number(m.by)
					r.multiplexed[[2]uint32{n, uint32(m.argument)}] = true
				}
			}
			tables[i] = append(tables[i], r)
		}
	}
	fallback, _ := answer(s.DefaultAction, s.DefaultErrnoRet)
	lax := slices.Contains([]specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrace}, s.DefaultAction)
	return func(c call) uint32 {
		i := slices.IndexFunc(abis, func(a abi) bool { return a.audit == c.audit && a.first == c.number&x32Bit })
		if i < 0 || i > 0 && !slices.Contains(s.Architectures, abis[i].name) {
			return unix.SECCOMP_RET_KILL_THREAD
		}
		number, narrow := c.number&^x32Bit, abis[i].narrow
		conditional, always := fallback, fallback
		for _, r := range tables[i] {
			met, any, indices := true, false, map[uint]bool{}
			for _, arg := range r.Args {
				met, any = met && meets(c, arg, narrow), any || meets(c, arg, narrow)
				indices[arg.Index] = true
			}
			if len(indices) < len(r.Args) {
				met = any
			}
			if r.multiplexed[[2]uint32{number, uint32(c.args[0])}] && conditional == fallback {
				conditional = r.answer
			}
			switch {
			case !r.numbers[number]:
			case len(r.Args) == 0 && always == fallback:
				always = r.answer
			case met && conditional == fallback:
				conditional = r.answer
			}
		}
		switch {
		case last[i] > 0 && number > last[i] && !lax:
			return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		case always != fallback:
			return always
		}
		return conditional
	}
}

// The compiled filter says to every call what the profile says.
func TestFilterIsTheProfile(t *testing.T) {
	for _, p := range []struct {
		name    string
		profile []byte
		caps    []string
	}{
		{"default", nil, dockerCaps}, {"with CAP_SYS_ADMIN", nil, adminCaps}, {"no capabilities", nil, nil}, {"mixed", read(t, "mixed.json"), nil},
	} {
		s, err := Resolve(p.profile, p.caps)
		if err != nil {
			t.Fatal(err)
		}
		m, said, wrong, n := compiled(t, p.profile, p.caps), reference(s), 0, 0
		each(s, func(c call) {
			n++
			if got, want := m.answer(t, c), said(c); got != want && wrong < 10 {
				wrong++
				t.Errorf("%s: %#x %d %x: %#x, want %#x", p.name, c.audit, c.number, c.args, got, want)
			}
		})
		t.Logf("%s: %d calls", p.name, n)
	}
}

// libseccomp's filters of the same rules say the same, to all calls that version 2.5.4
// knows. The files are from seccomp_rule_add_array for each rule that Docker leaves
// in, and seccomp_export_bpf.
func TestFilterIsLibseccomps(t *testing.T) {
	const known = 450 // what is newer has another name there, or none
	for _, g := range []struct {
		name, profile string
		caps          []string
	}{{"docker", "docker.json", dockerCaps}, {"admin", "docker.json", adminCaps}, {"mixed", "mixed.json", nil}} {
		data := read(t, g.name+".bpf")
		raw := make([]bpf.RawInstruction, len(data)/8)
		if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, raw); err != nil {
			t.Fatal(err)
		}
		theirs, ours, wrong, n := newVM(t, raw), compiled(t, read(t, g.profile), g.caps), 0, 0
		s, err := Resolve(read(t, g.profile), g.caps)
		if err != nil {
			t.Fatal(err)
		}
		fallback, err := answer(s.DefaultAction, s.DefaultErrnoRet)
		if err != nil {
			t.Fatal(err)
		}
		each(s, func(c call) {
			if number := c.number &^ x32Bit; number > known || number == unix.SYS_URETPROBE {
				return
			}
			got, want := ours.answer(t, c), theirs.answer(t, c)
			if got == unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) && want == fallback {
				return // runc's doing
			}
			n++
			if got != want && wrong < 10 {
				wrong++
				t.Errorf("%s: %#x %d %x: %#x, libseccomp says %#x", g.name, c.audit, c.number, c.args, got, want)
			}
		})
		t.Logf("%s: %d calls, %d instructions of theirs", g.name, n, len(raw))
	}
}

func TestDockersDefault(t *testing.T) {
	const eperm, enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	docker, admin := compiled(t, nil, dockerCaps), compiled(t, nil, adminCaps)
	for _, c := range []struct {
		number uint32
		arg    uint64
		want   uint32
		admin  uint32
	}{
		{unix.SYS_READ, 0, unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_KEYCTL, 0, eperm, eperm},
		{unix.SYS_MOUNT, 0, eperm, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_UNSHARE, 0, eperm, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_CLONE3, 0, enosys, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_CLONE, unix.CLONE_NEWUSER, eperm, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_CLONE, unix.CLONE_VM, unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKET, unix.AF_NETLINK, unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKET, unix.AF_VSOCK, eperm, eperm},
		{480, 0, enosys, enosys},
	} {
		call := call{audit: unix.AUDIT_ARCH_X86_64, number: c.number, args: [6]uint64{c.arg}}
		if got := docker.answer(t, call); got != c.want {
			t.Errorf("%d(%#x): %#x, want %#x", c.number, c.arg, got, c.want)
		}
		if got := admin.answer(t, call); got != c.admin {
			t.Errorf("%d(%#x) with CAP_SYS_ADMIN: %#x, want %#x", c.number, c.arg, got, c.admin)
		}
	}
	if got := docker.answer(t, call{audit: unix.AUDIT_ARCH_AARCH64}); got != unix.SECCOMP_RET_KILL_THREAD {
		t.Errorf("on another machine: %#x", got)
	}
	f, err := Compile(nil, dockerCaps)
	if err != nil || f.Flags != unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW || f.Chosen || len(f.Program) > 1000 || !strings.HasPrefix(f.Digest(), "sha256:") {
		t.Errorf("%d instructions, flags %d, %v, %s", len(f.Program), f.Flags, err, f.Digest())
	}
	t.Logf("%d instructions", len(f.Program))
}

func TestCheck(t *testing.T) {
	for _, good := range []string{
		string(read(t, "docker.json")), string(read(t, "mixed.json")), `{"defaultAction":"SCMP_ACT_ALLOW"}`,
		`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"name":"read","action":"SCMP_ACT_KILL"}]}`,
	} {
		if err := Check([]byte(good)); err != nil {
			t.Errorf("%.80s: %v", good, err)
		}
	}
	rule := func(r string) string { return `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + r + `]}` }
	many := strings.Repeat(`{"index":0,"value":1,"op":"SCMP_CMP_EQ"},`, 2000) + `{"index":0,"value":1,"op":"SCMP_CMP_EQ"}`
	for _, bad := range []struct{ profile, want string }{
		{`{`, "unexpected end"},
		{`{}`, "no defaultAction"},
		{`null`, "no defaultAction"},
		{`{"defaultAction":"SCMP_ACT_WINK"}`, `the default: action "SCMP_ACT_WINK" is unknown`},
		{`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}`, "errno 5000: at most 4095"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_S390"]}`, `"SCMP_ARCH_S390" is none of an x86-64 machine`},
		{`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}`, "flag"},
		{rule(`null`), "a rule is null"},
		{rule(`{"action":"SCMP_ACT_KILL"}`), "names no system call"},
		{rule(`{"names":["read"],"action":"SCMP_ACT_NOTIFY"}`), `read: action "SCMP_ACT_NOTIFY" is unknown here`},
		{rule(`{"names":["read"],"action":"SCMP_ACT_WINK","includes":{"caps":["CAP_BPF"]}}`), `read: action "SCMP_ACT_WINK"`},
		{rule(`{"name":"x","names":["read"],"action":"SCMP_ACT_KILL"}`), "both 'name' and 'names'"},
		{rule(`{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}`), "argument 6"},
		{rule(`{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":1,"op":"~"}]}`), `operator "~" is unknown`},
		{rule(`{"names":["read"],"action":"SCMP_ACT_KILL","args":[` + many + `]}`), "more instructions than the 4096"},
		{rule(`{"names":["read"` + strings.Repeat(`,"read"`, 20000) + `],"action":"SCMP_ACT_KILL","args":[` + many + `]}`), "more instructions than the 4096"},
		{strings.Repeat(" ", MaxProfile+1), "at most 262144"},
	} {
		if err := Check([]byte(bad.profile)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%.80s: %v, want %s", bad.profile, err, bad.want)
		}
	}
}

// Whatever is checked compiles for any capabilities into a program that the kernel
// would take, and that says what the profile says.
func FuzzCheck(f *testing.F) {
	for _, name := range []string{"docker.json", "mixed.json"} {
		f.Add(read(f, name))
	}
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":5,"value":7,"op":"SCMP_CMP_GT"}]}]}`))
	f.Fuzz(func(t *testing.T, profile []byte) {
		if Check(profile) != nil {
			return
		}
		filter, err := Compile(profile, adminCaps)
		if err != nil {
			if !errors.Is(err, errTooLong) {
				t.Fatal(err)
			}
			return
		}
		s, err := Resolve(profile, adminCaps)
		if err != nil {
			t.Fatal(err)
		}
		m, said := newVM(t, filter.Program), reference(s)
		for n := range uint32(24) {
			for _, a := range abis {
				c := call{audit: a.audit, number: a.first + 20*n, args: [6]uint64{1, 1 << 33, uint64(n), 3, 4, 7}}
				if got, want := m.answer(t, c), said(c); got != want {
					t.Fatalf("%+v: %#x, want %#x", c, got, want)
				}
			}
		}
	})
}
