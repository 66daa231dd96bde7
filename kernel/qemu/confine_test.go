package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfined: a confined QEMU boots what only we can read, and has nothing
// itself.
func TestConfined(t *testing.T) {
	needQEMU(t)
	private := func(path string) string {
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		return path
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, make([]byte, 4096), 0o400); err != nil {
		t.Fatal(err)
	}
	m := Machine{Kernel: private(tinyKernel(t, false)), Initrd: initrd, Disks: []Disk{{Path: private(emptyDisk(t))}}, Memory: 128, Confined: true}
	seen := &watch{marker: []byte(tinyMarker), found: make(chan struct{})}
	m.Console = seen
	vm, err := m.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(); err != nil {
		t.Fatal(err)
	}
	<-seen.found

	m.Kernel = private(tinyKernel(t, true))
	if vm, err = m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	for comm := "sh\n"; comm == "sh\n"; comm = read(t, fmt.Sprintf("/proc/%d/comm", vm.pid)) {
	}
	status := read(t, fmt.Sprintf("/proc/%d/status", vm.pid))
	if want := "Uid:\t65534\t65534\t65534\t65534\n"; os.Geteuid() == 0 && (!strings.Contains(status, want) || !strings.Contains(status, "Groups:\t \n")) {
		t.Errorf("QEMU's status is\n%s", status)
	}
	limits := read(t, fmt.Sprintf("/proc/%d/limits", vm.pid))
	for _, want := range []string{
		"Max core file size        0                    0 ",
		fmt.Sprintf("Max file size             %-20d", 1<<20+1<<17+confinedFile),
		fmt.Sprintf("Max address space         %-20d", 128<<20+confinedSpace),
	} {
		if !strings.Contains(limits, want) {
			t.Errorf("no %q in\n%s", want, limits)
		}
	}
	vm.Kill()
	if err := vm.Wait(); err != nil {
		t.Error(err)
	}
}

func TestConfinedErrors(t *testing.T) {
	needQEMU(t)
	before := read(t, "/proc/self/limits")
	for _, m := range []Machine{{Kernel: "/nope"}, {Kernel: tinyKernel(t, false), Disks: []Disk{{Path: "/nope"}}}} {
		m.Confined = true
		if _, err := m.Start(t.Context()); err == nil || err.Error() != "confine qemu: open /nope: no such file or directory" {
			t.Errorf("got %v", err)
		}
	}
	if read(t, "/proc/self/limits") != before {
		t.Error("our own limits changed")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
