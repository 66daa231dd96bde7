package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestArgs(t *testing.T) {
	for name, m := range map[string]Machine{
		"smallest": {Kernel: "/boot/bzImage"},
		"full": {
			Binary: "/opt/qemu/bin/qemu-system-x86_64", Accel: "kvm", CPU: "Nehalem", Memory: 1024, CPUs: 2,
			Kernel: "/k/bz,Image", Initrd: "/k/init,ramfs", Cmdline: `console=ttyS0 panic=-1 x="a b",c`,
			Disks: []Disk{{Path: "/d/a.img"}, {Path: "/d/b,c=d,,e.img"}},
			Ports: []string{"lab", "spare,2"},
			Clock: time.Date(2016, 2, 29, 23, 59, 58, 999, time.FixedZone("", 3600)),
		},
		"exact": {
			Kernel: "/boot/bzImage", Exact: true, Memory: 256, Ports: []string{"lab"}, Clock: time.Unix(1577836800, 0),
			Disks: []Disk{{Path: "/d/a,b.img", Size: 3<<20 + 1}, {Path: "/d/c.img", Size: 2 << 20}},
		},
		"record": {Kernel: "/k", Disks: []Disk{{Path: "/d/a.img"}}, Ports: []string{"lab", "more"}, Record: "/r/a,b"},
		"gdb":    {Kernel: "/k", Ports: []string{"lab"}, Snapshots: true, GDB: os.Stdin, Paused: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(m.Args(), "\n") + "\n"
			golden(t, filepath.Join("testdata", "args-"+name+".golden"), got)
			if err := m.check(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(m.Args(), m.Args()); diff != "" {
				t.Errorf("two calls differ:\n%s", diff)
			}
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", path, diff)
	}
}

func TestCheck(t *testing.T) {
	ok := Machine{Kernel: "/k"}
	for want, change := range map[string]func(*Machine){
		"nobody could tell":              func(m *Machine) { m.Paused = true },
		"no kernel":                      func(m *Machine) { m.Kernel = "" },
		`unknown accelerator "hvf"`:      func(m *Machine) { m.Accel = "hvf" },
		"memory of -1 MiB":               func(m *Machine) { m.Memory = -1 },
		"memory of 2000000 MiB":          func(m *Machine) { m.Memory = 2000000 },
		"256 CPUs":                       func(m *Machine) { m.CPUs = 256 },
		"17 disks":                       func(m *Machine) { m.Disks = make([]Disk, 17) },
		"a disk has no path":             func(m *Machine) { m.Disks = []Disk{{}} },
		"takes tcg, not kvm":             func(m *Machine) { m.Exact, m.Accel = true, "kvm" },
		"has one CPU, not 2":             func(m *Machine) { m.Exact, m.CPUs = true, 2 },
		"exact machine needs a clock":    func(m *Machine) { m.Exact = true },
		"exact machine has no snapshots": func(m *Machine) { m.Exact, m.Snapshots, m.Clock = true, true, time.Unix(1, 0) },
		"needs the size of disk d": func(m *Machine) {
			m.Exact, m.Clock, m.Disks = true, time.Unix(1, 0), []Disk{{Path: "d"}}
		},
		"record and replay at once":                  func(m *Machine) { m.Record, m.Replay = "/r", "/r" },
		"take tcg, not kvm":                          func(m *Machine) { m.Record, m.Accel = "/r", "kvm" },
		"take one CPU, not 2":                        func(m *Machine) { m.Replay, m.CPUs = "/r", 2 },
		"is exact already":                           func(m *Machine) { m.Record, m.Exact, m.Clock = "/r", true, time.Unix(1, 0) },
		"not go with snapshots":                      func(m *Machine) { m.Replay, m.Snapshots = "/r", true },
		"a confined machine cannot write a":          func(m *Machine) { m.Record, m.Confined = "/r", true },
		"recording's path of 4096":                   func(m *Machine) { m.Replay = strings.Repeat("x", 4096) },
		"31 ports":                                   func(m *Machine) { m.Ports = make([]string, 31) },
		`port name "a" is empty or`:                  func(m *Machine) { m.Ports = []string{"a", "a"} },
		`port name "" is empty or`:                   func(m *Machine) { m.Ports = []string{""} },
		"command line of 2048":                       func(m *Machine) { m.Cmdline = strings.Repeat("x", 2048) },
		`"a\nb" has a control character at byte 1`:   func(m *Machine) { m.Cmdline = "a\nb" },
		`"/k\x00" has a control character at byte 2`: func(m *Machine) { m.Kernel = "/k\x00" },
		"initrd path":                                func(m *Machine) { m.Initrd = "/i\x1b" },
		"disk path of 5000 bytes":                    func(m *Machine) { m.Disks = []Disk{{Path: strings.Repeat("d", 5000)}} },
		"port name of 300 bytes":                     func(m *Machine) { m.Ports = []string{strings.Repeat("p", 300)} },
		"clock 1969-12-31 23:59:59 ":                 func(m *Machine) { m.Clock = time.Unix(-1, 0).UTC() },
	} {
		m := ok
		change(&m)
		if err := m.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		if _, err := m.Start(t.Context()); err == nil {
			t.Errorf("%s: Start took it", want)
		}
	}
	long := Machine{Kernel: "/k", Cmdline: strings.Repeat("x", MaxCmdline)}
	if err := long.check(); err != nil {
		t.Error(err)
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright": "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)",
		"QEMU emulator version 10.0.0":                                              "10.0.0",
		"":                                                                          "",
		"QEMU emulator version ":                                                    "",
		"QEMU emulator version x":                                                   "",
		"QEMU emulator version 1\x1b[":                                              "",
		"qemu-img version 7.2":                                                      "",
	} {
		got, err := parseVersion([]byte(in))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("parseVersion(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)\nCopyright (c) 2003\n"))
	f.Add([]byte("QEMU emulator version 10.0.0\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := parseVersion(in)
		if err == nil && (v == "" || len(v) > 256 || strings.IndexFunc(v, control) >= 0) {
			t.Errorf("accepted %q as %q", in, v)
		}
	})
}
